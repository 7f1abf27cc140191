"""Maps of the tissues of labelled T1 heads, of which scans of any contrast are made up."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    binary_closing,
    binary_fill_holes,
    binary_opening,
    distance_transform_edt,
    label,
)

from medrl.data.contrast import TISSUES
from medrl.files import atomic_path
from medrl_datasets.card import Datalist, Entry
from medrl_datasets.skull_strip import brain_mask

#: Labels of fluid and of white matter (MUSE); every other one is grey matter.
_FLUID = (1, 4, 11, 46, 49, 50, 51, 52)
_WHITE = (35, 40, 41, 61, 62, *range(81, 96))
#: What is dark and this near to the brain is bone, mm.
_SKULL_MM = 16.0
#: Share of the brightness of white matter below which nothing but air, bone and fluid is, and above
#: which outside the brain there is fat.
_DARK, _FAT = 0.25, 0.95
#: With less than this share of voxels around the brain above 0, a scan shows the brain alone.
_STRIPPED = 0.2


def tissue_map(
    volume: NDArray[np.floating], labels: NDArray[np.integer], spacing_mm: float
) -> NDArray[np.uint8]:
    """Tissues of a T1 head.

    In the brain they follow from the labels; outside from how bright a voxel is and how far from
    the brain it lies.

    Args:
        volume: (I, J, K) T1 scan.
        labels: (I, J, K) MUSE regions.
        spacing_mm: Voxel size.

    Returns:
        (I, J, K), indices of :data:`medrl.data.contrast.TISSUES`.
    """
    value = {name: index for index, name in enumerate(TISSUES)}
    white = np.isin(labels, _WHITE)
    bright = float(np.median(volume[white]))
    seen = binary_opening(volume > _DARK * bright)
    pieces, _ = label(seen)
    head = pieces == np.bincount(pieces[pieces > 0]).argmax()
    brain = brain_mask(labels, grow=1)
    head = binary_closing(np.pad(head | brain, 8), iterations=6)
    for axis in range(3):
        head = np.stack([binary_fill_holes(one) for one in np.moveaxis(head, axis, 0)])
        head = np.moveaxis(head, 0, axis)
    head = head[8:-8, 8:-8, 8:-8]
    away = distance_transform_edt(~brain, sampling=spacing_mm)

    out = np.full(volume.shape, value["air"], np.uint8)
    dark = volume < _DARK * bright
    out[head] = value["muscle"]
    out[head & (volume > _FAT * bright)] = value["fat"]
    out[head & dark] = value["cavity"]
    # The marrow is bright, and as much of the skull as the tables on both sides of it.
    skull = binary_closing(head & dark & (away < _SKULL_MM), iterations=2)
    out[skull & head] = value["bone"]
    out[brain] = value["fluid"]
    out[labels > 0] = value["grey matter"]
    out[white] = value["white matter"]
    out[np.isin(labels, _FLUID)] = value["fluid"]
    return out


def add_tissues(datalist: Datalist, folder: Path) -> Datalist:
    """Add a map of tissues to every training and validation scan.

    Args:
        datalist: Cases with an image and a `label` map of brain regions; an image may have been
            stripped of all but the brain.
        folder: Where the maps are written; made if missing.

    Returns:
        The datalist with the key `tissues`; the test entries stay as they are.

    Raises:
        OSError: If a map cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    extended = dict(datalist)
    for split in ("training", "validation"):
        extended[split] = [
            {**entry, "tissues": str(_write_map(entry, folder))} for entry in datalist[split]
        ]
    return extended


def _write_map(entry: Entry, folder: Path) -> Path:
    path = folder / Path(entry["image"]).name
    scan, labels = nib.load(entry["image"]), nib.load(entry["label"])
    volume = np.asarray(scan.dataobj, dtype=np.float32)
    spacing = float(min(scan.header.get_zooms()[:3]))
    regions = np.asanyarray(labels.dataobj).astype(np.int32)
    found = tissue_map(volume, regions, spacing)
    if (volume[regions == 0] > 0).mean() < _STRIPPED:
        found[volume <= 0] = 0
    with atomic_path(path) as temporary:
        nib.save(nib.Nifti1Image(found, scan.affine), temporary)
    return path
