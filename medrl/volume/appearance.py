"""What a scan is like as a whole, in a few numbers that need no network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from medrl.volume.intensity import NormalizeForeground
from medrl.volume.space import as_affine, spacing_of
from medrl.volume.validation import in_hounsfield

Array = NDArray[np.float64]

#: A scan is looked at with at most so many voxels along each axis.
_SIDE = 48
#: Normalised intensity above which a voxel is taken for the object rather than air.
_OBJECT = 0.15
#: Share of the object's voxels at either end of an axis that do not count for its length.
_STRAY = 0.005
#: Layers from the object's surface to its middle.
_LAYERS = 5


@dataclass(frozen=True, eq=False)
class Appearance:
    """A scan in numbers.

    Attributes:
        narrowest_mm: Shortest side of the field of view.
        length_mm: Longest extent of what is not air, along the axes of the grid.
        cut: Whether what is not air goes on beyond the field of view, so that it may be longer.
        hounsfield: Whether the values look like those of a CT.
        contrast: (14,) how bright things are, free of units: nine quantiles of the intensities of
            what is not air, and the mean intensity of five layers from its surface to its middle.
    """

    narrowest_mm: float
    length_mm: float
    cut: bool
    hounsfield: bool
    contrast: Array


def appearance(scan: MetaTensor) -> Appearance:
    """Measure a scan, in a fraction of a second whatever its size.

    Args:
        scan: MetaTensor (C, I, J, K) with its voxel-to-world affine (RAS mm), of which the first
            channel is looked at.

    Raises:
        MedrlError: If the scan is constant, or its affine unusable.
    """
    sides = np.array(scan.shape[1:]) * spacing_of(as_affine(scan.affine.cpu()))
    small = _shrunk(scan, sides)
    normal = NormalizeForeground()(MetaTensor(small[None])).as_tensor()[0].numpy()
    solid = _largest(normal > _OBJECT)
    step = sides / np.array(solid.shape)
    lengths, cut = [], False
    for axis in range(3):
        along = solid.sum(axis=tuple({0, 1, 2} - {axis})).cumsum() / solid.sum()
        first, last = np.searchsorted(along, (_STRAY, 1 - _STRAY))
        lengths.append((last - first + 1) * step[axis])
        cut |= bool(first == 0 or last >= len(along) - 1)
    return Appearance(
        float(sides.min()),
        float(max(lengths)),
        cut,
        in_hounsfield(scan[:1]),
        _contrast(normal, solid, step),
    )


def _shrunk(scan: MetaTensor, sides: Array) -> torch.Tensor:
    """The scan (I, J, K) on a small grid of about isotropic voxels, the means of what they hold."""
    shape = np.ceil(_SIDE * sides / sides.max() - 1e-6).astype(int).clip(min=2)
    wanted = np.minimum(shape, scan.shape[1:]).tolist()
    return F.adaptive_avg_pool3d(scan.as_tensor()[:1].cpu().float(), wanted)[0]


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of a mask."""
    parts, count = ndimage.label(mask)
    return mask if count < 2 else np.asarray(parts == 1 + np.bincount(parts.ravel())[1:].argmax())


def _contrast(values: NDArray[np.float32], solid: NDArray[np.bool_], step: Array) -> Array:
    """Quantiles of the intensities, and how they go with depth below the surface."""
    inside = values[solid]
    # Beyond the field of view it goes on.
    padded = np.pad(solid, 1, mode="edge")
    depth = ndimage.distance_transform_edt(padded, sampling=step)[1:-1, 1:-1, 1:-1][solid]
    layer = np.minimum((_LAYERS * depth / depth.max()).astype(int), _LAYERS - 1)
    count = np.bincount(layer, minlength=_LAYERS)
    total = np.bincount(layer, weights=inside, minlength=_LAYERS)
    means = np.where(count, total / count.clip(min=1), inside.mean())
    return np.concatenate([np.quantile(inside, np.linspace(0.1, 0.9, 9)), means])
