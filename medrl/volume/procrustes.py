"""Fitting sets of corresponding points onto each other."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from medrl.volume.rotations import spread_rotations
from medrl.volume.space import apply_affine

Array = NDArray[np.float64]

#: Mean points that keep this share of their size are of scans that lie alike.
_ALIKE = 0.8
#: From how many ways of turning partners are looked for, and how often they are chosen anew.
_TURNS, _ROUNDS = 200, 20
#: Partners are nearer than this share of the points' size (root mean square about their middle).
_PARTNERS = 0.08


def fit_points(source: Array, target: Array, *, scale: bool) -> Array:
    """Least-squares similarity or rigid transform between point sets (Umeyama 1991, eq. 39-43).

    Args:
        source: (P, 3).
        target: (P, 3).
        scale: Let the size change.

    Returns:
        (4, 4) matrix that maps source to target: rotation, one scale, translation.
    """
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, singular, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    linear = (u * sign) @ vt
    if scale:
        linear = linear * (singular * sign).sum() / (a**2).sum()
    transform = np.eye(4)
    transform[:3, :3] = linear
    transform[:3, 3] = target.mean(axis=0) - linear @ source.mean(axis=0)
    return transform


def fit_many(
    points: Tensor, expected: Tensor, weight: Tensor, *, sizes: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted least-squares fits of N point sets to one whose size may differ (Umeyama 1991).

    Args:
        points: (N, K, 3).
        expected: (K, 3).
        weight: (N, K), of each point.
        sizes: Smallest and largest size of ``points`` as a share of ``expected``.

    Returns:
        Rotations R (N, 3, 3), translations t (N, 3) and sizes s (N,): ``R @ points + t`` is near to
        ``s * expected``.
    """
    weight = weight / weight.sum(dim=1, keepdim=True)
    middles = [(weight[..., None] * p).sum(dim=1) for p in (points, expected)]
    a, b = points - middles[0][:, None], expected - middles[1][:, None]
    u, singular, vt = torch.linalg.svd(torch.einsum("nk,nki,nkj->nij", weight, a, b))
    sign = torch.ones_like(singular)
    sign[:, 2] = torch.linalg.det(u @ vt).sign()
    turn = vt.mT @ torch.diag_embed(sign) @ u.mT
    size = (singular * sign).sum(dim=1) / (weight * b.square().sum(dim=-1)).sum(dim=1)
    size = size.clamp(*sizes)
    shift = middles[1] * size[:, None] - torch.einsum("nij,nj->ni", turn, middles[0])
    return turn, shift, size


def lay_straight(shapes_world: ArrayLike) -> tuple[Array, Array]:
    """How scans with known points are laid straight (Gower 1975, generalised, without scale).

    Args:
        shapes_world: (S, K, 3) RAS mm, NaN where unknown; at least three points of each scan.

    Returns:
        Matrices (S, 4, 4) from each world to the straight one, whose origin is the middle of the
        mean points; and those, (K, 3). Scans that lie alike already keep that way.
    """
    shapes = np.asarray(shapes_world, dtype=np.float64)
    centred = shapes - np.nanmean(shapes, axis=1, keepdims=True)
    mean = np.nanmean(centred, axis=0)
    if np.sqrt(np.nanmean(mean**2)) < _ALIKE * np.sqrt(np.nanmean(centred**2)):
        mean = centred[np.isnan(centred).sum(axis=(1, 2)).argmin()]
    matrices = np.tile(np.eye(4), (len(shapes), 1, 1))
    for _ in range(10):
        for n, shape in enumerate(shapes):
            known = ~np.isnan(shape + mean).any(axis=1)
            matrices[n] = fit_points(shape[known], mean[known], scale=False)
        moved = [apply_affine(m, shape) for m, shape in zip(matrices, shapes, strict=True)]
        mean = np.nanmean(np.stack(moved), axis=0)
        mean = mean - np.nanmean(mean, axis=0)
    return matrices, mean


def mirror_partners(points: Array) -> tuple[Array, NDArray[np.int64]]:
    """Which points take each other's place when points are mirrored, as those of a body do.

    Args:
        points: (K, 3), such as the mean points of :func:`lay_straight`.

    Returns:
        Matrix (4, 4) that mirrors the points onto each other, and the partner of each, (K,): of a
        point in the middle itself, -1 of one that has none.
    """
    mirrored = points * (-1.0, 1.0, 1.0)
    best: tuple[float, Array, NDArray[np.int64]] | None = None
    for turn in spread_rotations(_TURNS).numpy():
        moved, partner = mirrored @ turn.T, np.zeros(0, dtype=np.int64)
        for _ in range(_ROUNDS):
            chosen = linear_sum_assignment(cdist(moved, points) ** 2)[1]
            if np.array_equal(chosen, partner):
                break
            partner = chosen
            away = np.linalg.norm(moved - points[partner], axis=1)
            # Points without a partner must not drag the others away from theirs.
            near = away <= 2 * np.median(away)
            matrix = fit_points(mirrored[near], points[partner[near]], scale=False)
            moved = apply_affine(matrix, mirrored)
        off = float(np.median(np.linalg.norm(moved - points[partner], axis=1)))
        if best is None or off < best[0]:
            best = off, matrix @ np.diag([-1.0, 1.0, 1.0, 1.0]), partner
    assert best is not None
    _, matrix, partner = best
    size = np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean())
    off_each = np.linalg.norm(apply_affine(matrix, points) - points[partner], axis=1)
    return matrix, np.where(off_each < _PARTNERS * size, partner, -1)
