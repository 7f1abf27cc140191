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


def smoothed(volume: Tensor, kernel: Tensor) -> Tensor:
    """Convolve (C, I, J, K) with a kernel of odd length along each axis; faces are continued."""
    half = len(kernel) // 2
    for axis in range(3):
        shape, pad = [1, 1, 1], [0] * 6
        shape[axis] = len(kernel)
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = half
        padded = F.pad(volume[:, None], pad, mode="replicate")
        volume = F.conv3d(padded, kernel.to(volume).view(1, 1, *shape))[:, 0]
    return volume


def smooth_field(shape: torch.Size, most: float, generator: Generator) -> Tensor:
    """Displacements (I, J, K, 3) in voxels, interpolated from 5 x 5 x 5 random ones, to `most`."""
    amplitude = most * torch.rand((), generator=generator)
    knots = amplitude * (2 * torch.rand((1, 3, 5, 5, 5), generator=generator) - 1)
    field = F.interpolate(knots, size=list(shape), mode="trilinear", align_corners=True)
    return field[0].movedim(0, -1)


def displaced(
    points_voxel: Tensor, field: Tensor, *, old_from_new: Tensor, rounds: int = 30
) -> Tensor:
    """Where points are after a scan was sampled through a field as well.

    A new voxel x shows the old place A x + d(x). A point that was at A y is now at the x with
    x = y - A^-1 d(x), which is found by repeating that.

    Args:
        points_voxel: (P, 3), y.
        field: (I, J, K, 3) of :func:`smooth_field`, d.
        old_from_new: (3, 3), A.
        rounds: How often.

    Returns:
        (P, 3), x; outside the grid the displacement of its nearest voxel counts.
    """
    size = torch.tensor(field.shape[:3]).to(points_voxel)
    back = torch.linalg.inv(old_from_new)
    volume = field.movedim(-1, 0)[None].to(points_voxel)
    found = points_voxel
    for _ in range(rounds):
        where = ((2 * found + 1) / size - 1).flip(-1).view(1, 1, 1, -1, 3)
        there = F.grid_sample(volume, where, padding_mode="border", align_corners=False)
        found = points_voxel - there[0, :, 0, 0].T @ back.T
    return found
