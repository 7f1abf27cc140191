"""Making scans look like the ones a model has not seen: pose, field of view, resolution, scanner.

Whole volumes are changed before normalisation and pyramid building, so a training window has
passed through exactly the chain that a user's scan passes through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from monai.data.meta_tensor import MetaTensor
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.data.contrast import recolored
from medrl.volume.augment import (
    bias_field,
    displaced,
    rotation_matrix,
    smooth_field,
    smoothed,
    thicken_slices,
)
from medrl.volume.resample import smoothing_kernel


class LabelledScan(Protocol):
    """A scan with points that move with it."""

    @property
    def volume(self) -> Tensor:
        """(C, I, J, K) float32, isotropic at the finest spacing, not normalised."""

    @property
    def points_voxel(self) -> Tensor:
        """(P, 3) float32, voxels of that grid; NaN where unknown."""

    @property
    def tissues(self) -> Tensor | None:
        """(I, J, K), see :func:`medrl.data.contrast.recolored`; None where unknown."""


@dataclass(frozen=True)
class Augmentation:
    """Strength of each change, and how often it happens.

    Attributes:
        rotation_deg: Largest rotation about each axis.
        scaling: Largest relative change of size, each axis by itself.
        pose_probability: Share of scans that are rotated and scaled.
        crop_probability: Share of scans whose field of view is cut.
        bias: Largest log amplitude of the smooth multiplicative field.
        gamma: Largest absolute log exponent of the contrast change.
        noise: Largest standard deviation of the noise, relative to bright tissue.
        thick_slice: Largest slice thickness, in voxels, one axis at random.
        scanner_probability: Share of scans that each scanner effect is applied to.
        pad_probability: Share of faces that up to a fifth of air is added to.
        flip: Mirror every second scan left to right, where sides do not matter.
        deformation: Largest displacement along each axis by a smooth field, voxels.
        blur: Largest standard deviation of a blur, voxels.
        contrast_probability: Share of scans that get another contrast, see
            :func:`medrl.data.contrast.recolored`.
    """

    rotation_deg: float = 35.0
    scaling: float = 0.1
    pose_probability: float = 0.75
    crop_probability: float = 0.5
    bias: float = 0.4
    gamma: float = 0.3
    noise: float = 0.1
    thick_slice: float = 2.5
    scanner_probability: float = 0.4
    pad_probability: float = 0.0
    flip: bool = False
    contrast_probability: float = 0.0
    deformation: float = 0.0
    blur: float = 0.0


def augment(
    volume: Tensor,
    points_voxel: Tensor,
    settings: Augmentation,
    generator: Generator,
    *,
    tissues: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Change a scan at random.

    Args:
        volume: (C, I, J, K) float, isotropic voxels, axes close to RAS.
        points_voxel: (P, 3) float, landmarks in the volume's voxel coordinates; may be NaN.
        settings: How much of what.
        generator: Source of all randomness.
        tissues: (I, J, K), what a contrast is made up of; None if it is not known.

    Returns:
        The changed volume, whose grid may be smaller, and the landmarks in its voxel coordinates;
        landmarks outside the new field of view keep their true place outside it.
    """

    def chance(probability: float) -> bool:
        return bool(torch.rand((), generator=generator) < probability)

    if settings.contrast_probability and chance(settings.contrast_probability):
        volume = recolored(volume, tissues, generator)
    bright = volume.flatten()[:: max(1, volume.numel() // 20000)].quantile(0.95).clamp(min=1e-6)
    if chance(settings.pose_probability):
        volume, points_voxel = _change_pose(volume, points_voxel, settings, generator)
    if settings.blur and chance(settings.scanner_probability):
        width = settings.blur * float(torch.rand((), generator=generator))
        volume = smoothed(volume, smoothing_kernel(max(width, 0.1)))
    if chance(settings.scanner_probability):
        volume = thicken_slices(volume, settings.thick_slice, generator)
    if chance(settings.scanner_probability):
        exponent = math.exp(settings.gamma * _signed(generator))
        volume = bright * (volume / bright).clamp(min=0) ** exponent
    if chance(settings.scanner_probability):
        volume = volume * bias_field(volume.shape[1:], settings.bias, generator)
    if chance(settings.scanner_probability):
        sigma = float(torch.rand((), generator=generator)) * settings.noise * bright
        noise = torch.empty_like(volume).normal_(generator=generator)
        volume = (volume + sigma * noise).clamp(min=0)
    if chance(settings.crop_probability):
        volume, points_voxel = random_field_of_view(volume, points_voxel, generator)
    if settings.pad_probability:
        volume, points_voxel = _add_air(volume, points_voxel, settings.pad_probability, generator)
    if settings.flip and chance(0.5):
        mirror = torch.tensor([-1.0, 1.0, 1.0])
        points_voxel = points_voxel * mirror + torch.tensor([volume.shape[1] - 1.0, 0.0, 0.0])
        volume = volume.flip(1)
    return volume.contiguous(), points_voxel


def changed_copies(
    scans: Sequence[LabelledScan],
    augmentation: Augmentation,
    *,
    spacing: float,
    repeats: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[MetaTensor, Tensor]]:
    """Copies of scans as a confidence is fitted on: the first of every three is as it was.

    Args:
        scans: Scans that nothing was trained on.
        augmentation: How copies are changed.
        spacing: Voxel size of the scans, mm.
        repeats: Copies of each scan.
        seed: Of the changes.
        progress: Called with the copies done and their number.

    Yields:
        A scan (C, I, J, K) whose affine says its spacing, and its points (P, 3), voxels.
    """
    affine = torch.diag(torch.tensor([spacing] * 3 + [1.0], dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    total = repeats * len(scans)
    for number in range(total):
        scan = scans[number % len(scans)]
        volume, points = scan.volume, scan.points_voxel
        if number // len(scans) % 3:
            volume, points = augment(volume, points, augmentation, generator, tissues=scan.tissues)
        yield MetaTensor(volume, affine=affine), points
        if progress is not None:
            progress(number + 1, total)


def random_field_of_view(
    volume: Tensor, points_voxel: Tensor, generator: Generator, *, least: float = 0.4
) -> tuple[Tensor, Tensor]:
    """Cut a scan to part of its field of view, on one to three axes.

    Args:
        volume: (C, I, J, K).
        points_voxel: (P, 3), voxel coordinates.
        generator: Source of randomness.
        least: Smallest share of an axis that is kept.

    Returns:
        The cut volume and the points in its voxel coordinates.
    """
    axes = torch.randperm(3, generator=generator)[
        : int(torch.randint(1, 4, (), generator=generator))
    ]
    shift = torch.zeros(3)
    for axis in axes.tolist():
        size = volume.shape[axis + 1]
        keep = size * (least + (1 - least) * float(torch.rand((), generator=generator)))
        start = int((size - keep) * _choice((0.0, 1.0, None), generator))
        length = min(max(int(keep), 8), size)
        start = min(start, size - length)
        volume = volume.narrow(axis + 1, start, length)
        shift[axis] = start
    return volume, points_voxel - shift


def _add_air(
    volume: Tensor, points_voxel: Tensor, probability: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Pad random faces by up to a fifth of the length with the darkest value."""
    added = torch.rand((3, 2), generator=generator) * 0.2
    added = torch.where(torch.rand((3, 2), generator=generator) < probability, added, 0.0)
    voxels = (added * torch.tensor(volume.shape[1:])[:, None]).long()
    ends = voxels.flip(0).flatten().tolist()
    moved = points_voxel + voxels[:, 0]
    return F.pad(volume, ends, value=float(volume.min())), moved


def _signed(generator: Generator) -> float:
    return 2 * float(torch.rand((), generator=generator)) - 1


def _choice(options: tuple[float | None, ...], generator: Generator) -> float:
    """One of the options; None stands for a uniform draw from 0 to 1."""
    chosen = options[int(torch.randint(len(options), (), generator=generator))]
    return float(torch.rand((), generator=generator)) if chosen is None else chosen


def _change_pose(
    volume: Tensor, points_voxel: Tensor, settings: Augmentation, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Rotate and scale about the centre of the grid, which stays the same; and deform."""
    size = torch.tensor(volume.shape[1:], dtype=torch.float64)
    angles = 2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1
    rotation = rotation_matrix(angles * math.radians(settings.rotation_deg))
    scales = 1 + settings.scaling * (2 * torch.rand(3, generator=generator).double() - 1)
    new_from_old = rotation @ torch.diag(scales)
    center = (size - 1) / 2
    points = (points_voxel.double() - center) @ new_from_old.T + center

    # affine_grid works in coordinates from -1 to 1 between voxel faces, last axis first.
    half = size.flip(0) / 2
    old_from_new = torch.linalg.inv(new_from_old).flip(0, 1) * half / half[:, None]
    theta = torch.cat([old_from_new, torch.zeros(3, 1)], dim=1).float()
    grid = F.affine_grid(theta[None], [1, *volume.shape], align_corners=False)
    if settings.deformation:
        field = smooth_field(volume.shape[1:], settings.deformation, generator)
        grid = grid + (field.flip(-1) / half)[None].float()
        points = displaced(points, field, old_from_new=torch.linalg.inv(new_from_old))
    moved = F.grid_sample(volume[None], grid, padding_mode="zeros", align_corners=False)[0]
    return moved, points.to(points_voxel)
