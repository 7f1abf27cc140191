"""NRRD: the header by pynrrd, the voxels slab by slab.

(pynrrd inflates whatever follows a header, a bomb too, and opens any file that the header names.)
"""

from __future__ import annotations

import math
from os import SEEK_END
from pathlib import Path
from typing import IO, Any

import nrrd
import numpy as np
from numpy.typing import DTypeLike, NDArray

from medrl.errors import MedrlError
from medrl.volume._checks import check_grid, check_stored, reject_pixels
from medrl.volume._stored import Read, bzipped, data_file, deflated, fill, numbers, plain, skip
from medrl.volume.space import LPS_FROM_RAS

#: What takes a NRRD space to RAS, by the space's long and short name.
_TO_RAS = {
    "right-anterior-superior": np.eye(4),
    "ras": np.eye(4),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "las": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "left-posterior-superior": LPS_FROM_RAS,
    "lps": LPS_FROM_RAS,
}
_LONGEST_LINE = 2**16
_COLOUR = {"rgb-color", "hsv-color", "xyz-color", "rgba-color", "3-color", "4-color"}
_TEXT = {"ascii", "text", "txt"}
_READERS = {
    "raw": plain,
    **dict.fromkeys(_TEXT, numbers),
    **dict.fromkeys(("gzip", "gz"), deflated),
    **dict.fromkeys(("bzip2", "bz2"), bzipped),
}


def load_nrrd(
    path: Path, dtype: DTypeLike = np.float32
) -> tuple[NDArray[np.generic], NDArray[np.float64], list[str]]:
    """Read a NRRD file; without a `space` field it is LPS, as ITK has it.

    Returns:
        Voxels (C, I, J, K), affine (voxel to RAS mm), remarks for the user.
    """
    header, file, start = _read_header(path)
    spatial = _spatial_axes(path, header)
    sizes = [int(n) for n in header["sizes"]]
    others = [axis for axis in range(len(sizes)) if axis not in spatial]
    check_grid(path, [sizes[a] for a in spatial + others], spatial=len(spatial))
    if len(others) > 1:
        raise MedrlError(f"{path}: has {len(sizes)} dimensions; medrl reads 3D and 4D scans")
    affine = _affine(path, header, spatial)
    encoding = str(header["encoding"]).lower()
    if encoding not in _READERS:
        raise MedrlError(f"{path}: has voxels in encoding {encoding!r}; write it as raw or gzip")
    number = np.dtype(np.float64) if encoding in _TEXT else _stored_type(header)
    needed = math.prod(sizes) * (1 if encoding in _TEXT else number.itemsize)
    stored = file.stat().st_size - start
    check_stored(path, needed, stored, compressed=encoding not in {"raw", *_TEXT})

    voxels = np.empty([sizes[axis] for axis in others + spatial] or [0], dtype=dtype)
    with file.open("rb") as stream:
        stream.seek(start)
        _skip_lines(stream, header)
        read = _READERS[encoding](stream)
        _skip_bytes(path, header, read, stream, needed if encoding == "raw" else None)
        try:
            fill(read, voxels.transpose(np.argsort(others + spatial)), number)
            more = read(1)
        except MedrlError as error:
            raise MedrlError(f"{path}: {error}") from error
    if more:
        raise MedrlError(f"{path}: holds more voxels than its header declares; export it again")

    space = str(header.get("space", "")).lower()
    remarks = []
    if space not in _TO_RAS:
        remarks.append(f"the header names {f'space {space!r}' if space else 'no space'}: LPS taken")
    affine = _TO_RAS.get(space, LPS_FROM_RAS) @ affine
    return voxels if others else voxels[None], affine, remarks


def _read_header(path: Path) -> tuple[dict[str, Any], Path, int]:
    """The header, the file with the voxels, and where they start in it."""
    with path.open("rb") as stream:
        if stream.read(4) != b"NRRD":
            raise MedrlError(f"{path}: is not a NRRD file, whatever its name says")
        stream.seek(0)
        header: dict[str, Any] = dict(nrrd.read_header(stream))
        start = stream.tell()
    missing = [key for key in ("sizes", "type", "encoding", "dimension") if key not in header]
    if missing:
        raise MedrlError(f"{path}: its NRRD header lacks {', '.join(missing)}; export it anew")
    if header["type"] == "block":
        raise reject_pixels(path, "block")
    if len(header["sizes"]) != header["dimension"]:
        raise MedrlError(f"{path}: its header gives {len(header['sizes'])} sizes; export it anew")
    data = header.get("data file", header.get("datafile"))
    if data is None:
        return header, path, start
    return header, data_file(path, str(data)), 0


def _stored_type(header: dict[str, Any]) -> np.dtype[Any]:
    """How a voxel is stored."""
    dtype: np.dtype[Any] = nrrd.reader._determine_datatype(header)
    return dtype


def _skip_lines(stream: IO[bytes], header: dict[str, Any]) -> None:
    for _ in range(int(header.get("line skip", header.get("lineskip", 0)))):
        if not stream.readline(_LONGEST_LINE):
            return


def _skip_bytes(
    path: Path, header: dict[str, Any], read: Read, stream: IO[bytes], raw: int | None
) -> None:
    """Go to the first voxel; `raw` is how many bytes there are if they are plain."""
    count = int(header.get("byte skip", header.get("byteskip", 0)))
    if count == -1 and raw is not None:
        stream.seek(max(stream.tell(), stream.seek(0, SEEK_END) - raw))
    elif count < 0:
        raise MedrlError(f"{path}: its byte skip of {count} cannot be; export it anew")
    elif count:
        try:
            skip(read, count)
        except MedrlError as error:
            raise MedrlError(f"{path}: {error}") from error


def _spatial_axes(path: Path, header: dict[str, Any]) -> list[int]:
    """Array axes that are directions in space: those that have one."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    for kind in kinds:
        if kind in _COLOUR or "complex" in kind:
            raise reject_pixels(path, "complex" if "complex" in kind else "colour")
    count = int(header["dimension"])
    directions = header.get("space directions")
    if directions is not None:
        rows = np.array([[np.nan] * 3 if row is None else row for row in directions], dtype=float)
        axes = [axis for axis, row in enumerate(rows) if np.isfinite(row).all()]
        if rows.shape == (count, 3):
            return axes
        check_grid(path, [int(n) for n in header["sizes"]], spatial=rows.shape[-1])
        raise MedrlError(f"{path}: its space directions do not fit its axes; export it anew")
    if count <= 3:
        return list(range(count))
    named = [axis for axis, kind in enumerate(kinds) if kind in ("domain", "space")]
    if len(named) != 3:
        raise MedrlError(f"{path}: its header does not say which axes are spatial; export it anew")
    return named


def _affine(path: Path, header: dict[str, Any], spatial: list[int]) -> NDArray[np.float64]:
    """Voxel to the header's own space."""
    affine = np.eye(4)
    directions = header.get("space directions")
    if directions is not None:
        affine[:3, :3] = np.array([directions[axis] for axis in spatial], dtype=np.float64).T
    elif header.get("spacings") is not None:
        spacings = np.asarray(header["spacings"], dtype=np.float64)
        affine[:3, :3] = np.diag(spacings[spatial])
    origin = header.get("space origin")
    if origin is not None:
        if np.shape(origin) != (3,):
            raise MedrlError(f"{path}: its space origin is not three numbers; mend its header")
        affine[:3, 3] = origin
    return affine
