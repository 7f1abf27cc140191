"""What carries an outline without learning: copies, registration, shapes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Mask = NDArray[np.bool_]

#: Of the demons, for pictures that are brought to a pixel of one.
_ITERATIONS, _SMOOTHING = 60, 1.5
_LEAST_PIXELS = 1
#: Room around an object, in its own sizes.
_ROOM = 1


def copied(masks: Mapping[int, Mask], count: int) -> dict[int, Mask]:
    """The mask of the nearest outlined picture, in every one of T."""
    known = np.array(sorted(masks))
    nearest = known[np.abs(np.arange(count)[:, None] - known).argmin(axis=1)]
    return {number: masks[int(own)] for number, own in enumerate(nearest)}


def interpolated(masks: Mapping[int, Mask], count: int) -> dict[int, Mask]:
    """Signed distances between outlined pictures (Raya and Udupa 1990); copies beyond them."""
    known = sorted(masks)
    found = copied(masks, count)
    for first, last in pairwise(known):
        ends = [_signed_distance(masks[number]) for number in (first, last)]
        for number in range(first + 1, last):
            share = (number - first) / (last - first)
            found[number] = (1 - share) * ends[0] + share * ends[1] < 0
    return found


def registered(pictures: NDArray[np.float32], masks: Mapping[int, Mask]) -> dict[int, Mask]:
    """Every mask moved to the next picture by the demons (Thirion 1998; SimpleITK), until none is.

    Args:
        pictures: (T, H, W).
        masks: Outlined pictures; those between two are carried from the nearer.
    """
    count = len(pictures)
    known = sorted(masks)
    found: dict[int, Mask] = dict(masks)
    for place, begin in enumerate(known):
        for direction in (1, -1):
            other = place + direction
            end = count if direction > 0 else -1
            if 0 <= other < len(known):
                middle = (begin + known[other]) / 2
                end = int(np.floor(middle)) + 1 if direction > 0 else int(np.floor(middle))
            mask = masks[begin]
            seen = pictures[(slice(None), *_around(mask))]
            whole, mask = mask, mask[_around(mask)]
            for number in range(begin + direction, end, direction):
                mask = _moved(seen[number], seen[number - direction], mask)
                if mask.sum() < _LEAST_PIXELS:
                    break
                found[number] = np.zeros_like(whole)
                found[number][_around(whole)] = mask
    return found


def _around(mask: Mask) -> tuple[slice, slice]:
    """The part of a picture that an object may come to: its own size further on every side."""
    parts = []
    for axis in (0, 1):
        there = np.flatnonzero(mask.any(axis=1 - axis))
        room = _ROOM * (there[-1] - there[0] + 1) + 8
        parts.append(slice(max(0, int(there[0] - room)), int(there[-1] + 1 + room)))
    return parts[0], parts[1]


def _moved(fixed: NDArray[np.float32], moving: NDArray[np.float32], mask: Mask) -> Mask:
    """A mask of one picture on another."""
    scale = float(np.percentile(moving, 99) - np.percentile(moving, 1)) or 1.0
    images = [sitk.GetImageFromArray(one.astype(np.float32) / scale) for one in (fixed, moving)]
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(_ITERATIONS)
    demons.SetStandardDeviations(_SMOOTHING)
    field = demons.Execute(*images)
    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    soft = sitk.GetImageFromArray(mask.astype(np.float32))
    moved = sitk.Resample(soft, images[0], transform, sitk.sitkLinear, 0.0)
    return sitk.GetArrayFromImage(moved) > 0.5


def _signed_distance(mask: Mask) -> NDArray[np.float64]:
    """Below 0 inside, (H, W)."""
    outside: NDArray[np.float64] = distance_transform_edt(~mask)
    inside: NDArray[np.float64] = distance_transform_edt(mask)
    return outside - inside
