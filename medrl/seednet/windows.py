"""The part of a scan that seeds are placed in, on the grid and in the units of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from medrl.errors import MedrlError
from medrl.seednet.network import MULTIPLE
from medrl.volume.channels import Channel, in_units, on_one_grid
from medrl.volume.space import cropped_affine, world_to_voxel

Voxels = NDArray[np.int64]
#: Lowest and highest voxel of a part of a grid, the highest exclusive.
Box = tuple[tuple[int, int, int], tuple[int, int, int]]
#: A voxel of a `relative` channel is this many half-widths of the window's contrast at most.
_CLIP = 3.0


@dataclass(frozen=True, eq=False)
class Window:
    """A box of a grid, ready for the network.

    Attributes:
        image: (C, I, J, K) float32, normalised; 0 outside the scan and in missing channels.
        inside: (I, J, K) bool, what the scan covers.
        corner: (3,) int64, voxel of the grid at which the window begins, padding included.
        affine: (4, 4) float64, voxel of the window to world (RAS mm).
    """

    image: Tensor
    inside: Tensor
    corner: Voxels
    affine: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The grid."""
        i, j, k = self.image.shape[1:]
        return i, j, k


def to_grid(images: Mapping[str, MetaTensor], channels: Sequence[Channel], spacing: float) -> Grid:
    """The images of one patient on one isotropic grid, see :func:`on_one_grid`."""
    volumes, affine = on_one_grid(images, channels, spacing)
    return Grid(tuple(volumes.get(one.name) for one in channels), tuple(channels), affine)


@dataclass(frozen=True, eq=False)
class Grid:
    """The images of one patient on one isotropic grid.

    Attributes:
        volumes: (I, J, K) float32 each, in the order of the channels; None where missing.
        channels: What they are.
        affine: (4, 4) float64, voxel to world (RAS mm).
    """

    volumes: tuple[Tensor | None, ...]
    channels: tuple[Channel, ...]
    affine: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        i, j, k = next(volume for volume in self.volumes if volume is not None).shape
        return i, j, k

    def voxel_of(self, point_world: NDArray[np.float64]) -> Voxels:
        """The voxel (3,) int64 nearest to a world point; it may lie outside the grid."""
        return np.round(world_to_voxel(point_world, self.affine)).astype(np.int64)

    def window(self, low: Sequence[int], high: Sequence[int]) -> Window:
        """Cut out the box of voxels from ``low`` to ``high`` (exclusive), and normalise it.

        The box is cut to the grid and its sides are padded to multiples of
        :data:`medrl.seednet.network.MULTIPLE`.
        """
        start = [max(0, int(a)) for a in low]
        stop = [min(n, int(b)) for n, b in zip(self.shape, high, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        size = [b - a for a, b in zip(start, stop, strict=True)]
        padding = [-n % MULTIPLE for n in size]
        pads = [side for extra in reversed(padding) for side in (extra // 2, extra - extra // 2)]
        parts = []
        for volume, channel in zip(self.volumes, self.channels, strict=True):
            part = torch.zeros(size) if volume is None else normalize(volume[box], channel)
            parts.append(F.pad(part, pads))
        inside = F.pad(torch.ones(size, dtype=torch.bool), pads)
        corner = np.array([a - extra // 2 for a, extra in zip(start, padding, strict=True)])
        return Window(torch.stack(parts), inside, corner, cropped_affine(self.affine, corner))


def pasted(values: Tensor, corner: ArrayLike, onto: Tensor, corner_onto: ArrayLike) -> Tensor:
    """One part of a grid, with the values of another part where the two overlap.

    Args:
        values: (..., I, J, K) of a part of a grid.
        corner: (3,), where that begins.
        onto: (..., I', J', K') of another part.
        corner_onto: (3,), where that begins.

    Returns:
        (..., I', J', K').
    """
    out = onto.clone()
    shift = np.asarray(corner_onto) - np.asarray(corner)
    low = np.maximum(shift, 0)
    high = np.maximum(low, np.minimum(values.shape[-3:], shift + np.array(onto.shape[-3:])))
    i, j, k = (slice(a, b) for a, b in zip(low, high, strict=True))
    x, y, z = (slice(a, b) for a, b in zip(low - shift, high - shift, strict=True))
    out[..., x, y, z] = values[..., i, j, k]
    return out


def normalize(volume: Tensor, channel: Channel) -> Tensor:
    """Bring the values of an image (I, J, K) to about -1 to 1.

    Raises:
        MedrlError: If it is constant and its intensities have no unit.
    """
    known = in_units(volume, channel)
    if known is not None:
        return known
    flat = volume.flatten()
    # Padding, of which a window may hold any amount, is as dark as it gets.
    flat = flat[flat > flat.min()]
    sample = flat[:: max(1, len(flat) // 50_000)].sort().values
    if len(sample) == 0:
        raise MedrlError("the window around the seed is empty: there is nothing to see in it")
    low, middle, high = (float(sample[int(q * (len(sample) - 1))]) for q in (0.02, 0.5, 0.98))
    if not high > low:
        raise MedrlError("the window around the seed is empty: there is nothing to see in it")
    return ((volume - middle) * (2.0 / (high - low))).clamp(-_CLIP, _CLIP)
