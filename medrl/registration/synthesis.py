"""Pairs to train on, made from single scans: new anatomy, two contrasts, unlike fields of view."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.volume.augment import bias_field, rotation_matrix, thicken_slices


@dataclass(frozen=True)
class Synthesis:
    """How far made-up pairs differ from the scan they are made of.

    Attributes:
        zoom: Largest change of size along an axis, as a share.
        warp: Amplitude of smooth deformation that both scans of a pair share, mm.
        difference: The same of what only the moving scan has, mm.
        bias: Amplitude of the logarithm of the bias field.
        noise: Largest noise level, as a share of bright tissue.
        thickest: Largest slice thickness, in voxels.
        same: Share of pairs in which both scans keep their own contrast.
    """

    zoom: float = 0.15
    warp: float = 10.0
    difference: float = 2.0
    bias: float = 0.4
    noise: float = 0.05
    thickest: float = 2.5
    same: float = 0.3


@dataclass(frozen=True, eq=False)
class Source:
    """A scan to make pairs of.

    Attributes:
        volume: (1, I, J, K) uint8 at half the working voxel size.
        body: (1, I/2, J/2, K/2) float32, 1 in the object and 0 in the air around it.
        points: (P, 3) voxels of the working grid, spread over the object.
    """

    volume: Tensor
    body: Tensor
    points: Tensor


def remap(kind: float, generator: Generator) -> Tensor:
    """A random contrast: a curve (256,) float32 from intensity to intensity, air staying 0.

    Args:
        kind: Below 0.35 a rising curve (another T1), below 0.6 a falling one (T2), above that
            anything continuous (CT and what is not invented yet).
        generator: Source of randomness.
    """
    knots = 5 + int(torch.randint(3, (), generator=generator))
    if kind < 0.6:
        y = torch.rand(knots, generator=generator) * 1.2 + 0.2
        y = F.pad(y.cumsum(0), (1, 0))
        y = y / y[-1]
        if kind >= 0.35:
            floor = 0.1 + 0.3 * torch.rand((), generator=generator)
            y = 1 - (1 - floor) * y
    else:
        y = torch.rand(knots + 1, generator=generator)
    gamma = 0.6 + torch.rand((), generator=generator)
    x = torch.linspace(0, 1, 256) ** gamma * knots
    low = x.floor().clamp(max=knots - 1).long()
    curve = y[low] + (x - low) * (y[low + 1] - y[low])
    curve[0] = 0
    return curve


def make_pair(
    source: Source, settings: Synthesis, spacing: float, *, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Two scans of one new anatomy.

    Args:
        source: The scan.
        settings: How.
        spacing: Working voxel size, mm.
        generator: Source of randomness.

    Returns:
        Fixed and moving volume, each (1, I, J, K) float32 with 0 as air and about 1 as bright,
        and the points (P, 3) voxels where they lie in the fixed volume.
    """
    g = generator
    shape = source.body.shape[1:]
    grid, points = _anatomy(source.points, shape, settings, spacing, generator=g)
    same = float(torch.rand((), generator=g)) < settings.same
    masked = float(torch.rand((), generator=g)) < 0.85
    looks = []
    for moving in (False, True):
        kind = float(torch.rand((), generator=g))
        plain = same or (not moving and kind < 0.3)
        curve = torch.linspace(0, 1, 256) if plain else remap(kind, g)
        look = F.avg_pool3d(curve[source.volume.int()], 2)
        if masked:
            look = look * source.body
        place = grid
        if moving and settings.difference:
            place = grid + _wave(shape, settings.difference / spacing, generator=g)
        look = F.grid_sample(look[None], place, padding_mode="zeros", align_corners=False)[0]
        looks.append(_scan(look, settings, generator=g))
    return looks[0], looks[1], points


def _scan(volume: Tensor, settings: Synthesis, *, generator: Generator) -> Tensor:
    """What a scanner makes of a volume: thick slices, shading, noise, any brightness."""
    g = generator
    chance = torch.rand(3, generator=g)
    if chance[0] < 0.3:
        volume = thicken_slices(volume, settings.thickest, g)
    volume = volume * bias_field(volume.shape[1:], settings.bias, g)
    high = volume.flatten()[::7].sort().values
    high = high[high > 0.1 * high[-1]]
    top = high[int((0.96 + 0.03 * chance[1]) * (len(high) - 1))] if len(high) else volume.max()
    volume = volume / top.clamp(min=1e-3) * (0.9 + 0.2 * chance[2])
    level = settings.noise * float(torch.rand((), generator=g))
    # Averaging over the working voxel leaves the mean of Rician noise, and a little of its spread.
    real = volume + 0.3 * level * torch.randn(volume.shape, generator=g)
    return (real.square() + level**2).sqrt().clamp_(0, 1.5)


def _anatomy(
    points: Tensor, shape: torch.Size, settings: Synthesis, spacing: float, *, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Where each voxel of a new anatomy is taken from, as `grid_sample` wants it, and points."""
    g = generator
    zoom = torch.exp(settings.zoom * (2 * torch.rand(3, generator=g) - 1))
    mirror = torch.where(torch.rand((), generator=g) < 0.5, -1.0, 1.0)
    turn = rotation_matrix(0.1 * torch.randn(3, generator=g)).float()
    # Which array axis is left-right differs between scans; a mirrored head is a head.
    linear = turn @ torch.diag(zoom * torch.stack([mirror, torch.ones(()), torch.ones(())]))
    size = torch.tensor(shape, dtype=torch.float32)
    scale = size.flip(0)  # grid_sample counts axes backwards, each from -1 to 1
    axes = (linear.flip(0).flip(1) * scale) / scale[:, None]
    theta = torch.cat([axes, torch.zeros(3, 1)], dim=1)[None]
    grid = F.affine_grid(theta, [1, 1, *shape], align_corners=False)
    wave = _wave(shape, settings.warp / spacing, generator=g)
    centre = (size - 1) / 2
    # The wave is smooth and small: a point moves by about its negative.
    start = (points - centre) @ torch.linalg.inv(linear).T + centre
    place = ((2 * start + 1) / size - 1).flip(1)[None, None, None]
    moved = F.grid_sample(wave.permute(0, 4, 1, 2, 3), place, align_corners=False)[0, :, 0, 0].T
    moved = (moved.flip(1) * size / 2) @ torch.linalg.inv(linear).T
    return grid + wave, start - moved


def _wave(shape: torch.Size, amplitude: float, *, generator: Generator) -> Tensor:
    """Smooth random displacements (1, I, J, K, 3) of some voxels, in `grid_sample` units."""
    strength = amplitude * float(torch.rand((), generator=generator)) / math.sqrt(3)
    knots = strength * torch.randn((1, 3, 5, 5, 5), generator=generator)
    wave = F.interpolate(knots, size=list(shape), mode="trilinear", align_corners=True)
    unit = 2 / torch.tensor(shape, dtype=torch.float32).flip(0)
    return wave.permute(0, 2, 3, 4, 1) * unit
