"""Where a NIfTI header says that a scan lies: sform, qform, voxel size and unit, and which counts.

Convention: a *form* is a 4x4 matrix, voxel to world, RAS; the taken one is in mm.
"""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from nibabel.quaternions import quat2mat
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume._checks import SHEARED
from medrl.volume.space import (
    apply_affine,
    as_affine,
    box_corners,
    is_sheared,
    same_grid,
    spacing_of,
)

Affine = NDArray[np.float64]

#: NIfTI's code of the spatial unit, and its length in mm; without a unit it is mm.
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_BITS = 7
#: A quaternion's vector may be longer than 1 by rounding.
_ROUNDED = 1e-3
#: Forms agree if nothing is apart by more than these shares of a voxel and of the scan: of a turn
#: by nearly 180 degrees float32 keeps no more.
_OF_A_VOXEL, _OF_THE_SCAN = 0.1, 5e-4
#: What a header says of the place of its grid.
_FIELDS = (
    *("pixdim", "qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def place(header: nib.Nifti1Header, shape: tuple[int, ...]) -> tuple[Affine, list[str]]:
    """Take a form, as nibabel does: the sform, else the qform, else voxel size alone.

    Args:
        header: As it is stored; it is mended as nibabel mends it.
        shape: The grid (I, J, K).

    Returns:
        Voxel to RAS mm, remarks for the user.

    Raises:
        MedrlError: If the header does not say where the scan lies, or only what cannot be.
    """
    remarks = _mend(header)
    unit = int(header["xyzt_units"]) & _UNIT_BITS
    if unit not in _MM:
        remarks.append(f"its unit of length ({unit}) is none of NIfTI's: mm taken")
    scale = np.diag([_MM.get(unit, 1.0)] * 3 + [1.0])
    sform, s_fault = _sform(header)
    qform, q_fault = _qform(header)
    if sform is not None:
        remarks += _compared(header, sform, qform, q_fault, shape, _MM.get(unit, 1.0))
        return scale @ sform, remarks
    if qform is not None:
        if s_fault:
            remarks.append(f"its sform {s_fault}: the qform was taken")
        return scale @ qform, remarks
    if s_fault or q_fault:
        faults = [f"its sform {s_fault}"] * bool(s_fault) + [f"its qform {q_fault}"] * bool(q_fault)
        raise MedrlError(f"{' and '.join(faults)}; mend its header")
    if not _usable(header["pixdim"][1:4]):
        raise MedrlError(
            f"its header gives no usable voxel size ({_text(header['pixdim'][1:4])}); write its "
            "sform or pixdim"
        )
    remarks.append(
        "the header does not say where left and right are (sform and qform are unset): the first "
        "axis is taken to run from right to left, as nibabel does; ITK and 3D Slicer place it "
        "differently"
    )
    return scale @ header.get_base_affine().astype(np.float64), remarks


def fields_of(header: nib.Nifti1Header) -> dict[str, NDArray[Any]]:
    """What a mended header says of the place of its grid, for files on the same grid."""
    found = {}
    for field in _FIELDS:
        value = np.asarray(header[field])
        found[field] = value.astype(value.dtype.newbyteorder("="))
    return found


def header_with(
    fields: dict[str, Any], affine: Affine, shape: tuple[int, ...]
) -> nib.Nifti1Header | None:
    """A header that lies where another file's does for every program, whichever form it takes.

    Args:
        fields: Of that file's header.
        affine: Voxel to RAS mm, where the new file is to lie.
        shape: Of its array.

    Returns:
        The header; None if the grid is another one than that of the fields.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    for field, value in fields.items():
        header[field] = np.asarray(value)
    unit = int(header["xyzt_units"]) & _UNIT_BITS or nib.nifti1.unit_codes["mm"]
    header["xyzt_units"] = unit
    try:
        form = header.get_best_affine().astype(np.float64)
    except (ValueError, HeaderDataError):
        return None
    own = np.diag([_MM.get(unit, 1.0)] * 3 + [1.0]) @ form
    return header if same_grid(own, affine, shape) else None


def _mend(header: nib.Nifti1Header) -> list[str]:
    """Mend in place what nibabel mends when it loads a file; what is worth knowing of it."""
    remarks = []
    sizes = np.array(header["pixdim"][1:4], dtype=np.float64)
    if (sizes < 0).any() and int(header["sform_code"]) <= 0:
        remarks.append(f"its voxel size is negative ({_text(sizes)}): its absolute value was taken")
    header["pixdim"][1:4] = np.abs(sizes)
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1
    for name in ("sform", "qform"):
        code = int(header[f"{name}_code"])
        if code not in nib.nifti1.xform_codes.code:
            header[f"{name}_code"] = 0
            remarks.append(f"its {name} was passed over: its code {code} is none of NIfTI's")
    return remarks


def _sform(header: nib.Nifti1Header) -> tuple[Affine | None, str]:
    """The sform if it is set and sound; what is wrong with one that is set."""
    if int(header["sform_code"]) <= 0:
        return None, ""
    return _sound(header.get_sform().astype(np.float64))


def _qform(header: nib.Nifti1Header) -> tuple[Affine | None, str]:
    """The qform if it is set and sound; what is wrong with one that is set."""
    if int(header["qform_code"]) <= 0:
        return None, ""
    size = np.array(header["pixdim"][1:4], dtype=np.float64)
    if not _usable(size):
        return None, f"has no usable voxel size ({_text(size)})"
    vector = np.array([header[f"quatern_{axis}"] for axis in "bcd"], dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if not length <= 1 + _ROUNDED:
        return None, "is no rotation (its quaternion is not of length 1)"
    if length > 1:
        vector /= length
    w = np.sqrt(max(0.0, 1 - float(vector @ vector)))
    form = np.eye(4)
    size[2] *= header["pixdim"][0]
    form[:3, :3] = quat2mat([w, *vector]) * size
    form[:3, 3] = [header[f"qoffset_{axis}"] for axis in "xyz"]
    return _sound(form)


def _usable(sizes: NDArray[np.floating[Any]]) -> bool:
    return bool(np.isfinite(sizes).all() and (sizes > 0).all())


def _sound(form: Affine) -> tuple[Affine | None, str]:
    if not np.isfinite(form).all():
        return None, "holds numbers that are NaN or infinite"
    try:
        return as_affine(form), ""
    except MedrlError:
        return None, "is singular: its axes do not span a volume"


def _compared(
    header: nib.Nifti1Header,
    sform: Affine,
    qform: Affine | None,
    q_fault: str,
    shape: tuple[int, ...],
    mm: float,
) -> list[str]:
    """What to know of a header whose sform is taken."""
    codes = f"sform (code {int(header['sform_code'])}) and qform (code {int(header['qform_code'])})"
    if qform is not None:
        apart = _apart(sform, qform, shape)
        if apart <= _tolerance(sform, shape):
            return []
        return [
            f"its {codes} disagree by up to {apart * mm:.3g} mm: the sform was taken, as nibabel "
            "does; masks and images on its grid carry both, but where a program takes the qform "
            "(mostly ITK and 3D Slicer), points and transforms do not lie on it"
        ]
    remarks = [f"its qform {q_fault}: the sform was taken"] if q_fault else []
    if is_sheared(sform):
        remarks.append(SHEARED)
    sizes, wanted = np.array(header["pixdim"][1:4], dtype=np.float64), spacing_of(sform)
    off = float(np.abs(sizes - wanted) @ shape[:3])
    if not q_fault and not off <= _tolerance(sform, shape):
        remarks.append(
            f"its voxel size (pixdim {_text(sizes)}) contradicts its sform ({_text(wanted)}): the "
            "sform was taken, as nibabel does; ITK and 3D Slicer take the former"
        )
    return remarks


def _apart(one: Affine, other: Affine, shape: tuple[int, ...]) -> float:
    """How far two forms bring a voxel apart at the most, in their unit."""
    corners = box_corners(np.zeros(3), np.array(shape[:3]) - 1)
    apart = apply_affine(one, corners) - apply_affine(other, corners)
    return float(np.linalg.norm(apart, axis=1).max())


def _tolerance(form: Affine, shape: tuple[int, ...]) -> float:
    size = spacing_of(form)
    extent = float(np.linalg.norm(size * shape[:3]))
    return max(_OF_A_VOXEL * float(size.min()), _OF_THE_SCAN * extent)


def _text(sizes: NDArray[np.floating[Any]]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
