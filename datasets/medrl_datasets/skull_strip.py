"""Skull-stripped copies of labelled heads, so that models also learn bare brains."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_dilation, binary_fill_holes

from medrl.files import atomic_path
from medrl_datasets.card import Datalist, Entry


def brain_mask(labels: NDArray[np.integer], *, grow: int = 1) -> NDArray[np.bool_]:
    """Mask of the brain from a map of its regions.

    Args:
        labels: (I, J, K), 0 outside the labelled regions.
        grow: Voxels added around: skull stripping tools differ in how much fluid they leave.

    Returns:
        (I, J, K) bool, closed and without holes.
    """
    mask = np.pad(labels > 0, 3)
    mask = binary_fill_holes(binary_closing(mask, iterations=3))
    if grow:
        mask = binary_dilation(mask, iterations=grow)
    return np.asarray(mask[3:-3, 3:-3, 3:-3])


def add_brains(datalist: Datalist, folder: Path) -> Datalist:
    """Add a skull-stripped copy of every second training and validation head.

    Args:
        datalist: Cases with an image and a `label` map of brain regions.
        folder: Where the copies are written; made if missing.

    Returns:
        The datalist with the copies, which keep their subject's name and so its landmarks; the
        test entries stay as they are.

    Raises:
        OSError: If a copy cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    extended = dict(datalist)
    for split in ("training", "validation"):
        copies = []
        for number, entry in enumerate(datalist[split][::2]):
            path = folder / f"{entry['subject']}_brain.nii.gz"
            _write_brain(entry, path, grow=number % 3)
            copies.append({**entry, "image": str(path)})
        extended[split] = [*datalist[split], *copies]
    return extended


def _write_brain(entry: Entry, path: Path, *, grow: int) -> None:
    head, labels = nib.load(entry["image"]), nib.load(entry["label"])
    mask = brain_mask(np.asanyarray(labels.dataobj).astype(np.int32), grow=grow)
    brain = np.where(mask, np.asanyarray(head.dataobj), 0)
    image = nib.Nifti1Image(brain.astype(np.float32), head.affine)
    image.set_data_dtype(np.int16)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
