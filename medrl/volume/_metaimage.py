"""MetaImage (.mha, .mhd) through MONAI's ITKReader."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
from monai.data.image_reader import ITKReader
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume._checks import check_grid, check_stored, reject_pixels

_BYTES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}
_LONGEST_HEADER = 2**16
_CHUNK = 2**22


def load_metaimage(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64], list[str]]:
    """Read a MetaImage.

    Everything is checked first: MetaIO writes its complaints to the terminal from C++.

    Returns:
        Voxels (C, I, J, K), affine (voxel to RAS mm), remarks for the user.
    """
    _check(path)
    import itk  # seconds to load, and needed for this format only

    shown = itk.Object.GetGlobalWarningDisplay()
    itk.Object.SetGlobalWarningDisplay(False)
    try:
        reader = ITKReader()
        array, meta = reader.get_data(reader.read(path))
    finally:
        itk.Object.SetGlobalWarningDisplay(shown)
    affine = np.asarray(meta["affine"], dtype=np.float64)
    return np.moveaxis(array.reshape(*array.shape[:3], -1), -1, 0), affine, []


def _check(path: Path) -> None:
    """Check the header, and that every voxel that it declares is stored."""
    header, start = _header(path)
    try:
        shape = [int(n) for n in header["DimSize"].split()]
        element = _BYTES.get(header["ElementType"])
        channels = int(header.get("ElementNumberOfChannels", "1"))
        file = header["ElementDataFile"]
        matrix = [float(x) for x in header.get("TransformMatrix", "").split()]
        spacing = [float(x) for x in header.get("ElementSpacing", "").split()]
        skip = int(header.get("HeaderSize", "0"))
        declared = int(header["NDims"])
    except (KeyError, ValueError) as error:
        raise MedrlError(f"{path}: its MetaImage header is damaged ({error}); export it") from error
    if element is None:
        raise MedrlError(f"{path}: has voxels of an unknown type ({header['ElementType']})")
    if declared != len(shape):
        raise MedrlError(f"{path}: its header gives NDims {declared} and {len(shape)} sizes")
    if header["ElementType"] == "MET_UCHAR" and channels in (3, 4):
        raise reject_pixels(path, "colour")
    check_grid(path, [*shape, channels], spatial=min(len(shape), 3))
    if len(shape) > 4 or (len(shape) == 4 and channels > 1):
        raise MedrlError(f"{path}: has more than 4 dimensions; medrl reads 3D and 4D scans")
    if any(not math.isfinite(x) or x <= 0 for x in spacing):
        raise MedrlError(f"{path}: its voxel size {spacing} is not usable; mend its header")
    if len(matrix) == len(shape) ** 2:
        determinant = np.linalg.det(np.reshape(matrix, (len(shape), len(shape))))
        if not abs(determinant) > 1e-6:
            raise MedrlError(f"{path}: its TransformMatrix is singular; mend its header")

    needed = math.prod(shape) * channels * element
    if file.upper() == "LOCAL":
        data = path
    elif file.startswith("LIST") or "%" in file:
        raise MedrlError(f"{path}: its voxels are in many files; convert it to one .mha")
    else:
        data, start = path.parent / file, max(0, skip)
        if not data.is_file():
            raise MedrlError(f"{path}: its voxels are in {file}, which is not there")
    compressed = header.get("CompressedData", "False").lower() in ("true", "1")
    check_stored(path, needed, data.stat().st_size - start, compressed=compressed)
    if compressed and _inflated(data, start, needed) != needed:
        raise MedrlError(f"{path}: is truncated or damaged; copy or export it again")


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Header fields and the offset at which they end."""
    with path.open("rb") as stream:
        start = stream.read(_LONGEST_HEADER)
    fields: dict[str, str] = {}
    offset = 0
    for line in start.splitlines(keepends=True):
        offset += len(line)
        key, separator, value = line.decode("latin-1").partition("=")
        if not separator:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields, offset
    if not {"NDims", "DimSize"} & set(fields):
        raise MedrlError(f"{path}: is not a MetaImage file, whatever its name says")
    raise MedrlError(f"{path}: its MetaImage header has no end (ElementDataFile); export it anew")


def _inflated(data: Path, start: int, needed: int) -> int:
    """Size of the deflated voxels, counted to at most one chunk more than is needed."""
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    total = 0
    with data.open("rb") as stream:
        stream.seek(start)
        while total <= needed and not inflate.eof:
            block = inflate.unconsumed_tail or stream.read(_CHUNK)
            if not block:
                break
            try:
                total += len(inflate.decompress(block, _CHUNK))
            except zlib.error:
                break
    return total
