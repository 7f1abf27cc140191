"""Between points and heat maps."""

from __future__ import annotations

import torch
from torch import Tensor

from medrl.landmark.parts.network import FineNetwork, Maps
from medrl.roi import crop
from medrl.volume.pyramid import Pyramid

#: Width of a point in the map that is learned, voxels.
SIGMA = 0.8
#: How far from the highest voxel others count for where exactly the point is.
_REACH = 2


def target(points_voxel: Tensor, shape: tuple[int, int, int]) -> Maps:
    """The maps that say where points are: probabilities.

    Args:
        points_voxel: (K, 3), voxels of the map; outside it, or NaN, a point is gone.
        shape: Of the map.

    Returns:
        Gaussians that sum to one, or nothing there and one in ``gone``.
    """
    size = torch.tensor(shape, device=points_voxel.device)
    inside = ((points_voxel >= -0.5) & (points_voxel <= size - 0.5)).all(dim=1)
    axes = [
        torch.exp(
            -0.5 * ((torch.arange(n, device=size.device) - points_voxel[:, a, None]) / SIGMA) ** 2
        )
        for a, n in enumerate(shape)
    ]
    there = torch.einsum("kx,ky,kz->kxyz", *axes)
    there = there / there.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    there = torch.where(inside[:, None, None, None], there, torch.zeros_like(there))
    return Maps(there, (~inside).float())


def cross_entropy(maps: Maps, wanted: Maps, known: Tensor) -> Tensor:
    """Of maps (logits) and what they should be (probabilities), mean over known landmarks (K,)."""
    log = maps.log_probability()
    each = -(wanted.there * log.there).sum(dim=(1, 2, 3)) - wanted.gone * log.gone
    return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


def peaks(probability: Tensor) -> tuple[Tensor, Tensor]:
    """Where maps are highest, more finely than their voxels, and how far they are spread there.

    Args:
        probability: (N, X, Y, Z).

    Returns:
        (N, 3) voxels: the mean of what is near the highest voxel; and (N,) the root mean square
        distance of all from that.
    """
    size = torch.tensor(probability.shape[1:], device=probability.device)
    grid = torch.cartesian_prod(*[torch.arange(n, device=size.device) for n in size.tolist()])
    flat = probability.flatten(1)
    highest = grid[flat.argmax(dim=1)]
    near = (grid[None] - highest[:, None]).abs().amax(dim=-1) <= _REACH
    weight = flat * near
    mean = (weight @ grid.float()) / weight.sum(dim=1, keepdim=True).clamp(min=1e-9)
    square = (grid[None] - mean[:, None]).square().sum(dim=-1)
    spread = ((flat * square).sum(dim=1) / flat.sum(dim=1).clamp(min=1e-9)).sqrt()
    return mean, spread


def displacements(points_voxel: Tensor) -> tuple[Tensor, Tensor]:
    """How landmarks lie from each other in training scans.

    Args:
        points_voxel: (M, K, 3), voxels of the map; NaN where unknown.

    Returns:
        (K, K, 3) mean of the first landmark's place from the second's, and its standard deviation.
        Of pairs that are seldom known together the spread is that of a map's side.
    """
    away = points_voxel[:, :, None] - points_voxel[:, None]
    known = ~away.isnan()
    count = known.sum(dim=0)
    mean = away.nan_to_num().sum(dim=0) / count.clamp(min=1)
    square = torch.where(known, (away - mean).square(), 0.0).sum(dim=0) / count.clamp(min=1)
    return mean, torch.where(count >= 3, square.sqrt(), 32.0)


def fine_look(
    network: FineNetwork, pyramid: Pyramid, near_voxel: Tensor, landmark: Tensor, *, window: int
) -> tuple[Tensor, Tensor]:
    """Where the fine map sees landmarks in a scan.

    Args:
        network: The fine map.
        pyramid: Of the scan.
        near_voxel: (N, 3), whole voxels of the finest scale around which it looks.
        landmark: (N,), which is looked for there.
        window: Side of the windows, voxels.

    Returns:
        (N, 3) voxels of the finest scale, and (N,) how far the map is spread there, voxels.
    """
    logits = network(crop(pyramid, near_voxel, window, level=0), landmark)
    local, spread = peaks(logits.flatten(1).softmax(dim=1).view_as(logits))
    return near_voxel + local - window // 2, spread
