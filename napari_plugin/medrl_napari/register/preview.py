"""The moving scan under a transform, in the fixed scan's place: at once and coarse, or in full."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike
from torch.nn import functional as F

from medrl.volume.resample import move_scan
from medrl.volume.space import as_affine, spacing_of
from medrl_napari.scans import Shown
from medrl_napari.space import Floats

#: Voxels of the quick view; a head takes a few hundredths of a second.
_COARSE_MM = 3.0


@dataclass(frozen=True, eq=False)
class Preview:
    """How the moving scan looks over the fixed one.

    Attributes:
        fixed: How the scan is shown that stays.
        moving: MetaTensor (1, I, J, K), the scan that is moved.
    """

    fixed: Shown
    moving: MetaTensor

    def quick(self, transform_world: ArrayLike) -> Shown:
        """The moving scan over the fixed one, in voxels of about 3 mm.

        Args:
            transform_world: 4x4 matrix, fixed to moving, RAS mm.
        """
        grid, moving = self._coarse
        return Shown(move_scan(moving, transform_world, grid), self.fixed.frame)

    def full(self, transform_world: ArrayLike) -> Shown:
        """The moving scan on the grid on which the fixed one is shown.

        Args:
            transform_world: 4x4 matrix, fixed to moving, RAS mm.
        """
        return Shown(move_scan(self.moving, transform_world, self._grid), self.fixed.frame)

    def get_ready(self) -> None:
        """Do now what the first quick view would wait for."""
        _ = self._coarse

    @cached_property
    def _grid(self) -> MetaTensor:
        """The grid of the fixed scan's layer."""
        return _empty(self.fixed.shape, self.fixed.world_affine)

    @cached_property
    def _coarse(self) -> tuple[MetaTensor, MetaTensor]:
        block, affine = _blocks(self._grid)
        z, y, x = (n // b for n, b in zip(self.fixed.shape, block, strict=True))
        grid = _empty((z, y, x), affine)
        block, affine = _blocks(self.moving)
        pooled = F.avg_pool3d(self.moving.as_tensor().float(), block)
        return grid, MetaTensor(pooled, affine=torch.from_numpy(affine))


def _blocks(scan: MetaTensor) -> tuple[list[int], Floats]:
    """Voxels of a scan that make up one of about 3 mm, along each axis; the affine of those."""
    affine = as_affine(scan.affine)
    wanted = np.maximum(np.rint(_COARSE_MM / spacing_of(affine)).astype(int), 1)
    block = [int(b) for b in np.minimum(wanted, scan.shape[1:])]
    to_voxel = np.diag([*block, 1.0])
    to_voxel[:3, 3] = (np.array(block) - 1) / 2
    return block, affine @ to_voxel


def _empty(shape: tuple[int, int, int], affine: Floats) -> MetaTensor:
    """A grid; its voxels take no memory."""
    return MetaTensor(torch.zeros(()).expand(1, *shape), affine=torch.from_numpy(affine))
