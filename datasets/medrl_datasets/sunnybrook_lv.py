"""Sunnybrook: 36 hearts in short-axis cine MR, one phase, with the left ventricle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.volume.read import write_nifti
from medrl_datasets.card import Card
from medrl_datasets.local import DataSet

_FILE = "lv.npz"

CARD = Card(
    name="sunnybrook_lv",
    title="Sunnybrook Cardiac Data: 36 hearts, short-axis MR, with the left ventricle",
    modality="MR, cine SSFP, one phase",
    grid="64 x 64 pixels around the heart, 5 to 15 slices 8 to 10 mm apart; one file for all",
    source="Sunnybrook Health Sciences Centre, Toronto",
    home="https://www.cardiacatlas.org/sunnybrook-cardiac-data/",
    licence="CC0",
    weights="yes",
    citation=(
        "Radau P. et al., Evaluation framework for algorithms segmenting short axis cardiac MRI, "
        "The MIDAS Journal, Cardiac MR Left Ventricle Segmentation Challenge, 2009"
    ),
    labels="Endocardial contours of the left ventricle, drawn by experts: 1 inside",
    obtain=(
        "The Cardiac Atlas Project. Here slices of one phase are cut to the heart; lv.npz holds "
        "images and masks (S, 64, 64), the first and last + 1 slice of each case, and spacing_mm"
    ),
    traps=(
        "The ventricle sits near the middle: shift at random",
        "One phase, not a film",
        "Slices have no place in the patient: rows and columns are all there is",
    ),
    holdout=("0", "6", "12", "18", "24", "30"),
)


class SunnybrookLv(DataSet):
    """One file for all subjects; :func:`write_cases` makes scans of it."""

    card = CARD

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject: all share one."""
        return {"image": root / _FILE}


def case(root: Path, subject: str) -> tuple[MetaTensor, MetaTensor]:
    """Read a subject.

    Args:
        root: Folder of the local copy.
        subject: Its number.

    Returns:
        Image and mask, (1, 64, 64, S): rows, columns, slices from base to apex or back, in
        millimetres from the first pixel.

    Raises:
        MedrlError: If the file or the subject is not there.
    """
    try:
        with np.load(root / _FILE) as file:
            first, last = file["cases"][int(subject)]
            image, mask = file["images"][first:last], file["masks"][first:last]
            spacing = file["spacing_mm"][first].astype(np.float64)
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise MedrlError(f"cannot read {root / _FILE}: {error}") from error
    affine = torch.from_numpy(np.diag([*spacing, 1.0]))
    made = [
        MetaTensor(torch.from_numpy(np.moveaxis(one, 0, -1)[None].astype(np.float32)), affine)
        for one in (image, mask)
    ]
    return made[0], made[1]


def write_cases(root: Path, out: Path) -> dict[str, dict[str, Path]]:
    """Write every subject as ``NUMBER.nii.gz`` and ``NUMBER_mask.nii.gz``.

    Args:
        root: Folder of the local copy.
        out: Folder to write into; made if missing.

    Returns:
        ``image`` and ``label`` of each subject.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for subjects in DATASET.splits(root).values():
        for subject in subjects:
            paths = {"image": f"{subject}.nii.gz", "label": f"{subject}_mask.nii.gz"}
            files = {key: out / name for key, name in paths.items()}
            for file, scan in zip(files.values(), case(root, subject), strict=True):
                write_nifti(file, scan)
            written[subject] = files
    return written


DATASET = SunnybrookLv()
