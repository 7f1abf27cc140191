"""The IXI heads and their landmarks."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from evaluation.images import Array, LabelledImage
from medrl.landmark.data import Sample
from medrl_datasets import ixi_brain_t1

#: Landmark names in the order of every array here.
LANDMARKS = ixi_brain_t1.CARD.landmarks


def data_root() -> Path:
    """Folder of all data sets: the variable MEDRL_DATA, or shared/data next to the checkout."""
    base = os.environ.get("MEDRL_DATA") or "../shared/data"
    root = Path(__file__).resolve().parents[2] / base
    if not root.is_dir():
        raise SystemExit(f"no folder of data sets at {base}: set MEDRL_DATA")
    return root


def subjects(split: str) -> tuple[str, ...]:
    """Subjects of a split (train, val, holdout)."""
    return ixi_brain_t1.DATASET.splits(data_root() / "ixi_brain_t1")[split]


def load(subject: str) -> LabelledImage:
    """Read a subject as it is."""
    root = data_root() / "ixi_brain_t1"
    image = sitk.ReadImage(str(root / "t1" / f"{subject}.nii.gz"))
    return LabelledImage(subject, subject, image, _landmarks()[subject])


def samples(split: str) -> list[Sample]:
    """The labelled scans of a split, as baselines learn from them."""
    folder, points = data_root() / "ixi_brain_t1" / "t1", _landmarks()
    return [Sample(folder / f"{s}.nii.gz", points[s]) for s in subjects(split)]


def shapes(split: str) -> Array:
    """Landmarks of a split, (S, K, 3) RAS mm, in the order of :data:`LANDMARKS`."""
    points = _landmarks()
    return np.stack([[points[s][name] for name in LANDMARKS] for s in subjects(split)])


@cache
def _landmarks() -> dict[str, dict[str, Array]]:
    return ixi_brain_t1.DATASET.landmarks(data_root() / "ixi_brain_t1")
