"""Mouse skulls: 41 micro-CT scans of as many strains, with 45 points that an expert placed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medrl.errors import MedrlError
from medrl_datasets.card import Card, Datalist, Landmarks
from medrl_datasets.local import DataSet, read_table

#: As the data's card asks for.
LEFT_OUT = ("SF-CamEiJ",)

CARD = Card(
    name="mouse_skull_ct",
    title="Mouse skulls: 41 heads of as many strains, micro-CT, with 45 points on bone",
    modality="micro-CT; grey values without a unit, bone bright",
    grid="about 160 x 160 x 160 voxels of 0.141 mm, 8 bit in steps of 4",
    source="Heads of 8-week-old mice of many inbred strains and F1 crosses, one of each",
    home="https://doi.org/10.1111/joa.12645",
    licence="GPL-3 (LICENSE)",
    weights="yes, naming the source, under GPL-3",
    citation=(
        "Maga A.M., Tustison N.J., Avants B.B., A population level atlas of Mus musculus "
        "craniofacial skeleton and automated image-based shape analysis, Journal of Anatomy "
        "231(3), 433-443, 2017, doi:10.1111/joa.12645"
    ),
    labels=(
        "landmarks.csv: 45 points of an expert on bone, world RAS mm and voxels; specimens.csv "
        "says which were brought back by a rigid fit (`refitted`, off by 0.02 to 0.1 mm)"
    ),
    obtain=(
        "A public repository under GPL-3 has scans and points. Here scans are at 0.141 mm, 8 bit; "
        "specimens.csv and splits.csv are medrl's"
    ),
    traps=(
        "Every head lies in a pose of its own, turned by up to 180 degrees",
        "After the best rigid alignment points still scatter by 0.37 mm, 2.6 voxels",
        "SF-CamEiJ is left out",
        "F1 crosses look like their parents",
    ),
    holdout=("B6CBAF1-J", "C3H_HEJ", "CBA_J", "NOD_SHILTJ", "PWK-PhJ", "SJL_J"),
)


class MouseSkullCt(DataSet):
    """The scans with their points, called 01 to 45."""

    card = CARD

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        return {"image": root / "images" / f"{subject}.nii.gz"}

    def datalist(self, root: Path) -> Datalist:
        """Return MONAI's datalist, less what is left out."""
        return {
            key: [entry for entry in entries if entry["subject"] not in LEFT_OUT]
            for key, entries in super().datalist(root).items()
        }

    def landmarks(self, root: Path) -> Landmarks:
        """Read landmarks.csv: the points of every specimen, RAS+ millimetres.

        Raises:
            MedrlError: If the file is missing or broken.
        """
        path = root / "landmarks.csv"
        found: Landmarks = {}
        for row in read_table(path, ("specimen", "landmark", "x", "y", "z")):
            try:
                place = np.array([float(row[axis]) for axis in "xyz"])
                name = f"{int(row['landmark']):02d}"
            except ValueError as error:
                raise MedrlError(f"{path}: {row['specimen']}: {error}") from error
            if row["specimen"] not in LEFT_OUT:
                found.setdefault(row["specimen"], {})[name] = place
        return found


DATASET = MouseSkullCt()
