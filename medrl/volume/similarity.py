"""How alike scans are that may be of different contrast."""

from __future__ import annotations

import math

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.volume.space import apply_affine, as_affine, inside, voxel_to_world

#: Mutual information is taken from about so many voxels, in so many bins of grey.
_SAMPLES, _BINS = 1_000_000, 64
#: Voxels along an axis that are looked at from afar.
_THIN = 40


def normalized_mutual_information(first: ArrayLike, second: ArrayLike) -> float | None:
    """(H(A) + H(B)) / H(A, B) of paired values: 1 if independent, 2 if one tells the other.

    Studholme, Hill and Hawkes, Pattern Recognition 32, 1999. The lowest and the highest thousandth
    of the values count as the ones next to them.

    Args:
        first: Values (N,).
        second: Values (N,).

    Returns:
        From 1 to 2; None if there are no values, or they are all equal.
    """
    values = [np.asarray(v, dtype=np.float64).ravel() for v in (first, second)]
    if not values[0].size:
        return None
    a, b = (np.clip(v, *np.quantile(v, (0.001, 0.999))) for v in values)
    counts = np.histogram2d(a, b, bins=_BINS)[0]
    joint = _entropy(counts)
    if joint == 0:
        return None
    return (_entropy(counts.sum(axis=0)) + _entropy(counts.sum(axis=1))) / joint


def overlap_information(
    fixed: MetaTensor, moving: MetaTensor, moved: MetaTensor, transform: NDArray[np.float64]
) -> float | None:
    """Normalised mutual information of the voxels that lie in both scans.

    Args:
        fixed: MetaTensor (1, I, J, K).
        moving: MetaTensor (1, I', J', K').
        moved: The moving scan on the fixed grid, moved by the transform.
        transform: (4, 4) fixed world to moving world, RAS mm.

    Returns:
        See :func:`normalized_mutual_information`.
    """
    step = max(1, round(math.cbrt(fixed[0].numel() / _SAMPLES)))
    axes = [np.arange(0, n, step) for n in fixed.shape[1:]]
    world = voxel_to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1), fixed.affine)
    both = inside(apply_affine(transform, world), moving.affine, tuple(moving.shape[1:]))
    values = (scan.as_tensor()[0, ::step, ::step, ::step] for scan in (fixed, moved))
    first, second = (value.numpy(force=True)[both] for value in values)
    return normalized_mutual_information(first, second)


def agreement(
    fixed: MetaTensor, moving: MetaTensor, transform: NDArray[np.float64]
) -> tuple[float, float]:
    """How well a transform fits two scans, seen from afar.

    Args:
        fixed: MetaTensor (C, I, J, K), of which the first channel counts, as of the other.
        moving: MetaTensor (C, I', J', K').
        transform: (4, 4) fixed world to moving world, RAS mm.

    Returns:
        Normalised mutual information less 1 over a thin sample of the whole fixed scan, where
        what lies outside the moving scan counts as its lowest value, so that a smaller overlap
        gains nothing; and the share of the fixed scan that lies in the moving one.
    """
    shape = np.array(fixed.shape[1:])
    axes = [np.linspace(0, n - 1, min(n, _THIN)).round().astype(np.intp) for n in shape]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    matrix = np.linalg.inv(as_affine(moving.affine)) @ transform @ as_affine(fixed.affine)
    nearest = np.floor(apply_affine(matrix, index) + 0.5)
    both = ((nearest >= 0) & (nearest < moving.shape[1:])).all(axis=-1)
    first, second = (scan.as_tensor()[0].numpy(force=True) for scan in (fixed, moving))
    moved = np.full(len(index), second.min(), dtype=np.float64)
    moved[both] = second[tuple(nearest[both].astype(np.intp).T)]
    found = normalized_mutual_information(first[tuple(index.T)], moved)
    return (0.0 if found is None else found - 1), float(both.mean())


def _entropy(counts: NDArray[np.float64]) -> float:
    """Of a histogram, in nats."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
