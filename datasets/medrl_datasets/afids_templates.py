"""AFIDs: 32 expert-placed anatomical fiducials on templates of the human head."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from medrl.errors import MedrlError
from medrl_datasets.card import Card, Landmarks, Splits
from medrl_datasets.local import DataSet

#: Image and the template whose fiducials belong to it.
TEMPLATES = {
    "Colin27_T1w_ch2": "Colin27",
    "MNI152Lin_PDw": "MNI152Lin",
    "MNI152Lin_T1w": "MNI152Lin",
    "MNI152Lin_T2w": "MNI152Lin",
    "MNI152NLin2009aSym_T1w": "MNI152NLin2009bSym",
    "MNI152NLin2009cAsym_T1w_brain": "MNI152NLin2009cAsym",
    "MNI305_T1w": "MNI305",
}

#: The one individual. The points of the other templates are behind those that `afids-t1` learns.
HOLDOUT = ("Colin27_T1w_ch2",)

LANDMARKS = (
    "AC", "PC", "infracollicular sulcus", "PMJ", "superior interpeduncular fossa",
    "R superior LMS", "L superior LMS", "R inferior LMS", "L inferior LMS", "culmen",
    "intermammillary sulcus", "R MB", "L MB", "pineal gland", "R LV at AC", "L LV at AC",
    "R LV at PC", "L LV at PC", "genu of CC", "splenium of CC", "R AL temporal horn",
    "L AL temporal horn", "R superior AM temporal horn", "L superior AM temporal horn",
    "R inferior AM temporal horn", "L inferior AM temporal horn", "R indusium griseum origin",
    "L indusium griseum origin", "R ventral occipital horn", "L ventral occipital horn",
    "R olfactory sulcal fundus", "L olfactory sulcal fundus",
)  # fmt: skip

CARD = Card(
    name="afids_templates",
    title="AFIDs: 32 anatomical fiducials on five templates of the human head",
    modality="MR, T1-weighted; one template also T2- and PD-weighted; averages, and one adult",
    grid="1 to 2 mm, various",
    source="AFIDs project, Western University; templates of the Montreal Neurological Institute",
    home="https://afids.io",
    licence="Points: CC BY 4.0. Images: each template's own, see LICENSE.* in the folder",
    weights=(
        "The points: yes, naming AFIDs. `afids-t1` learns those of all templates but Colin27, as "
        "registration carries them to the heads of IXI. The images: not trained on"
    ),
    citation=(
        "Lau J.C. et al., A framework for evaluating correspondence between brain images using "
        "anatomical fiducials, Human Brain Mapping 40(14), 2019, doi:10.1002/hbm.24693; Taha A. et "
        "al., Scientific Data 10, 449, 2023, doi:10.1038/s41597-023-02330-9"
    ),
    labels=(
        "Placed by experts, the mean of several raters; raters differ by 1.15 mm on average, by "
        "0.24 mm at AC and 0.31 mm at PC"
    ),
    obtain=(
        "The points are in the repositories afids/afids-data and afids/afids-validator on GitHub, "
        "the templates come with them or from the Montreal Neurological Institute"
    ),
    traps=(
        "The points of MNI152NLin2009bSym belong to the image MNI152NLin2009aSym",
        "The points of Colin27 fit this copy; other copies of the template are shifted by 1 mm",
        "MNI152NLin2009cAsym has no skull",
        "In the blurred averages of linear registration, MNI152Lin and MNI305, PC lies 2 to 4 mm "
        "behind where registration with the sharp ones of 2009 puts it, the ventricles at PC 5 to "
        "7 mm",
        "MNI152NLin2009aSym is the head of the data set mni152",
    ),
    landmarks=LANDMARKS,
    holdout=HOLDOUT,
)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read one fiducial file of 3D Slicer 4."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if not any(line.replace(" ", "") == "#CoordinateSystem=0" for line in lines):
            raise MedrlError(f"{path} is not in RAS")
        rows = csv.reader(line for line in lines if not line.startswith("#"))
        return {row[12]: np.array([float(value) for value in row[1:4]]) for row in rows}
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise MedrlError(f"cannot read {path}: {error}") from error


class AfidsTemplates(DataSet):
    """The templates; `landmarks` has the points under their anatomical names."""

    card = CARD

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        return {"image": root / "images" / f"{subject}.nii.gz"}

    def splits(self, root: Path) -> Splits:
        """Return the templates: Colin27 is held out, the points of the others are trained on."""
        train = tuple(name for name in TEMPLATES if name not in HOLDOUT)
        return {"train": train, "val": (), "holdout": HOLDOUT}

    def landmarks(self, root: Path) -> Landmarks:
        """Read the 32 fiducials of each template, RAS+ millimetres.

        The files number the points in `label` and name them in `desc`.

        Raises:
            MedrlError: If a file is missing, broken or not in RAS.
        """
        return {
            subject: _read(root / "landmarks" / f"tpl-{template}_afids.fcsv")
            for subject, template in TEMPLATES.items()
        }


DATASET = AfidsTemplates()
