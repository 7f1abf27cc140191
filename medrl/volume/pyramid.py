"""Isotropic multi-scale pyramids of a scan, smoothed before every step so that nothing aliases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medrl.errors import MedrlError
from medrl.volume.resample import resample_isotropic, smoothing_kernel


@dataclass(frozen=True, eq=False)
class Pyramid:
    """One scan at several isotropic resolutions.

    All levels share the world position of voxel (0, 0, 0), so voxel ``v`` of level ``l`` is voxel
    ``v * strides[l]`` of level 0: an agent that changes scale stays where it is.

    Attributes:
        levels: Volumes (C, I, J, K), float32, finest first.
        spacings: Voxel size of each level in mm, finest first.
        affines: Voxel-to-world matrix of each level (RAS mm).
        background: Value that stands for everything outside the scan.
    """

    levels: tuple[Tensor, ...]
    spacings: tuple[float, ...]
    affines: tuple[NDArray[np.float64], ...]
    background: float = 0.0

    @property
    def strides(self) -> tuple[int, ...]:
        """Voxels of level 0 per voxel of each level."""
        return level_strides(self.spacings)

    def to(self, device: str | torch.device) -> Pyramid:
        """The same pyramid with its volumes on another device."""
        levels = tuple(level.to(device) for level in self.levels)
        return replace(self, levels=levels)

    def moved(self, transform_world: NDArray[np.float64]) -> Pyramid:
        """The same volumes elsewhere in the world, by a (4, 4) transform (RAS mm)."""
        return replace(self, affines=tuple(transform_world @ affine for affine in self.affines))


def level_strides(spacings: Sequence[float]) -> tuple[int, ...]:
    """Whole-number ratios of the spacings (finest first, mm) to the finest.

    Raises:
        MedrlError: If a spacing is not a whole multiple of the finest, or they do not increase.
    """
    ratios = [spacing / spacings[0] for spacing in spacings]
    strides = tuple(round(ratio) for ratio in ratios)
    if any(abs(r - s) > 1e-6 for r, s in zip(ratios, strides, strict=True)) or any(
        b <= a for a, b in pairwise(strides)
    ):
        raise MedrlError(
            f"pyramid spacings must rise in whole multiples of the finest, not {tuple(spacings)}"
        )
    return strides


def build_pyramid(
    scan: MetaTensor, *, spacings: Sequence[float] = (2.0, 4.0, 8.0), background: float = 0.0
) -> Pyramid:
    """Build an anti-aliased isotropic pyramid.

    A scan that is not on an isotropic grid of the finest spacing is resampled to one first
    (:func:`medrl.volume.resample.resample_isotropic`). Each coarser level is the one before it,
    smoothed by a Gaussian and strided. In voxels of level 0 the smoothing of a level of stride s
    adds up to sigma = s / 2: less than 3 % is left of any wave shorter than the level's voxel,
    and 29 % (exp(-pi^2 / 8)) at the shortest wave that the level can hold, two of its voxels.

    Args:
        scan: MetaTensor (C, I, J, K) with a voxel-to-world affine (RAS mm).
        spacings: Voxel sizes in mm, finest first, whole multiples of the finest.
        background: Value outside the scan.

    Returns:
        The pyramid, volumes float32 on the scan's device.

    Raises:
        MedrlError: If the spacings or the scan's affine are not usable.
    """
    strides = level_strides(spacings)
    fine = resample_isotropic(scan, spacing=spacings[0], background=background)
    affine = np.asarray(fine.affine, dtype=np.float64)
    levels = [fine.as_tensor().contiguous()]
    affines = [affine]
    for previous, stride in pairwise(strides):
        sigma = np.sqrt((stride / 2) ** 2 - (previous / 2) ** 2 * (previous > 1)) / previous
        levels.append(_shrink(levels[-1], stride // previous, sigma, background))
        coarse = affine.copy()
        coarse[:3, :3] *= stride
        affines.append(coarse)
    return Pyramid(tuple(levels), tuple(float(s) for s in spacings), tuple(affines), background)


def _shrink(volume: Tensor, stride: int, sigma: float, background: float) -> Tensor:
    """Smooth (C, I, J, K) by a Gaussian of sigma voxels and keep every stride-th voxel."""
    kernel = smoothing_kernel(sigma).to(volume)
    half = len(kernel) // 2
    out = (volume - background).unsqueeze(1)
    for axis in range(3):
        view, step, pad = [1, 1, 1], [1, 1, 1], [0, 0, 0]
        view[axis], step[axis], pad[axis] = len(kernel), stride, half
        out = F.conv3d(out, kernel.view(1, 1, *view), stride=step, padding=pad)
    return (out.squeeze(1) + background).contiguous()
