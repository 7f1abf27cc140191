"""Balls and distances on the voxel grid of windows.

Convention: voxels are (i, j, k) in array order of a window (I, J, K); N windows of one grid make a
batch. Radii and distances count voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from medrl.walker.segmenter import BACKGROUND, FOREGROUND

#: Most numbers held at once while distances to many seeds are compared.
_CHUNK = 1 << 20


def dilate(mask: Tensor, radius: float) -> Tensor:
    """Voxels at a distance of at most ``radius`` from a mask.

    Args:
        mask: (N, I, J, K) bool; fast where few voxels are true.
        radius: In voxels.

    Returns:
        (N, I, J, K) bool.
    """
    index = _surface(mask)
    n, i, j, k, _ = balls(index[:, 0], index[:, 1:], radius, mask.shape[1:])
    grown = mask.clone()
    grown[n, i, j, k] = True
    return grown


@lru_cache
def ball(radius: float) -> Tensor:
    """Offsets of the voxels of a ball, (B, 3) int64, the origin among them; not to be changed."""
    reach = torch.arange(-int(radius), int(radius) + 1)
    offsets = torch.cartesian_prod(reach, reach, reach)
    return offsets[offsets.square().sum(dim=1) <= radius**2 + 1e-6]


def seed_maps(seeds: Tensor, *, scale: float) -> Tensor:
    """How near every voxel is to the seeds of each label: exp(-distance / scale).

    Distances are Euclidean, exact, to the nearest voxel of the label; a label without seeds gives
    0 everywhere. Within a plane of the first axis that holds seeds, distances are compared seed by
    seed; then planes are compared with each other. Time grows with the number of seed voxels.

    Args:
        seeds: (N, I, J, K) int8.
        scale: Distance in voxels at which nearness is 1/e.

    Returns:
        (N, 2, I, J, K) float32, background (0) and foreground (1).
    """
    count, *shape = seeds.shape
    marked = torch.stack([seeds == BACKGROUND, seeds == FOREGROUND], dim=1).flatten(0, 1)
    maps = torch.zeros(marked.shape, device=seeds.device)
    x, y, z = (torch.arange(side, device=seeds.device, dtype=torch.float32) for side in shape)
    # The voxels come in C order: those of one map and plane lie together.
    index = _surface(marked)
    planes, sizes = (index[:, 0] * shape[0] + index[:, 1]).unique_consecutive(return_counts=True)
    lines = index[:, 2:].split(sizes.tolist())
    across = torch.empty(shape, device=seeds.device)
    begun: set[int] = set()
    for plane, line in zip(planes.tolist(), lines, strict=True):
        number, row = divmod(plane, shape[0])
        squared = maps[number]
        target = across if number in begun else squared
        torch.add((x - row).square()[:, None, None], _nearest_in_plane(y, z, line), out=target)
        if number in begun:
            torch.minimum(squared, across, out=squared)
        begun.add(number)
    for number in begun:
        maps[number].sqrt_().div_(-scale).exp_()
    maps[marked] = 1.0
    return maps.view(count, 2, *shape)


def _nearest_in_plane(y: Tensor, z: Tensor, points: Tensor) -> Tensor:
    """Squared distances of a plane's voxels (J, K) to the nearest of some of them (S, 2)."""
    nearest = torch.full((len(y), len(z)), torch.inf, device=y.device)
    for part in points.split(max(1, _CHUNK // nearest.numel())):
        from_j, from_k = (y - part[:, :1]).square(), (z - part[:, 1:]).square()
        near = (from_j[:, :, None] + from_k[:, None]).amin(dim=0)
        nearest = torch.minimum(nearest, near)
    return nearest


def balls(
    rows: Tensor, voxels: Tensor, radius: float, shape: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Voxels of the balls around some voxels, as far as they lie inside.

    Args:
        rows: (S,) int64, the windows.
        voxels: (S, 3) int64, the centres.
        radius: In voxels.
        shape: I, J, K.

    Returns:
        Window, i, j, k and the number of the ball of every voxel, each (V,) int64.
    """
    around = voxels[:, None] + ball(float(radius)).to(voxels.device)
    inside = ((around >= 0) & (around < torch.tensor(shape, device=voxels.device))).all(dim=-1)
    which = torch.arange(len(rows), device=rows.device)[:, None].expand(inside.shape)[inside]
    i, j, k = around[inside].unbind(dim=-1)
    return rows[which], i, j, k, which


def _surface(mask: Tensor) -> Tensor:
    """Voxels of a mask that have a neighbour (of six) outside it: (S, 4) int64 in C order.

    No voxel outside a mask has its nearest one among the others, so distances need only these.
    Outside the window there are no neighbours.
    """
    index = mask.nonzero()
    around = index[:, None, 1:] + ball(1.0).to(mask.device)
    last = torch.tensor(mask.shape[1:], device=mask.device) - 1
    i, j, k = torch.minimum(around.clamp(min=0), last).unbind(dim=-1)
    return index[~mask[index[:, :1], i, j, k].all(dim=1)]
