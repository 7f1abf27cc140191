"""The labelled cases that seed models are trained and judged on."""

from __future__ import annotations

import os
from pathlib import Path

from medrl.errors import MedrlError
from medrl.seednet.data import LabelledGrid, Sample, load_labelled
from medrl.seednet.model import ModelSettings
from medrl_datasets import get

#: Data set, and split of its card, by model.
DATA = {"hippocampus-t1": "msd_hippocampus", "sarcoma-pet-ct": "sts_ct_pet"}
_SPLITS = {"train": "training", "val": "validation", "holdout": "test"}


def root(name: str) -> Path:
    """Folder of a data set.

    Raises:
        MedrlError: If it is not there.
    """
    folder = Path(os.environ.get("MEDRL_DATA", "../shared/data")) / name
    if not folder.is_dir():
        raise MedrlError(f"{folder} is not there: set MEDRL_DATA")
    return folder


def cases(model: str, split: str, *, mask: str = "CT") -> list[Sample]:
    """Files of one split.

    Args:
        model: Name of a model that ships.
        split: ``train``, ``val`` or ``holdout``.
        mask: Of the sarcomas, the modality whose contour is the truth.
    """
    name = DATA[model]
    folder = root(name)
    subjects = [case["subject"] for case in get(name).datalist(folder)[_SPLITS[split]]]
    if name == "msd_hippocampus":
        return [
            Sample({"MR": folder / "images" / f"{s}.nii.gz"}, folder / "labels" / f"{s}.nii.gz")
            for s in subjects
        ]
    return [
        Sample(
            {m: folder / m.lower() / f"{s}.nii.gz" for m in ("PET", "CT")},
            folder / f"{mask.lower()}_gtv" / f"{s}.nii.gz",
        )
        for s in subjects
    ]


def load(
    model: str, split: str, settings: ModelSettings, *, mask: str = "CT"
) -> list[LabelledGrid]:
    """Read one split onto a model's grid."""
    return load_labelled(
        cases(model, split, mask=mask),
        channels=settings.channels,
        targets=settings.targets,
        spacing=settings.spacing,
    )
