"""What is wrong with two scans, their masks or a start, before any work is done on them."""

from __future__ import annotations

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.registration.transforms import KINDS
from medrl.volume.space import (
    apply_affine,
    as_affine,
    as_transform,
    inside,
    voxel_to_world,
    world_to_voxel,
)
from medrl.volume.transform_files import kind_of
from medrl.volume.validation import check_volume

#: Points along each axis of a scan by which overlap is measured.
_LATTICE = 24
#: Scans that share less than this of the smaller one share nothing to be compared.
_LEAST_OVERLAP = 0.01
_MOST_POINTS = 1_000_000


def check_pair(
    fixed: MetaTensor,
    moving: MetaTensor,
    fixed_mask: MetaTensor | None = None,
    moving_mask: MetaTensor | None = None,
    kind: str = "rigid",
    initial_world: ArrayLike | None = None,
) -> None:
    """Refuse what cannot be registered; each message names the file, or says which scan it is.

    Args:
        fixed: MetaTensor (1, I, J, K) with a voxel-to-world affine (RAS mm).
        moving: Likewise, on any other grid. Two scans need not overlap in the world unless there
            is a transform to start from.
        fixed_mask: What of the fixed scan counts (not zero), on any grid in the same world.
        moving_mask: Likewise of the moving scan.
        kind: Wanted transform: ``rigid``, ``similarity`` or ``affine``.
        initial_world: 4x4 matrix to start from, fixed to moving, RAS mm.

    Raises:
        MedrlError: If the kind is unknown; a scan is no single 3D volume, blank, or holds NaN; a
            mask is none of that scan, excludes everything, or leaves one grey value; the start is
            no transform, of a wider kind than wanted, mirrors, or leaves no overlap.
    """
    if kind not in KINDS:
        raise MedrlError(f"there is no transform {kind!r}; there are: {', '.join(KINDS)}")
    for scan, role in ((fixed, "fixed scan"), (moving, "moving scan")):
        _check_scan(scan, name_of(scan, role))
    masks = ((fixed, fixed_mask, "fixed"), (moving, moving_mask, "moving"))
    for scan, mask, role in masks:
        if mask is not None:
            _check_mask(scan, mask, name_of(scan, f"{role} scan"), name_of(mask, f"{role} mask"))
    if initial_world is not None:
        _check_start(fixed, moving, kind, initial_world)


def overlap(fixed: MetaTensor, moving: MetaTensor, transform_world: ArrayLike) -> float:
    """How much of the smaller scan the other one covers; masks and empty space do not matter.

    Args:
        fixed: MetaTensor (C, I, J, K).
        moving: Likewise.
        transform_world: 4x4 matrix, fixed to moving, RAS mm.

    Returns:
        Share from 0 to 1, to about a hundredth.

    Raises:
        MedrlError: If the matrix is no transform.
    """
    matrix = as_transform(transform_world)
    there = apply_affine(matrix, _lattice(fixed))
    back = apply_affine(np.linalg.inv(matrix), _lattice(moving))
    return max(
        float(inside(there, moving.affine, tuple(moving.shape[1:])).mean()),
        float(inside(back, fixed.affine, tuple(fixed.shape[1:])).mean()),
    )


def name_of(scan: object, role: str) -> str:
    """What to call a scan in a message: its file, or its role."""
    meta = getattr(scan, "meta", {})
    return str(meta.get("filename_or_obj") or f"the {role}")


def _check_scan(scan: MetaTensor, name: str) -> None:
    """Refuse what is no volume with something in it."""
    if not isinstance(scan, MetaTensor):
        raise MedrlError(f"{name}: must be a MetaTensor (1, I, J, K) with its affine: medrl.read")
    try:
        as_affine(scan.affine)
        check_volume(scan)
    except MedrlError as error:
        raise MedrlError(f"{name}: {error}") from error
    low, high = (float(v) for v in torch.aminmax(scan.as_tensor()))
    if low == high:
        raise MedrlError(f"{name}: every voxel is {low:g}: the scan is blank")


def _check_mask(scan: MetaTensor, mask: MetaTensor, name: str, mask_name: str) -> None:
    """Refuse a mask that leaves nothing of a scan, or nothing that varies."""
    if not isinstance(mask, MetaTensor):
        raise MedrlError(f"{mask_name}: must be a MetaTensor (1, I, J, K) with its affine")
    if mask.ndim != 4 or mask.shape[0] != 1:
        raise MedrlError(f"{mask_name}: must be one 3D volume, not of shape {tuple(mask.shape)}")
    voxels = mask.as_tensor()
    if not torch.isfinite(voxels).all():
        raise MedrlError(f"{mask_name}: holds voxels that are not numbers (NaN or infinite)")
    where = torch.nonzero(voxels[0])
    if not len(where):
        raise MedrlError(f"{mask_name}: excludes everything: every voxel is 0")
    where = where[:: max(1, len(where) // _MOST_POINTS)]
    index = world_to_voxel(voxel_to_world(where.numpy(force=True), mask.affine), scan.affine)
    i, j, k = torch.from_numpy(np.rint(index).astype(np.int64)).to(voxels.device).T
    shape = scan.shape[1:]
    there = (i >= 0) & (i < shape[0]) & (j >= 0) & (j < shape[1]) & (k >= 0) & (k < shape[2])
    if not there.any():
        raise MedrlError(f"{mask_name}: excludes everything: what it marks lies outside {name}")
    values = scan.as_tensor()[0, i[there], j[there], k[there]]
    if float(values.min()) == float(values.max()):
        raise MedrlError(f"{mask_name}: leaves of {name} only voxels that are all equal")


def _check_start(
    fixed: MetaTensor, moving: MetaTensor, kind: str, initial_world: ArrayLike
) -> None:
    """Refuse a start from which there is no way."""
    try:
        matrix = as_transform(initial_world)
    except MedrlError as error:
        raise MedrlError(f"the initial transform is none: {error}") from error
    if np.linalg.det(matrix[:3, :3]) < 0:
        raise MedrlError("the initial transform mirrors: no registration starts from there")
    found = kind_of(matrix)
    if KINDS.index(found) > KINDS.index(kind):
        raise MedrlError(
            f"the initial transform is of the wrong kind: it is {found}, wanted is {kind}; start "
            f"from another or ask for the transform {found}"
        )
    if overlap(fixed, moving, matrix) < _LEAST_OVERLAP:
        raise MedrlError(
            f"{name_of(fixed, 'fixed scan')} and {name_of(moving, 'moving scan')} do not overlap "
            "after the initial transform: it must map the fixed scan's world to the moving one's"
        )


def _lattice(scan: MetaTensor) -> NDArray[np.float64]:
    """Points spread evenly over a scan, RAS mm: the middles of equal boxes."""
    axes = [(np.arange(_LATTICE) + 0.5) * n / _LATTICE - 0.5 for n in scan.shape[1:]]
    return voxel_to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1), scan.affine)
