"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped: headers by nibabel, voxels slab by slab."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike

from medrl.errors import MedrlError
from medrl.volume._checks import Loaded, check_grid, check_stored, reject_pixels
from medrl.volume._content import look, opened
from medrl.volume._nifti_place import fields_of, place
from medrl.volume._stored import fill, goes_on, skip

_REAL = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}
_OTHER = {128: "RGB", 2304: "RGBA", 32: "complex", 1792: "complex", 2048: "complex"}
_LONGEST_HEADER = 540
#: How the header of Analyze 7.5, the format before NIfTI, begins: with its length.
_ANALYZE = {(348).to_bytes(4, "little"), (348).to_bytes(4, "big")}


def load_nifti(path: Path, dtype: DTypeLike) -> Loaded:
    """Read a NIfTI file, the header mended and the affine taken as nibabel does.

    (MONAI's own choice can replace an sform by the qform when the header's voxel size agrees with
    that one only.)
    """
    gzips = look(path).gzips
    header = _stored_header(path, gzips)
    shape = _checked_shape(path, header)
    offset = _offset(path, header)
    needed = math.prod(shape) * np.dtype(header.get_data_dtype()).itemsize
    stored = path.stat().st_size - (0 if gzips else offset)
    check_stored(path, needed, max(0, stored), compressed=gzips)
    try:
        affine, remarks = place(header, shape)
        # (I, J, K), (I, J, K, C) or, as NIfTI stores vectors, (I, J, K, 1, C).
        voxels = np.empty((math.prod(shape[3:]), *shape[:3]), dtype=dtype)
        with opened(path, gzips, remarks) as read:
            skip(read, offset)
            fill(
                read,
                voxels.transpose(1, 2, 3, 0),
                header.get_data_dtype(),
                scaling=header.get_slope_inter(),
            )
            if goes_on(read):
                remarks.append("it holds more bytes than its header declares voxels for")
    except (MedrlError, HeaderDataError) as error:
        raise MedrlError(f"{path}: {error}") from error
    return Loaded(voxels, affine, remarks, {"nifti": fields_of(header)})


def _offset(path: Path, header: nib.Nifti1Header) -> int:
    """Where the voxels start; 0 is an old way to say right after the header."""
    least = int(header.single_vox_offset)
    offset = float(header["vox_offset"])
    if offset != 0 and not least <= offset < 2**62:
        raise MedrlError(f"{path}: its voxels cannot start at byte {offset:g}; export it anew")
    return int(offset) or least


def _checked_shape(path: Path, header: nib.Nifti1Header) -> tuple[int, ...]:
    """The grid, if it is one that medrl reads, of real numbers."""
    code = int(header["datatype"])
    if code in _OTHER:
        raise reject_pixels(path, _OTHER[code])
    if code not in _REAL:
        raise MedrlError(f"{path}: has an unknown voxel type (NIfTI code {code}); export it anew")
    dimensions = int(header["dim"][0])
    if not 1 <= dimensions <= 7:
        raise MedrlError(f"{path}: its NIfTI header is damaged (dim[0] is {dimensions})")
    shape = [int(n) for n in header["dim"][1 : dimensions + 1]]
    # Axes beyond the third that are not used may be 0.
    shape = shape[:3] + [n or 1 for n in shape[3:]]
    check_grid(path, shape, spatial=dimensions)
    if sum(n > 1 for n in shape[3:]) > 1:
        sizes = " x ".join(map(str, shape))
        raise MedrlError(f"{path}: has {dimensions} dimensions ({sizes}); medrl reads 3D and 4D")
    return tuple(shape)


def _stored_header(path: Path, gzips: int) -> nib.Nifti1Header:
    with opened(path, gzips) as read:
        start = read(_LONGEST_HEADER)
    second = start[4:7] in (b"n+2", b"ni2")
    kind = nib.Nifti2Header if second else nib.Nifti1Header
    magic = start[4:7] if second else start[344:347]
    if magic in (b"ni1", b"ni2"):
        raise MedrlError(f"{path}: is only the header of an .hdr/.img pair; convert it to one file")
    if start[:4] in _ANALYZE and magic not in (b"n+1", b"n+2"):
        raise MedrlError(
            f"{path}: is an Analyze header, which does not say where left and right are; convert "
            "the pair of .hdr and .img to NIfTI"
        )
    if magic not in (b"n+1", b"n+2"):
        raise MedrlError(f"{path}: is not a NIfTI file, whatever its name says")
    if len(start) < kind.sizeof_hdr:
        raise MedrlError(f"{path}: is truncated: its header is not whole; copy or export it again")
    return kind(start[: kind.sizeof_hdr], check=False)
