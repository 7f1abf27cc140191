"""MetaImage (.mha, .mhd), slab by slab.

(MetaIO, through MONAI's ITKReader, writes its complaints to the terminal from C++, opens any file
that a header names, and trusts lengths that a header gives.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from medrl.errors import MedrlError
from medrl.volume._checks import check_grid, check_stored, reject_pixels
from medrl.volume._stored import data_file, deflated, fill, numbers, plain
from medrl.volume.space import LPS_FROM_RAS

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_LONGEST_HEADER = 2**16
_YES = ("true", "1")


@dataclass(frozen=True)
class _Layout:
    """What a header says.

    Attributes:
        shape: Grid, the fastest axis first, channels left out.
        channels: Of each voxel; stored next to each other.
        affine: Voxel to RAS mm.
        dtype: How a number is stored.
        text: Whether the numbers are written as text.
        compressed: Whether they are deflated.
        file: Where they are.
        start: Offset of the first.
    """

    shape: tuple[int, ...]
    channels: int
    affine: NDArray[np.float64]
    dtype: np.dtype[Any]
    text: bool
    compressed: bool
    file: Path
    start: int


def load_metaimage(
    path: Path, dtype: DTypeLike = np.float32
) -> tuple[NDArray[np.generic], NDArray[np.float64], list[str]]:
    """Read a MetaImage, as ITK does.

    Returns:
        Voxels (C, I, J, K), affine (voxel to RAS mm), remarks for the user.
    """
    layout = _layout(path)
    times = layout.shape[3] if len(layout.shape) == 4 else 1
    voxels = np.empty((layout.channels * times, *layout.shape[:3]), dtype=dtype)
    # Channels are the fastest axis of a file, times the slowest.
    view = voxels.transpose(1, 2, 3, 0) if times > 1 else voxels
    open_voxels = numbers if layout.text else deflated if layout.compressed else plain
    with layout.file.open("rb") as stream:
        stream.seek(layout.start)
        read = open_voxels(stream)
        try:
            fill(read, view, layout.dtype)
            more = layout.compressed and read(1)
        except MedrlError as error:
            raise MedrlError(f"{path}: {error}") from error
    if more:
        raise MedrlError(f"{path}: holds more voxels than its header declares; export it again")
    return voxels, layout.affine, []


def _layout(path: Path) -> _Layout:
    """Read the header and check it, and that the voxels that it declares can be there."""
    header, start = _header(path)
    try:
        shape = [int(n) for n in header["DimSize"].split()]
        element = _TYPES.get(header["ElementType"])
        channels = int(header.get("ElementNumberOfChannels", "1"))
        file = header["ElementDataFile"]
        matrix = _floats(header, "TransformMatrix", "Rotation", "Orientation")
        spacing = _floats(header, "ElementSpacing", "ElementSize") or [1.0] * len(shape)
        offset = _floats(header, "Offset", "Position", "Origin") or [0.0] * len(shape)
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
    if len(spacing) != len(shape) or any(not math.isfinite(x) or x <= 0 for x in spacing):
        raise MedrlError(f"{path}: its voxel size {spacing} is not usable; mend its header")
    affine = _affine(path, matrix or np.eye(len(shape)).ravel().tolist(), spacing, offset)

    text = header.get("BinaryData", "True").lower() not in _YES
    compressed = header.get("CompressedData", "False").lower() in _YES
    if text and compressed:
        raise MedrlError(f"{path}: has voxels that are compressed text; export it anew")
    msb = header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB", "False"))
    dtype = np.dtype("f8") if text else np.dtype(f"{'>' if msb.lower() in _YES else '<'}{element}")
    needed = math.prod(shape) * channels * (1 if text else dtype.itemsize)
    if file.upper() == "LOCAL":
        data = path
    elif file.startswith("LIST") or "%" in file:
        raise MedrlError(f"{path}: its voxels are in many files; convert it to one .mha")
    else:
        data = data_file(path, file)
        # -1: the voxels end where the file ends.
        start = max(0, data.stat().st_size - needed) if skip == -1 else max(0, skip)
    check_stored(path, needed, max(0, data.stat().st_size - start), compressed=compressed)
    return _Layout(tuple(shape), channels, affine, dtype, text, compressed, data, start)


def _floats(header: dict[str, str], *keys: str) -> list[float]:
    """The numbers of the first of some fields that is there."""
    return next(([float(x) for x in header[key].split()] for key in keys if key in header), [])


def _affine(
    path: Path, matrix: list[float], spacing: list[float], offset: list[float]
) -> NDArray[np.float64]:
    """Voxel to RAS mm; a row of the matrix is the direction of an axis, LPS."""
    count = len(spacing)
    if len(matrix) != count**2 or len(offset) != count:
        raise MedrlError(f"{path}: its TransformMatrix or Offset does not fit its axes; mend it")
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(matrix, (count, count))[:3, :3].T * spacing[:3]
    lps[:3, 3] = offset[:3]
    if not abs(np.linalg.det(np.reshape(matrix, (count, count)))) > 1e-6:
        raise MedrlError(f"{path}: its TransformMatrix is singular; mend its header")
    return LPS_FROM_RAS @ lps


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
