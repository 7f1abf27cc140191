"""What agents hear of each other: displacements nearby, carried to their own place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

#: Pull of the local affine map towards a mere shift, as a share of the weight of all neighbours.
_RIDGE = 0.1


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Who hears whom among N agents.

    Attributes:
        row: (N, K) int64, rows of those that each hears.
        there: (N, K) bool, which of these count.
        apart: (N, K, 3) float64 mm, from each to its neighbours.
    """

    row: Tensor
    there: Tensor
    apart: Tensor


def nearest(points: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Rows (N, K) of the nearest other points, the nearest first; one's own where there are fewer.

    Args:
        points: (N, 3) mm.
        count: K.
    """
    most = min(count + 1, len(points))
    _, found = cKDTree(points).query(points, k=most)
    found = np.asarray(found, dtype=np.int64).reshape(len(points), most)
    own = np.arange(len(points))[:, None]
    # Of points at one place the tree may name any first.
    order = np.argsort(found != own, axis=1, kind="stable")
    found = np.take_along_axis(found, order, axis=1)
    found[:, 0] = own[:, 0]
    others = found[:, 1:]
    return np.concatenate([others, np.repeat(own, count - others.shape[1], axis=1)], axis=1)


def predicted(hood: Neighbourhood, message: Tensor, certainty: Tensor) -> Tensor:
    """What each agent hears: its neighbours' displacements, carried to its own place.

    Agents without neighbours hear what they said themselves.

    Args:
        hood: Who hears whom.
        message: (N, 3) displacements in mm.
        certainty: (N,) weights of the messages.

    Returns:
        (N, 3) mm.
    """
    some = hood.there.any(dim=1)
    return torch.where(some[:, None], fitted(hood, message, certainty), message)


def fitted(hood: Neighbourhood, message: Tensor, certainty: Tensor) -> Tensor:
    """Fit an affine map to displacements nearby, and read it at each of M places.

    Weighted least squares (moving least squares, Levin 1998) with a ridge on the slope, so that
    few neighbours, or neighbours in a plane, give a mean.

    Args:
        hood: Rows (M, K) that count at each place.
        message: (N, 3) displacements in mm.
        certainty: (N,) weights.

    Returns:
        (M, 3) mm.
    """
    square = hood.apart.square().sum(dim=2)
    count = hood.there.sum(dim=1).clamp(min=1)
    reach = torch.where(hood.there, square, 0.0).sum(dim=1) / count
    reach = reach.clamp(min=1.0)
    weight = torch.exp(-square / (2 * reach[:, None])) * certainty[hood.row] * hood.there
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-12)
    apart = hood.apart / reach.sqrt()[:, None, None]
    design = torch.cat([torch.ones_like(apart[..., :1]), apart], dim=2)
    normal = torch.einsum("nk,nki,nkj->nij", weight, design, design)
    ridge = torch.diag(torch.tensor([1e-9, _RIDGE, _RIDGE, _RIDGE], dtype=normal.dtype))
    right = torch.einsum("nk,nki,nkj->nij", weight, design, message[hood.row])
    return torch.linalg.solve(normal + ridge, right)[:, 0]
