"""Linear transforms as the numbers that agents change one step at a time.

Convention: a transform is a 4x4 matrix that maps fixed world points to moving world points (RAS
mm). Its twelve parameters, about a pivot in fixed space, are a shift along x, y, z in mm, a
rotation vector about x, y, z in degrees, the logarithms of three scales in per cent and three
shears in per cent: p -> pivot + shift + R U (p - pivot), U upper triangular with the scales on its
diagonal. Every matrix that keeps orientation has exactly one such set.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from medrl.volume.rotations import rotation, rotation_vector

Kind = Literal["rigid", "similarity", "affine"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PARAMETERS = (
    *("shift x", "shift y", "shift z"),
    *("turn x", "turn y", "turn z"),
    *("scale x", "scale y", "scale z"),
    *("shear xy", "shear xz", "shear yz"),
)
"""Names of the twelve parameters, in order."""

_UPPER = torch.triu_indices(3, 3, offset=1)
#: How many of the parameters agents of each kind change.
_FREE: dict[Kind, int] = {"rigid": 6, "similarity": 7, "affine": 12}


def compose(parameters: Tensor) -> Tensor:
    """Matrices of parameters, about the origin.

    Args:
        parameters: (..., 12) in mm, degrees and per cent.

    Returns:
        (..., 4, 4), of the same dtype.
    """
    shift, turn, scale, shear = parameters.split(3, dim=-1)
    upper = torch.diag_embed((scale / 100).exp())
    upper[..., _UPPER[0], _UPPER[1]] = shear / 100
    matrix = torch.zeros((*parameters.shape[:-1], 4, 4)).to(parameters)
    matrix[..., :3, :3] = rotation(turn) @ upper
    matrix[..., :3, 3] = shift
    matrix[..., 3, 3] = 1
    return matrix


def decompose(matrix: Tensor) -> Tensor:
    """Parameters of matrices (..., 4, 4) that keep orientation, about the origin; (..., 12)."""
    turn, upper = torch.linalg.qr(matrix[..., :3, :3])
    signs = torch.diagonal(upper, dim1=-2, dim2=-1).sign()
    turn, upper = turn * signs[..., None, :], upper * signs[..., :, None]
    scale = torch.diagonal(upper, dim1=-2, dim2=-1).log() * 100
    shear = upper[..., _UPPER[0], _UPPER[1]] * 100
    return torch.cat([matrix[..., :3, 3], rotation_vector(turn), scale, shear], dim=-1)


def about(matrix: Tensor, pivot: Tensor) -> Tensor:
    """The transform (..., 4, 4) that does about a pivot (..., 3) what this one does at the origin.

    With the negative pivot, the other way round.
    """
    out = matrix.clone()
    out[..., :3, 3] += pivot - (matrix[..., :3, :3] @ pivot[..., None])[..., 0]
    return out


def move(matrix: Tensor, points: Tensor) -> Tensor:
    """Points (..., K, 3) moved by matrices (..., 4, 4)."""
    return points @ matrix[..., :3, :3].transpose(-1, -2) + matrix[..., None, :3, 3]


def constrain(parameters: Tensor, kind: Kind) -> Tensor:
    """Keep of changes (..., 12) what a kind of transform allows: one scale for all, or none."""
    kept = parameters.clone()
    if kind != "affine":
        kept[..., 9:] = 0
        kept[..., 6:9] = kept[..., 6:9].mean(dim=-1, keepdim=True) * (kind == "similarity")
    return kept


def directions(kind: Kind) -> Tensor:
    """What a kind of transform may change, one at a time: (P, 12) float64, P being 6, 7 or 12.

    Rows are unit steps of the parameters; the one scale of a similarity is that of all axes.
    """
    single = torch.eye(12, dtype=torch.float64)
    if kind == "similarity":
        single[6] = single[6:9].sum(dim=0)
    return single[: _FREE[kind]]


def random_rotations(count: int, *, generator: torch.Generator) -> Tensor:
    """Rotations spread evenly over all orientations, (count, 3, 3) float64 (Shoemake 1992)."""
    q = torch.randn((count, 4), generator=generator, dtype=torch.float64)
    q = q / q.norm(dim=-1, keepdim=True)
    w, v = q[:, :1], q[:, 1:]
    angle = 2 * torch.atan2(v.norm(dim=-1, keepdim=True), w)
    return rotation(torch.rad2deg(angle) * v / v.norm(dim=-1, keepdim=True))
