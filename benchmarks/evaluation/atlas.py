"""Landmarks carried over from labelled subjects by affine registration, and the mean position."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from evaluation import ixi
from evaluation.cases import Array, Case, center_of, move
from medrl.landmark.baselines import register_affine
from medrl.volume.space import lps_to_ras

# Times are given for one thread.
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def typical_subjects(count: int) -> tuple[str, ...]:
    """The training subjects whose landmark sets resemble the others most, the best atlases first.

    Sets are compared after centring and rotating one onto the other; the resemblance of a subject
    is the mean distance of its landmarks to everyone else's.
    """
    shapes = ixi.shapes("train")
    centered = shapes - shapes.mean(axis=1, keepdims=True)
    total = np.zeros(len(centered))
    for index, shape in enumerate(centered):
        u, _, vt = np.linalg.svd(np.einsum("ki,skj->sij", shape, centered))
        sign = np.sign(np.linalg.det(u @ vt))
        u[:, :, 2] *= sign[:, None]
        turned = centered @ np.swapaxes(u @ vt, 1, 2)
        total[index] = np.linalg.norm(turned - shape, axis=-1).mean()
    names = ixi.subjects("train")
    return tuple(names[index] for index in np.argsort(total)[:count])


def mean_positions(split: str) -> Array:
    """Mean training position from the scan's centre, the guess that looks at no voxel.

    Args:
        split: Where to guess.

    Returns:
        (S, K, 3) RAS mm, for the subjects of the split.
    """
    mean = (ixi.shapes("train") - _centers("train")).mean(axis=0)
    return np.asarray(mean + _centers(split))


def carry_over(atlas: Case, target: sitk.Image) -> dict[str, Array]:
    """Landmarks of an atlas subject at their places in another head, RAS mm."""
    transform = register_affine(atlas.image, target)
    return {name: move(point, transform) for name, point in atlas.points_world.items()}


def _centers(split: str) -> Array:
    """Centres of the scans of a split, (S, 1, 3) RAS mm."""
    centers = [lps_to_ras(center_of(ixi.load(subject).image)) for subject in ixi.subjects(split)]
    return np.stack(centers)[:, None]
