"""DAVIS 2016, eight films: one object in each, outlined in every frame."""

from __future__ import annotations

from pathlib import Path

from medrl_datasets.card import Card
from medrl_datasets.local import DataSet

CARD = Card(
    name="davis2016_small",
    title="DAVIS 2016: eight natural videos with one object each, outlined in every frame",
    modality="Video, RGB",
    grid="40 to 75 frames of 320 x 180 pixels, reduced from 854 x 480",
    source="ETH Zurich and Disney Research",
    home="https://davischallenge.org/",
    licence="BSD, by its toolkit (LICENSE.davis-toolkit)",
    weights="yes; frames are not for re-publishing",
    citation=(
        "Perazzi F. et al., A benchmark dataset and evaluation methodology for video object "
        "segmentation, CVPR 2016, doi:10.1109/CVPR.2016.85"
    ),
    labels="Masks of one object, exact, in every frame; a rider and what is ridden are one",
    obtain="The challenge's website, in its 480p edition; here at 320 x 180",
    traps=(
        "The measure J leaves out the first frame, which is given, and the last",
        "Whoever trains on the first frame of a film must say so",
    ),
    holdout=("horsejump-high", "car-roundabout"),
)


class Davis2016Small(DataSet):
    """The films with their masks, folders of pictures."""

    card = CARD

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the folders of a film."""
        return {"image": root / "images" / subject, "label": root / "masks" / subject}


DATASET = Davis2016Small()
