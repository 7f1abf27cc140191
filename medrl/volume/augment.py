"""Random changes of pose and scanner that every system trains with."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rotation about x, then y, then z by three angles in radians; (3, 3) float64."""
    matrix = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate(angles.tolist()):
        turn = torch.eye(3, dtype=torch.float64)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix


def thicken_slices(volume: Tensor, thickest: float, generator: Generator) -> Tensor:
    """Average (C, I, J, K) along one axis as thick slices do, and interpolate back."""
    axis = int(torch.randint(3, (), generator=generator))
    thickness = 1 + (thickest - 1) * float(torch.rand((), generator=generator))
    size = list(volume.shape[1:])
    thick = list(size)
    thick[axis] = max(2, round(size[axis] / thickness))
    low = F.interpolate(volume[None], size=thick, mode="area")
    return F.interpolate(low, size=size, mode="trilinear", align_corners=False)[0]


def bias_field(shape: torch.Size, amplitude: float, generator: Generator) -> Tensor:
    """A smooth positive field (I, J, K): the exponential of an interpolated 4 x 4 x 4 grid."""
    knots = amplitude * (2 * torch.rand((1, 1, 4, 4, 4), generator=generator) - 1)
    field = F.interpolate(knots, size=list(shape), mode="trilinear", align_corners=True)
    return field[0, 0].exp()
