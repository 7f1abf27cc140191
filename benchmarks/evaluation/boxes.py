"""Scans with boxes, and such whose field of view ends anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.random import Generator
from numpy.typing import NDArray
from torch.nn import functional as F

import medrl_datasets
from evaluation.images import half_of
from medrl.localization.data import Sample
from medrl.volume.space import as_affine, cropped_affine

#: Affine (4, 4) and grid of a part of a scan.
Content = tuple[NDArray[np.float64], tuple[int, ...]]


def samples(name: str, split: str) -> list[Sample]:
    """The scans of a split of a data set with their masks."""
    dataset = medrl_datasets.get(name)
    entries = dataset.datalist(medrl_datasets.root_of(name))[split]
    found = []
    for entry in entries:
        images = {channel: Path(entry[key]) for channel, key in dataset.channels.items()}
        image = next(iter(images.values()), Path(entry["image"]))
        found.append(Sample(image, Path(entry["label"]), dataset.targets, images=images))
    return found


def shifted_and_cropped(
    scan: MetaTensor, rng: Generator, *, least: float = 0.6, air: float = 0.2
) -> tuple[MetaTensor, NDArray[np.float64], Content]:
    """Cut every axis to a random part of it, add air, and move the scan in the world.

    Args:
        scan: MetaTensor (1, I, J, K).
        rng: Source of all randomness.
        least: Smallest share of an axis that is kept.
        air: Largest share that is added to a face, to every second one.

    Returns:
        The scan, by how much everything in it has moved, (3,) RAS mm, and the affine and grid of
        the part of it that is not added air.
    """
    size = np.array(scan.shape[1:])
    kept = (size * rng.uniform(least, 1.0, 3)).astype(int)
    start = rng.integers(0, size - kept + 1)
    i, j, k = (slice(a, a + n) for a, n in zip(start, kept, strict=True))
    added = (kept[:, None] * rng.uniform(0, air, (3, 2))).astype(int)
    added[rng.random((3, 2)) < 0.5] = 0
    volume = scan.as_tensor()[:, i, j, k].float()
    volume = F.pad(volume, added[::-1].ravel().tolist(), value=float(scan.as_tensor().min()))
    moved = rng.uniform(-100, 100, 3)
    affine = cropped_affine(as_affine(scan.affine), start)
    affine[:3, 3] += moved
    padded = cropped_affine(affine, -added[:, 0])
    return (
        MetaTensor(volume.contiguous(), affine=torch.from_numpy(padded)),
        moved,
        (affine, (int(kept[0]), int(kept[1]), int(kept[2]))),
    )


def halved(scan: MetaTensor, rng: Generator, *, axis: int, keep_low: bool) -> MetaTensor:
    """Cut a scan by a plane near its middle and keep one part, 40 to 60 % of an array axis."""
    start = np.zeros(3, dtype=int)
    start[axis], kept = half_of(scan.shape[axis + 1], rng, keep_low=keep_low)
    volume = scan.as_tensor().narrow(axis + 1, int(start[axis]), kept).contiguous()
    affine = cropped_affine(as_affine(scan.affine), start)
    return MetaTensor(volume, affine=torch.from_numpy(affine))
