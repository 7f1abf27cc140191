"""Support points: strong structure around what was asked, whose agents walk along."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from medrl.volume.pyramid import Pyramid
from medrl.volume.resample import smoothing_kernel
from medrl.volume.space import voxel_to_world

Array = NDArray[np.float64]


def support_points(
    pyramid: Pyramid, asked_world: Array, *, count: int, reach_mm: float, level: int = 0
) -> Array:
    """Corners and edges around some points, spread evenly.

    The measure is Förstner's, 1 / trace of the inverse structure tensor (Förstner and Gülch 1987);
    points are taken in its order, none nearer to another than the volume they share allows.

    Args:
        pyramid: Of the scan.
        asked_world: (N, 3) RAS mm.
        count: How many at most.
        reach_mm: How far from the points asked.
        level: Pyramid level to look at.

    Returns:
        (M, 3) RAS mm, M up to ``count``; centres of voxels of the level.
    """
    strength = distinctiveness(pyramid.levels[level][0])
    peak = F.max_pool3d(strength[None, None], 3, stride=1, padding=1)[0, 0]
    places = torch.nonzero((strength == peak) & (strength > 0))
    world = voxel_to_world(places.numpy(), pyramid.affines[level])
    if not len(world) or not count:
        return np.zeros((0, 3))
    distance, _ = cKDTree(asked_world).query(world)
    near = distance <= reach_mm
    world = world[near]
    order = np.argsort(-strength[tuple(places[torch.from_numpy(near)].T)].numpy(), kind="stable")
    world = world[order]
    return _spread(world, asked_world, count)


def distinctiveness(volume: Tensor) -> Tensor:
    """Förstner's measure of the voxels of (I, J, K): how well what is there tells a place."""
    smooth = _blurred(volume[None, None], 0.8)[0, 0]
    gradient = torch.stack(torch.gradient(smooth))
    products = torch.stack(
        [gradient[i] * gradient[j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    )
    a, b, c, d, e, f = _blurred(products[:, None], 1.2)[:, 0]
    minors = (b * c - f * f) + (a * c - e * e) + (a * b - d * d)
    det = a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)
    return (det / minors.clamp(min=1e-12)).clamp(min=0.0)


def _blurred(volumes: Tensor, sigma: float) -> Tensor:
    """Gaussian of sigma voxels over (N, 1, I, J, K)."""
    kernel = smoothing_kernel(sigma).to(volumes)
    half = len(kernel) // 2
    for axis in range(3):
        view, pad = [1, 1, 1], [0, 0, 0]
        view[axis], pad[axis] = len(kernel), half
        volumes = F.conv3d(volumes, kernel.view(1, 1, *view), padding=pad)
    return volumes


def _spread(world: Array, asked: Array, count: int) -> Array:
    """The first points of which none is too near to another, `count` of them at most."""
    extent = np.prod(np.ptp(np.concatenate([world, asked]), axis=0) + 1.0) if len(world) else 0.0
    apart = 0.6 * (extent / count) ** (1 / 3)
    while True:
        tree = cKDTree(world)
        free = np.ones(len(world), dtype=np.bool_)
        taken = []
        for row in range(len(world)):
            if free[row]:
                taken.append(row)
                free[tree.query_ball_point(world[row], apart)] = False
                if len(taken) == count:
                    break
        if len(taken) == min(count, len(world)) or apart < 1.0:
            return world[taken]
        apart *= 0.8
