"""What agents see of each other and of detections, as numbers that do not depend on units."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Numbers of a pair of a track and a detection, of an agent itself.
PAIR, OWN = 16, 14


class Tracks(NamedTuple):
    """What n tracks are like as they are predicted to the frame at hand; mm, (n, ...)."""

    box: Tensor
    position: Tensor
    velocity: Tensor
    last: Tensor
    size: Tensor
    scale: Tensor
    variance: Tensor
    patch: Tensor
    template: Tensor
    level: Tensor
    missed: Tensor
    hits: Tensor
    scene: Tensor


class Seen(NamedTuple):
    """What m detections are like; mm, (m, ...)."""

    box: Tensor
    scale: Tensor
    patch: Tensor
    level: Tensor
    score: Tensor
    scene: Tensor


def overlaps(first: Tensor, second: Tensor, flat: Tensor) -> Tensor:
    """Intersection over union of boxes (n, 2, 3) and (m, 2, 3), (n, m).

    Args:
        first: In mm.
        second: In mm.
        flat: (n, 3) bool, axes that do not count.
    """
    low = torch.maximum(first[:, None, 0], second[None, :, 0])
    high = torch.minimum(first[:, None, 1], second[None, :, 1])
    skipped = flat[:, None]
    shared = torch.where(skipped, 1.0, (high - low).clamp(min=0)).prod(dim=2)
    volume = torch.where(skipped, 1.0, (first[:, 1] - first[:, 0])[:, None]).prod(dim=2)
    other = torch.where(skipped, 1.0, (second[:, 1] - second[:, 0])[None]).prod(dim=2)
    return shared / (volume + other - shared).clamp(min=1e-9)


def pairs(tracks: Tracks, seen: Seen, flat: Tensor) -> tuple[Tensor, Tensor]:
    """Every track with every detection.

    Args:
        tracks: n of them.
        seen: m detections.
        flat: (n, 3) bool.

    Returns:
        Numbers (n, m, :data:`PAIR`) float32, and how far apart they are (n, m) float32: between
        centres in sizes, less the overlap.
    """
    moves = (~flat)[:, None].double()
    middle = seen.box.mean(dim=1)
    gap = (middle[None] - tracks.position[:, None]) * moves
    step = (middle[None] - tracks.last[:, None]) * moves
    both = (tracks.scale[:, None] * seen.scale[None]).sqrt()
    distance = gap.norm(dim=2) / both
    travelled = step.norm(dim=2) / both
    axes = moves.sum(dim=2)
    mahalanobis = (gap**2 / tracks.variance[:, None]).sum(dim=2) / axes
    overlap = overlaps(tracks.box, seen.box, flat)
    size = (seen.box[:, 1] - seen.box[:, 0])[None] / tracks.size[:, None]
    ratios = size.clamp(min=1e-3).log() * moves
    growth = ratios.sum(dim=2) / axes
    shape = (ratios - growth[..., None] * moves).abs().amax(dim=2)
    speed = tracks.velocity.norm(dim=1)[:, None]
    along = (step * tracks.velocity[:, None]).sum(dim=2)
    heading = along / (speed * step.norm(dim=2)).clamp(min=1e-6)
    if tracks.patch.shape[1]:
        alike, alike_long = tracks.patch @ seen.patch.T, tracks.template @ seen.patch.T
    else:
        alike = alike_long = torch.zeros_like(overlap, dtype=torch.float32)
    level = (seen.level[None] - tracks.level[:, None]).abs()
    missed = tracks.missed.double()[:, None]
    numbers = [
        overlap,
        distance.clamp(max=8),
        mahalanobis.log1p() / 2,
        travelled.clamp(max=8),
        growth.clamp(-2, 2),
        growth.abs().clamp(max=2),
        shape.clamp(max=2),
        alike,
        alike_long,
        level[..., 0].clamp(max=4),
        level[..., 1].clamp(max=4),
        seen.score[None].expand_as(overlap),
        heading * (speed / tracks.scale[:, None]).clamp(max=2),
        missed.log1p().expand_as(overlap),
        tracks.hits.double().clamp(max=30).log1p()[:, None].expand_as(overlap),
        torch.ones_like(overlap),
    ]
    stacked = torch.stack([number.float() for number in numbers], dim=2)
    return stacked, (distance - overlap).float()


def own_of_tracks(tracks: Tracks, extent: Tensor, crowd: Tensor, nearest: Tensor) -> Tensor:
    """What tracks know of themselves, (n, :data:`OWN`) float32.

    Args:
        tracks: n of them.
        extent: (n, 3), sides of their films in mm.
        crowd: (n,) how many detections are within reach.
        nearest: (n,) distance to the nearest other track, in sizes.
    """
    edge = _edge(tracks.position, extent, tracks.scale)
    zero = torch.zeros_like(edge)
    numbers = [
        zero,
        zero,
        tracks.missed.double().log1p(),
        tracks.hits.double().clamp(max=30).log1p(),
        (tracks.missed > 0).double(),
        (tracks.variance.mean(dim=1).sqrt() / tracks.scale).clamp(max=4),
        (tracks.velocity.norm(dim=1) / tracks.scale).clamp(max=4),
        edge,
        crowd.double().log1p(),
        nearest.double().clamp(max=8),
        zero,
        zero,
        (tracks.hits < 3).double(),
        zero + 1,
    ]
    return torch.stack([number.float() for number in numbers], dim=1)


def own_of_births(
    seen: Seen, extent: Tensor, crowd: Tensor, nearest: Tensor, first: Tensor, divides: Tensor
) -> Tensor:
    """What agents know that may begin at m detections, (m, :data:`OWN`) float32.

    Args:
        seen: Their detections.
        extent: (m, 3), sides of their films in mm.
        crowd: (m,) how many tracks are within reach.
        nearest: (m,) distance to the nearest other detection, in sizes.
        first: (m,) bool, in the first frame of their film.
        divides: (m,) bool, whether objects may divide.
    """
    edge = _edge(seen.box.mean(dim=1), extent, seen.scale)
    zero = torch.zeros_like(edge)
    numbers = [
        zero + 1,
        first.double(),
        zero,
        zero,
        zero,
        zero,
        zero,
        edge,
        crowd.double().log1p(),
        nearest.double().clamp(max=8),
        seen.score,
        divides.double(),
        zero,
        zero + 1,
    ]
    return torch.stack([number.float() for number in numbers], dim=1)


def _edge(position: Tensor, extent: Tensor, scale: Tensor) -> Tensor:
    """Distance to the border of the film in sizes, at most 4; flat axes are left to the other."""
    away = torch.minimum(position, extent - position) / scale[:, None]
    thin = extent < scale[:, None]
    return torch.where(thin, 4.0, away).amin(dim=1).clamp(-1, 4)
