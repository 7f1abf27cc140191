"""Boxes along the world's axes: of masks, compared, cut to scans, and scans cut to them.

Convention: a box is (2, 3) RAS mm, float64: the smallest and the largest coordinates of its *outer
faces*. A voxel with its centre at c and the spacing s reaches from c - s/2 to c + s/2, so the box
of a mask covers whole voxels. Files of boxes are read and written by :mod:`medrl.volume.box_files`,
whose functions may be imported from here, too.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.volume.box_files import (
    box_row,
    parse_box,
    read_boxes,
    write_boxes,
    write_boxes_csv,
)
from medrl.volume.space import (
    Points,
    as_affine,
    as_box,
    box_corners,
    cropped_affine,
    voxel_to_world,
    world_to_voxel,
)

#: A voxel touches a box if it reaches into it by this much, in voxels: rounding does not count.
_TOUCH = 1e-4
#: What a scan's `meta` says of its whole grid, and not of a part.
_OF_THE_WHOLE = ("nifti", "dicom", "affine", "original_affine", "spatial_shape")


def iou(one: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of boxes.

    Args:
        one: (..., 2, 3) RAS mm.
        other: (..., 2, 3), of a shape that broadcasts with it.

    Returns:
        (...), 0 to 1; 0 where both boxes are empty.
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    low = np.maximum(a[..., 0, :], b[..., 0, :])
    high = np.minimum(a[..., 1, :], b[..., 1, :])
    both = np.clip(high - low, 0, None).prod(axis=-1)
    union = _volume(a) + _volume(b) - both
    return np.asarray(np.divide(both, union, out=np.zeros_like(union), where=union > 0))


def wall_distances(one: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """Mean distance between the six faces of boxes.

    Args:
        one: (..., 2, 3) RAS mm.
        other: (..., 2, 3), of a shape that broadcasts with it.

    Returns:
        (...) mm.
    """
    apart = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return np.asarray(np.abs(apart).mean(axis=(-2, -1)))


def box_of_mask(labels: MetaTensor, values: int | Collection[int]) -> Points | None:
    """The box of some labels: the smallest that holds all of their voxels to the outer faces.

    Args:
        labels: MetaTensor (1, I, J, K) with its affine (voxel to RAS mm), which may be oblique.
        values: A label, or several that together make the object.

    Returns:
        (2, 3) RAS mm; None if no voxel has such a label.
    """
    voxels = labels.as_tensor()[0].cpu().numpy()
    mask = np.isin(voxels, list(values) if isinstance(values, Collection) else values)
    lines = np.argwhere(mask.any(axis=2))
    if not len(lines):
        return None
    # Coordinates are linear: what is outermost lies at an end of its line of voxels.
    along = mask[lines[:, 0], lines[:, 1]]
    first, last = along.argmax(axis=1), mask.shape[2] - 1 - along[:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.column_stack([lines, end]) for end in (first, last)])
    affine = as_affine(labels.affine.cpu())
    centers = voxel_to_world(ends, affine)
    reach = np.abs(affine[:3, :3]).sum(axis=1) / 2
    return np.stack([centers.min(axis=0) - reach, centers.max(axis=0) + reach])


def box_of_scan(affine: ArrayLike, shape: tuple[int, ...]) -> Points:
    """The box around a scan's field of view, its outermost voxels counted to their outer faces.

    Args:
        affine: The scan's voxel-to-world matrix.
        shape: Its grid (I, J, K).

    Returns:
        (2, 3) RAS mm.
    """
    ends = box_corners(np.full(3, -0.5), np.asarray(shape[-3:], dtype=np.float64) - 0.5)
    corners = voxel_to_world(ends, affine)
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


def cut_to_scan(
    corners_world: ArrayLike, affine: ArrayLike, shape: tuple[int, ...]
) -> Points | None:
    """What of a box lies in a scan's field of view.

    Of a scan that lies askew, what lies in the box around its field of view.

    Args:
        corners_world: (2, 3) RAS mm.
        affine: The scan's voxel-to-world matrix.
        shape: Its grid (I, J, K).

    Returns:
        (2, 3) RAS mm; None if nothing of it does.

    Raises:
        MedrlError: If it is no box.
    """
    box, scan = as_box(corners_world), box_of_scan(affine, shape)
    cut = np.stack([np.maximum(box[0], scan[0]), np.minimum(box[1], scan[1])])
    return cut if (cut[0] < cut[1]).all() else None


def crop_to_box(scan: MetaTensor, corners_world: ArrayLike, margin_mm: float = 0.0) -> MetaTensor:
    """Cut a scan to a box, along its own array axes: the voxels that touch it, as they are.

    Args:
        scan: MetaTensor (C, I, J, K) with its affine (voxel to RAS mm). Of one that lies askew
            more voxels are kept, so that none that touches the box is lost.
        corners_world: (2, 3) RAS mm; what of it lies beyond the scan is left out.
        margin_mm: Room around it on all sides, less if negative.

    Returns:
        MetaTensor (C, ...) of the same type and values with its own affine. Its `meta` names the
        same file; what it says of the whole grid, such as DICOM's images, is left out.

    Raises:
        MedrlError: If it is no box, or lies outside the scan.
    """
    margin = np.array([[-margin_mm], [margin_mm]])
    box = as_box(as_box(corners_world) + margin)
    affine, shape = as_affine(scan.affine.cpu()), np.array(scan.shape[1:])
    reached = world_to_voxel(box_corners(*box), affine)
    # A voxel v reaches from v - 0.5 to v + 0.5.
    low = np.floor(reached.min(axis=0) + 0.5 + _TOUCH).astype(np.int64)
    high = np.ceil(reached.max(axis=0) + 0.5 - _TOUCH).astype(np.int64)
    low, high = np.clip(low, 0, shape), np.clip(high, 0, shape)
    if (low >= high).any():
        raise MedrlError(
            f"the box {_text(box)} lies outside the scan, which covers "
            f"{_text(box_of_scan(affine, tuple(shape)))} (RAS mm)"
        )
    i, j, k = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    meta = {key: value for key, value in scan.meta.items() if key not in _OF_THE_WHOLE}
    own = torch.from_numpy(cropped_affine(affine, low))
    return MetaTensor(scan.as_tensor()[:, i, j, k].clone(), affine=own, meta=meta)


def _volume(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    volume: NDArray[np.float64] = np.clip(boxes[..., 1, :] - boxes[..., 0, :], 0, None).prod(-1)
    return volume


def _text(box: Points) -> str:
    return " to ".join(f"({', '.join(f'{value:.1f}' for value in corner)})" for corner in box)


__all__ = [
    "as_box",
    "box_of_mask",
    "box_of_scan",
    "box_row",
    "crop_to_box",
    "cut_to_scan",
    "iou",
    "parse_box",
    "read_boxes",
    "wall_distances",
    "write_boxes",
    "write_boxes_csv",
]
