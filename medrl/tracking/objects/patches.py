"""What objects look like: patches of a fixed number of samples, and how alike two are."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

#: Samples of a patch along each axis, of flat films and of volumes.
FLAT_SIDE, SIDE = 15, 7
#: Extent of a patch in boxes.
_MARGIN = 1.25


class Looks(NamedTuple):
    """What N boxes hold.

    Attributes:
        patch: (N, P) float32, grey values less their mean, of length 1.
        level: (N, 2) float32, mean and standard deviation of grey values.
    """

    patch: Tensor
    level: Tensor


def samples(flat: bool) -> int:
    """P, the number of samples of a patch."""
    return FLAT_SIDE**2 if flat else SIDE**3


def _offsets(flat: bool) -> Tensor:
    """(P, 3), where samples lie, -0.5 to 0.5 of the extent."""
    side = FLAT_SIDE if flat else SIDE
    steps = (torch.arange(side) + 0.5) / side - 0.5
    last = torch.zeros(1) if flat else steps
    return torch.cartesian_prod(steps, steps, last)


def look(frame: Tensor, box: Tensor) -> Looks:
    """Sample boxes in a frame, trilinearly; what lies outside repeats the border.

    Args:
        frame: (I, J, K) float32.
        box: (N, 2, 3) float64, voxel coordinates of the outer faces.
    """
    flat = frame.shape[2] == 1
    box = box.float()
    middle, extent = box.mean(dim=1), (box[:, 1] - box[:, 0]) * _MARGIN
    points = middle[:, None] + extent[:, None] * _offsets(flat)
    sides = torch.tensor(frame.shape)
    # grid_sample takes (x, y, z) of a tensor (D, H, W): the axes the other way round.
    if flat:
        scaled = (2 * points[..., :2] + 1) / sides[:2] - 1
        grid = scaled.flip(-1)[None]
        values = F.grid_sample(
            frame[None, None, :, :, 0], grid, padding_mode="border", align_corners=False
        )[0, 0]
    else:
        scaled = (2 * points + 1) / sides - 1
        grid = scaled.flip(-1)[None, None]
        values = F.grid_sample(frame[None, None], grid, padding_mode="border", align_corners=False)[
            0, 0, 0
        ]
    mean = values.mean(dim=1, keepdim=True)
    rest = values - mean
    length = rest.norm(dim=1, keepdim=True)
    level = torch.cat([mean, length / values.shape[1] ** 0.5], dim=1)
    return Looks(rest / length.clamp(min=1e-6), level)


def search(frame: Tensor, box: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
    """Shift boxes in small steps to where what they hold correlates best with a template.

    Three rounds of a step along an axis, of a quarter of the box and less; far shifts are worth a
    little less.

    Args:
        frame: (I, J, K) float32.
        box: (N, 2, 3) float64, voxel coordinates.
        template: (N, P) float32, patches.

    Returns:
        Boxes (N, 2, 3), and the correlation there (N,).
    """
    flat = frame.shape[2] == 1
    axes = torch.eye(3, dtype=torch.float64)[: 2 if flat else 3]
    moves = torch.cat([torch.zeros((1, 3), dtype=torch.float64), axes, -axes])
    first, best = box, torch.zeros(len(box))
    for share in (0.25, 0.2, 0.1):
        shift = moves[None] * share * (box[:, 1] - box[:, 0])[:, None]
        tried = box[:, None] + shift[:, :, None]
        alike = look(frame, tried.flatten(0, 1)).patch.view(len(box), len(moves), -1)
        alike = (alike * template[:, None]).sum(dim=2)
        away = (tried - first[:, None]).mean(dim=2) / (box[:, 1] - box[:, 0])[:, None]
        worth = alike - 0.3 * (away**2).sum(dim=2).float()
        chosen = worth.argmax(dim=1)
        row = torch.arange(len(box))
        box, best = tried[row, chosen], alike[row, chosen]
    return box, best
