"""Rotations: matrices of rotation vectors and back, and many that leave no way of turning out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: The real root of psi^4 = psi + 4, with which the spirals of Alexa are spread most evenly.
_PSI = 1.533751168755204288118041


def rotation(turn: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3) in degrees (Rodrigues)."""
    radians = torch.deg2rad(turn)
    cross = torch.zeros((*turn.shape[:-1], 3, 3)).to(turn)
    x, y, z = radians.unbind(dim=-1)
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -z, y, -x
    cross = cross - cross.transpose(-1, -2)
    angle = radians.norm(dim=-1)[..., None, None]
    # sin(a) / a and (1 - cos(a)) / a^2, at 0 as well.
    first, second = torch.sinc(angle / torch.pi), torch.sinc(angle / (2 * torch.pi)).square() / 2
    return torch.eye(3).to(turn) + first * cross + second * (cross @ cross)


def rotation_vector(matrix: Tensor) -> Tensor:
    """Rotation vectors (..., 3) in degrees, up to 180, of rotation matrices (..., 3, 3)."""
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    # Rows of 4 q q^T of the quaternion q = (w, x, y, z) (Shepperd); the longest is stable.
    rows = m.new_empty((*m.shape[:-2], 4, 4))
    rows[..., 0, 0] = 1 + trace
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        rows[..., a + 1, a + 1] = 1 - trace + 2 * m[..., a, a]
        rows[..., 0, a + 1] = rows[..., a + 1, 0] = m[..., c, b] - m[..., b, c]
        rows[..., a + 1, b + 1] = rows[..., b + 1, a + 1] = m[..., a, b] + m[..., b, a]
    longest = torch.diagonal(rows, dim1=-2, dim2=-1).argmax(dim=-1)
    q = rows.gather(-2, longest[..., None, None].expand(*longest.shape, 1, 4))[..., 0, :]
    q = q / q.norm(dim=-1, keepdim=True)
    q = torch.where(q[..., :1] < 0, -q, q)
    sine = q[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, q[..., :1])
    factor = torch.where(sine > 1e-9, angle / sine.clamp(min=1e-9), torch.full_like(angle, 2.0))
    return torch.rad2deg(factor * q[..., 1:])


def spread_rotations(count: int) -> Tensor:
    """Rotations spread evenly over all there are (Alexa 2022, super-Fibonacci spirals).

    Args:
        count: How many; of 2000, one is within 17 degrees of any rotation.

    Returns:
        Matrices (count, 3, 3), float64.
    """
    s = torch.arange(count, dtype=torch.float64) + 0.5
    inner, outer = (s / count).sqrt(), (1 - s / count).sqrt()
    alpha, beta = 2 * math.pi * s / math.sqrt(2), 2 * math.pi * s / _PSI
    x, y, z, w = inner * alpha.sin(), inner * alpha.cos(), outer * beta.sin(), outer * beta.cos()
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=1).view(-1, 3, 3)
