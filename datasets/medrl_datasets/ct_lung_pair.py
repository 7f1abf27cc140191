"""elastix test data: one CT lung at two dates, with corresponding points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medrl.errors import MedrlError
from medrl.volume.space import lps_to_ras
from medrl_datasets.card import Card, Landmarks
from medrl_datasets.local import DataSet

#: Date, scan, and the role that the names of mask and points give it.
_DATES = {
    "baseline": ("3DCT_lung_baseline.mha", "fixed"),
    "followup": ("3DCT_lung_followup.mha", "moving"),
}

CARD = Card(
    name="ct_lung_pair",
    title="elastix test data: one CT lung at two dates, 51 corresponding points",
    modality="CT, thorax, Hounsfield units",
    grid="115 x 157 x 129 and 115 x 166 x 131 voxels of 1.37 x 1.37 x 2.5 mm, MetaImage",
    source="Test data of elastix and ITKElastix",
    home="https://github.com/InsightSoftwareConsortium/ITKElastix",
    licence="Apache-2.0",
    weights="not trained on: evaluation only",
    citation=(
        "Klein S. et al., elastix: a toolbox for intensity-based medical image registration, IEEE "
        "Transactions on Medical Imaging 29(1), 2010, doi:10.1109/TMI.2009.2035616"
    ),
    labels=(
        "51 corresponding points (the corrected files) in LPS mm; their distance before "
        "registration is 35.3 mm; masks of the lungs"
    ),
    obtain="The repository InsightSoftwareConsortium/ITKElastix on GitHub, folder examples/data",
    traps=("Voxels outside the reconstruction hold -2048", "The point files are LPS, not RAS"),
    landmarks=tuple(f"p{number:02d}" for number in range(1, 52)),
    holdout=tuple(_DATES),
)


class CtLungPair(DataSet):
    """Both dates with the masks of the lungs."""

    card = CARD
    subjects = tuple(_DATES)

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        scan, role = _DATES[subject]
        return {"image": root / scan, "label": root / f"CT_3D_lung_{role}_mask.mha"}

    def landmarks(self, root: Path) -> Landmarks:
        """Read the corresponding points p01 to p51 of both dates, RAS+ millimetres.

        Raises:
            MedrlError: If a file is missing or broken.
        """
        points = {}
        for subject, (_, role) in _DATES.items():
            path = root / f"CT_3D_lung_{role}_point_set_corrected.txt"
            try:
                positions = np.loadtxt(path, skiprows=2, ndmin=2)
            except (OSError, ValueError) as error:
                raise MedrlError(f"cannot read {path}: {error}") from error
            if positions.shape != (len(CARD.landmarks), 3):
                raise MedrlError(f"{path} does not hold {len(CARD.landmarks)} points")
            points[subject] = dict(zip(CARD.landmarks, lps_to_ras(positions), strict=True))
        return points


DATASET = CtLungPair()
