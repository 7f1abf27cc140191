"""One head CT, the sample of InVesalius."""

from __future__ import annotations

from pathlib import Path

from medrl_datasets.card import Card
from medrl_datasets.local import DataSet

CARD = Card(
    name="cranium_ct",
    title="Cranium: one head CT, the sample of InVesalius",
    modality="CT, head, Hounsfield units",
    grid="163 x 163 x 108 voxels of 1.5 mm, left-posterior-superior",
    source="InVesalius, Centro de Tecnologia da Informacao Renato Archer",
    home="https://github.com/invesalius/invesalius3",
    licence="GPL-2: tests only, never ship it or anything made from it",
    weights="no",
    citation="InVesalius 3, Centro de Tecnologia da Informacao Renato Archer, Campinas, Brazil",
    labels="None",
    obtain="The sample of InVesalius 3; Debian packages it with the program",
    holdout=("cranium_ct",),
)


class CraniumCt(DataSet):
    """The one scan."""

    card = CARD
    subjects = ("cranium_ct",)

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        return {"image": root / f"{subject}.nii.gz"}


DATASET = CraniumCt()
