"""Stacks to learn on: objects of labelled scans and films, each time seen differently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.cutting.dynamics import Stack

#: Among the values of an object: all labels together.
WHOLE = 0
#: Pictures of a training stack at most.
MOST = 24
#: Pixels of a training picture for each pixel of a window.
_CANVAS = 1.75
#: Pictures beyond the ends of an object.
_BEYOND = 4
#: Slices that an object must go through.
_LEAST_SLICES = 4
_LEAST_PIXELS = 12


@dataclass(frozen=True, eq=False)
class Source:
    """A labelled scan or film.

    Attributes:
        name: For messages.
        volume: (C, I, J, K) float32; of a film (C, T, H, W).
        labels: (I, J, K) int16, 0 the background.
        spacing: Millimetres along each axis; of a film 0 along the first.
        axes: Axes along which pictures follow one another, those to prefer named more often.
        values: Values of the labels that are learned, :data:`WHOLE` for all of them as one.
        cohort: Where it is from; all cohorts are learned equally.
    """

    name: str
    volume: Tensor
    labels: Tensor
    spacing: tuple[float, float, float]
    axes: tuple[int, ...]
    values: tuple[int, ...]
    cohort: str = ""

    def mask(self, value: int, axis: int) -> Tensor:
        """An object as pictures along an axis, (T, H, W) bool."""
        mask = self.labels > 0 if value == WHOLE else self.labels == value
        return mask.movedim(axis, 0)

    @property
    def film(self) -> bool:
        """Whether its first axis is time."""
        return self.spacing[0] == 0.0


@dataclass(frozen=True)
class Changes:
    """How training stacks differ from their sources.

    Attributes:
        rotation_deg: Largest rotation in the plane.
        stretch: Largest log ratio of the sides.
        gamma: Largest absolute log exponent of the contrast.
        bias: Largest log amplitude of a smooth multiplicative field.
        noise: Largest standard deviation of noise, relative to the contrast around the object.
        invert: Share whose contrast is inverted.
        stride: Every so many pictures are left out at most.
    """

    rotation_deg: float = 25.0
    stretch: float = 0.2
    gamma: float = 0.5
    bias: float = 0.4
    noise: float = 0.15
    invert: float = 0.1
    stride: int = 3


def canvas_of(side: int) -> int:
    """Height and width of the pictures that windows of some side are learned on."""
    return int(side * _CANVAS) // 4 * 4


def draw_stack(
    source: Source, side: int, changes: Changes, generator: Generator
) -> tuple[Stack, Tensor] | None:
    """An object of a source as a stack, changed at random, and its masks.

    Args:
        source: Where it is taken from.
        side: Of the windows that will be looked through.
        changes: How much.
        generator: Source of randomness, on the CPU.

    Returns:
        The stack, of at most :data:`MOST` pictures, and masks (T, H, W), 0 to 1; None if the
        object that was drawn is too small.
    """
    value = source.values[_whole(len(source.values), generator)]
    axis = source.axes[_whole(len(source.axes), generator)]
    volume = source.volume.movedim(axis + 1, 1)
    mask = source.mask(value, axis)
    spacing = [source.spacing[axis], *(s for a, s in enumerate(source.spacing) if a != axis)]
    areas = mask.flatten(1).sum(dim=1)
    there = torch.nonzero(areas)[:, 0]
    if len(there) < _LEAST_SLICES or int(areas.max()) < _LEAST_PIXELS:
        return None
    stride = 1 + _whole(min(changes.stride, max(1, len(there) // _LEAST_SLICES)), generator)
    low = max(0, int(there[0]) - _BEYOND * stride)
    high = min(len(mask), int(there[-1]) + 1 + _BEYOND * stride)
    numbers = torch.arange(low + _whole(stride, generator), high, stride)
    if len(numbers) > MOST:
        start = _whole(len(numbers) - MOST + 1, generator)
        numbers = numbers[start : start + MOST]
    mask, volume = mask[numbers], volume[:, numbers]
    if int(mask.flatten(1).any(dim=1).sum()) < _LEAST_SLICES - 1:
        return None
    grid, pixel = _plane(mask.any(dim=0), spacing[1:], canvas_of(side), changes, generator)
    whole = grid.expand(len(numbers), -1, -1, -1)
    pictures = F.grid_sample(
        volume.movedim(0, 1).float(), whole, padding_mode="border", align_corners=False
    )
    masks = F.grid_sample(mask[:, None].float(), whole, align_corners=False)[:, 0]
    if int((masks > 0.5).flatten(1).any(dim=1).sum()) < _LEAST_SLICES - 1:
        return None
    pictures = _recolored(pictures, masks, changes, generator, film=source.film)
    size = 0.0 if source.film else spacing[0] * stride
    return Stack(pictures, (pixel, pixel), size), masks


def _plane(
    mask: Tensor, spacing: Sequence[float], canvas: int, changes: Changes, generator: Generator
) -> tuple[Tensor, float]:
    """Where the pixels of a canvas lie in pictures (1, h, w, 2), and their size in mm."""
    rows, columns = (torch.nonzero(mask.any(dim=1 - axis))[:, 0] for axis in (0, 1))
    low = torch.stack([rows[0], columns[0]]).float() - 0.5
    high = torch.stack([rows[-1], columns[-1]]).float() + 0.5
    mm = torch.tensor(spacing)
    extent = float(((high - low) * mm).max())
    share = 0.3 + 0.35 * _unit(generator)
    pixel = extent / (share * canvas)
    middle = (low + high) / 2 + (torch.rand(2, generator=generator) - 0.5) * extent * 0.4 / mm
    turn = math.radians(changes.rotation_deg) * _signed(generator)
    ratio = math.exp(changes.stretch * _signed(generator) / 2)
    matrix = torch.tensor(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    ) @ torch.diag(torch.tensor([ratio, 1 / ratio]))
    flip = torch.where(torch.rand(2, generator=generator) < 0.5, -1.0, 1.0)
    matrix = matrix @ torch.diag(flip)
    if _unit(generator) < 0.5:
        matrix = matrix.flip(1)
    steps = (torch.arange(canvas) - (canvas - 1) / 2) * pixel
    place = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1) @ matrix.T / mm
    place = (place + middle + 0.5) / torch.tensor(mask.shape) * 2 - 1
    return place.flip(-1)[None], pixel


def _recolored(
    pictures: Tensor, masks: Tensor, changes: Changes, generator: Generator, *, film: bool
) -> Tensor:
    """Pictures with another contrast, field, noise, and of films other colours and light."""
    low, high = pictures.amin(), pictures.amax()
    out = (pictures - low) / (high - low).clamp(min=1e-6)
    out = out ** math.exp(changes.gamma * _signed(generator))
    if _unit(generator) < changes.invert:
        out = 1 - out
    count, channels, height, width = out.shape
    coarse = torch.randn((1, 1, 3, 3, 3), generator=generator)
    field = F.interpolate(coarse, (count, height, width), mode="trilinear", align_corners=True)
    out = out * (changes.bias * _unit(generator) * field[0, 0].clamp(-1, 1))[:, None].exp()
    if film:
        gains = 1 + 0.3 * (torch.rand((1, channels, 1, 1), generator=generator) - 0.5)
        light = 1 + 0.1 * torch.randn((count, 1, 1, 1), generator=generator)
        out = out * gains * light
        if _unit(generator) < 0.3:
            out = out[:, torch.randperm(channels, generator=generator)]
    near = out.movedim(1, -1)[masks > 0.2]
    scale = float(near.std()) if near.numel() > 1 else 0.1
    noise = changes.noise * _unit(generator) * max(scale, 0.02)
    return out + noise * torch.randn(out.shape, generator=generator)


def _whole(below: int, generator: Generator) -> int:
    return int(torch.randint(below, (1,), generator=generator))


def _unit(generator: Generator) -> float:
    return float(torch.rand(1, generator=generator))


def _signed(generator: Generator) -> float:
    return 2 * _unit(generator) - 1
