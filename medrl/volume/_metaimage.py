"""MetaImage (.mha, .mhd), slab by slab.

(MetaIO, through MONAI's ITKReader, writes its complaints to the terminal from C++, opens any file
that a header names, trusts lengths that a header gives, and passes over units and slopes.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from medrl.errors import MedrlError
from medrl.volume._checks import Loaded, check_grid, check_stored, in_mm, reject_pixels
from medrl.volume._data_files import files_listed, files_named, is_list
from medrl.volume._stored import Read, chained, deflated, fill, goes_on, numbers, plain
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
_LONGEST_LIST = 2**24
_FIELD = re.compile(r"\s*([A-Za-z0-9_]+)\s*[=:](.*)", re.DOTALL)
_YES = ("true", "1")
#: From where an axis runs, by the letter of AnatomicalOrientation: its direction in LPS.
_RUNS_FROM = {
    **{"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0)},
    **{"P": (0, -1, 0), "I": (0, 0, 1), "S": (0, 0, -1)},
}
#: Least cosine between a stated and a real direction that are the same up to obliqueness.
_ALIKE = 0.3


@dataclass(frozen=True)
class _Layout:
    """What a header says.

    Attributes:
        shape: Grid, the fastest axis first, channels left out.
        channels: Of each voxel; stored next to each other.
        affine: Voxel to RAS mm.
        remarks: What the user should know.
        scaling: Slope and intercept of the values.
        dtype: How a number is stored.
        text: Whether the numbers are written as text.
        compressed: Whether they are deflated.
        files: Where they are.
        start: Offset of the first in a file; None if the voxels end where the file ends.
    """

    shape: tuple[int, ...]
    channels: int
    affine: NDArray[np.float64]
    remarks: list[str]
    scaling: tuple[float, float]
    dtype: np.dtype[Any]
    text: bool
    compressed: bool
    files: tuple[Path, ...]
    start: int | None

    @property
    def share(self) -> int:
        """Numbers in each file."""
        return math.prod(self.shape) * self.channels // len(self.files)


def load_metaimage(path: Path, dtype: DTypeLike) -> Loaded:
    """Read a MetaImage: where ITK uses what its header says, as ITK does."""
    layout = _layout(path)
    times = layout.shape[3] if len(layout.shape) == 4 else 1
    voxels = np.empty((layout.channels * times, *layout.shape[:3]), dtype=dtype)
    # Channels are the fastest axis of a file, times the slowest.
    view = voxels.transpose(1, 2, 3, 0) if times > 1 else voxels
    try:
        read = chained(_parts(layout))
        fill(read, view, layout.dtype, scaling=layout.scaling)
        goes_on(read)
    except MedrlError as error:
        raise MedrlError(f"{path}: {error}") from error
    return Loaded(voxels, layout.affine, layout.remarks, {})


def _parts(layout: _Layout) -> Iterator[tuple[Read, int]]:
    """What gives the voxels of each file, and how many bytes they are."""
    share = layout.share * layout.dtype.itemsize
    for file in layout.files:
        start = layout.start
        if start is None:
            start = max(0, file.stat().st_size - share)
        with file.open("rb") as stream:
            stream.seek(start)
            read = plain(stream)
            read = numbers(read) if layout.text else deflated(read) if layout.compressed else read
            yield read, share
            if layout.compressed and goes_on(read):
                raise MedrlError("holds more voxels than its header declares; export it again")


def _layout(path: Path) -> _Layout:
    """Read the header and check it, and that the voxels that it declares can be there."""
    header, end, names = _header(path)
    try:
        shape = [int(n) for n in header["DimSize"].split()]
        element = _TYPES.get(header["ElementType"])
        channels = int(header.get("ElementNumberOfChannels", "1"))
        data = header["ElementDataFile"]
        skip = int(header.get("HeaderSize", "0"))
        declared = int(header["NDims"])
        slope = float(header.get("ElementToIntensityFunctionSlope", "1"))
        offset = float(header.get("ElementToIntensityFunctionOffset", "0"))
        affine, remarks = _place(path, header, len(shape))
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
    if not (math.isfinite(slope) and math.isfinite(offset)) or slope == 0:
        raise MedrlError(f"{path}: its ElementToIntensityFunction cannot be; mend its header")
    if (slope, offset) != (1, 0):
        remarks.append(
            f"its values are {slope:g} times what is stored, plus {offset:g}, as its "
            "ElementToIntensityFunction says; ITK and 3D Slicer show what is stored"
        )

    text = header.get("BinaryData", "True").lower() not in _YES
    compressed = header.get("CompressedData", "False").lower() in _YES
    if text and compressed:
        raise MedrlError(f"{path}: has voxels that are compressed text; export it anew")
    msb = header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB", "False"))
    dtype = np.dtype("f8") if text else np.dtype(f"{'>' if msb.lower() in _YES else '<'}{element}")
    files, start = _where(path, data, names, skip, end)
    layout = _Layout(
        tuple(shape),
        channels,
        affine,
        remarks,
        (slope, offset),
        dtype,
        text,
        compressed,
        files,
        start,
    )
    if layout.share * len(files) != math.prod(shape) * channels:
        raise MedrlError(
            f"{path}: its voxels cannot lie in {len(files)} files of one size; mend it"
        )
    for file in files:
        needed = layout.share * (1 if text else dtype.itemsize)
        check_stored(path, needed, file.stat().st_size - (start or 0), compressed=compressed)
    return layout


def _where(
    path: Path, data: str, names: list[str], skip: int, end: int
) -> tuple[tuple[Path, ...], int | None]:
    """The files with the voxels, and where they start in one; None: so that they end with it."""
    if skip < -1:
        raise MedrlError(f"{path}: its HeaderSize of {skip} cannot be; mend its header")
    if data.upper() == "LOCAL":
        if 0 < skip < end:
            raise MedrlError(f"{path}: its HeaderSize of {skip} lies in its header; mend it")
        return (path,), None if skip == -1 else max(end, skip)
    files = files_listed(path, names) if is_list(data) else files_named(path, data)
    return files, None if skip == -1 else skip


def _place(path: Path, header: dict[str, str], count: int) -> tuple[NDArray[np.float64], list[str]]:
    """Voxel to RAS mm, and what to know of it; a row of the matrix is the direction of an axis."""
    matrix = np.array(_floats(header, "TransformMatrix", "Rotation", "Orientation"))
    spacing = _floats(header, "ElementSpacing", "ElementSize") or [1.0] * count
    offset = _floats(header, "Offset", "Position", "Origin") or [0.0] * count
    matrix = matrix if matrix.size else np.eye(count).ravel()
    # As for ITK, an axis of negative voxel size runs the other way.
    if len(spacing) != count or any(not math.isfinite(x) or x == 0 for x in spacing):
        raise MedrlError(f"{path}: its voxel size {spacing} is not usable; mend its header")
    if len(matrix) != count**2 or len(offset) != count:
        raise MedrlError(f"{path}: its TransformMatrix or Offset does not fit its axes; mend it")
    axes = matrix.reshape(count, count)
    if not abs(np.linalg.det(axes)) > 1e-6:
        raise MedrlError(f"{path}: its TransformMatrix is singular; mend its header")
    lps = np.eye(4)
    if count < 3:
        return lps, []
    lps[:3, :3] = axes[:3, :3].T * spacing[:3]
    lps[:3, 3] = offset[:3]
    stated = header.get("AnatomicalOrientation", "").upper()[:3]
    remarks = []
    if len(stated) == 3 and set(stated) <= set(_RUNS_FROM):
        real = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
        cosines = [real[:, axis] @ _RUNS_FROM[letter] for axis, letter in enumerate(stated)]
        if min(cosines) < _ALIKE:
            remarks.append(
                f"its AnatomicalOrientation ({stated}) contradicts its TransformMatrix: that one "
                "was taken, as ITK does"
            )
    if any(_floats(header, "CenterOfRotation")):
        remarks.append("its CenterOfRotation was passed over, as ITK does")
    unit = header.get("DistanceUnits", "?").strip().strip("?").lower()
    scaled, more = in_mm(path, lps, [unit] * 3)
    return LPS_FROM_RAS @ scaled, remarks + more


def _floats(header: dict[str, str], *keys: str) -> list[float]:
    """The numbers of the first of some fields that is there."""
    return next(([float(x) for x in header[key].split()] for key in keys if key in header), [])


def _header(path: Path) -> tuple[dict[str, str], int, list[str]]:
    """Header fields, the offset at which they end, and the files that are listed there."""
    with path.open("rb") as stream:
        start = stream.read(_LONGEST_HEADER)
        fields: dict[str, str] = {}
        offset = 0
        for line in start.splitlines(keepends=True):
            offset += len(line)
            match = _FIELD.fullmatch(line.decode("latin-1"))
            if match is None:
                break
            fields[match[1]] = match[2].strip()
            if match[1] == "ElementDataFile":
                names: list[str] = []
                if is_list(fields[match[1]]):
                    stream.seek(offset)
                    rest = stream.read(_LONGEST_LIST).decode("utf-8", "replace")
                    names = [name.strip() for name in rest.splitlines() if name.strip()]
                return fields, offset, names
    if not {"NDims", "DimSize"} & set(fields):
        raise MedrlError(f"{path}: is not a MetaImage file, whatever its name says")
    raise MedrlError(f"{path}: its MetaImage header has no end (ElementDataFile); export it anew")
