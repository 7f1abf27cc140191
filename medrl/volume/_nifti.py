"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped: headers by nibabel, voxels slab by slab."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import IO, cast

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike, NDArray

from medrl.errors import MedrlError
from medrl.volume._checks import check_grid, check_stored, reject_pixels
from medrl.volume._stored import fill, skip

_REAL = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}
_OTHER = {128: "RGB", 2304: "RGBA", 32: "complex", 1792: "complex", 2048: "complex"}
#: NIfTI's code of the spatial unit, and its length in mm; without a unit it is mm.
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


def load_nifti(
    path: Path, dtype: DTypeLike = np.float32
) -> tuple[NDArray[np.generic], NDArray[np.float64], list[str]]:
    """Read a NIfTI file.

    The affine is nibabel's: the sform, else the qform. (MONAI's own choice can replace an sform
    by the qform when the header's voxel size agrees with that one only.)

    Returns:
        Voxels (C, I, J, K), affine (voxel to RAS mm), remarks for the user.
    """
    header, shape, remarks = _check_header(path)
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= _MM.get(int(header["xyzt_units"]) & 7, 1.0)
    # (I, J, K), (I, J, K, C) or, as NIfTI stores vectors, (I, J, K, 1, C).
    voxels = np.empty((math.prod(shape[3:]), *shape[:3]), dtype=dtype)
    with _open(path) as stream:
        try:
            skip(stream.read, _offset(header))
            fill(
                stream.read,
                voxels.transpose(1, 2, 3, 0),
                header.get_data_dtype(),
                scaling=header.get_slope_inter(),
            )
            # At the end of a gzip file its checksum is compared.
            stream.read(1)
        except (MedrlError, OSError, EOFError) as error:
            text = error if isinstance(error, MedrlError) else "is damaged; copy or export it again"
            raise MedrlError(f"{path}: {text}") from error
    return voxels, affine, remarks


def _open(path: Path) -> IO[bytes]:
    opened = gzip.GzipFile(path) if path.name.lower().endswith(".gz") else path.open("rb")
    return cast(IO[bytes], opened)


def _offset(header: nib.Nifti1Header) -> int:
    """Where the voxels start; 0 is an old way to say right after the header."""
    least = int(header.single_vox_offset)
    offset = float(header["vox_offset"])
    if offset != 0 and not least <= offset < 2**62:
        raise MedrlError(f"its voxels cannot start at byte {offset:g}; export it anew")
    return int(offset) or least


def _check_header(path: Path) -> tuple[nib.Nifti1Header, list[int], list[str]]:
    """Check the header as it is stored, before nibabel mends it and before any voxel is read."""
    compressed = path.name.lower().endswith(".gz")
    header = _stored_header(path)
    code = int(header["datatype"])
    if code in _OTHER:
        raise reject_pixels(path, _OTHER[code])
    if code not in _REAL:
        raise MedrlError(f"{path}: has an unknown voxel type (NIfTI code {code}); export it anew")

    dimensions = int(header["dim"][0])
    if not 1 <= dimensions <= 7:
        raise MedrlError(f"{path}: its NIfTI header is damaged (dim[0] is {dimensions})")
    shape = [int(n) for n in header["dim"][1 : dimensions + 1]]
    check_grid(path, shape, spatial=dimensions)
    if sum(n > 1 for n in shape[3:]) > 1:
        sizes = " x ".join(map(str, shape))
        raise MedrlError(f"{path}: has {dimensions} dimensions ({sizes}); medrl reads 3D and 4D")
    needed = math.prod(shape) * np.dtype(header.get_data_dtype()).itemsize
    size = path.stat().st_size
    offset = 0 if compressed else _offset(header)
    check_stored(path, needed, max(0, size - offset), compressed=compressed)

    remarks = []
    if int(header["sform_code"]) <= 0:
        spacing = header["pixdim"][1:4]
        if not np.isfinite(spacing).all() or (spacing == 0).any():
            raise MedrlError(
                f"{path}: its header gives no usable voxel size ({spacing.tolist()} mm); "
                "write its sform or pixdim"
            )
        if int(header["qform_code"]) <= 0:
            remarks.append(
                "the header does not say where left and right are (sform and qform are unset): "
                "the first axis is taken to run from right to left"
            )
    return header, shape, remarks


def _stored_header(path: Path) -> nib.Nifti1Header:
    with _open(path) as stream:
        start = stream.read(4)
        sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
        stream.seek(0)
        kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
        if len(start) < 4 or not sizes & {348, 540}:
            raise MedrlError(f"{path}: is not a NIfTI file, whatever its name says")
        header = kind.from_fileobj(stream, check=False)
    magic = bytes(header["magic"].item())[:3]
    if magic in (b"ni1", b"ni2"):
        raise MedrlError(f"{path}: is only the header of an .hdr/.img pair; convert it to one file")
    if magic not in (b"n+1", b"n+2"):
        raise MedrlError(f"{path}: is not a NIfTI file, whatever its name says")
    return header
