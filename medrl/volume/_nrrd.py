"""NRRD: voxels slab by slab, and where the header says that they lie.

(pynrrd inflates whatever follows a header, a bomb too, opens any file that the header names, and
leaves units, `axis mins` and spaces with time to its caller.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from os import SEEK_END
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from medrl.errors import MedrlError
from medrl.volume._checks import Loaded, check_grid, check_stored, reject_pixels
from medrl.volume._nrrd_header import NrrdHeader, read_header
from medrl.volume._nrrd_place import place
from medrl.volume._stored import (
    Read,
    bzipped,
    chained,
    deflated,
    fill,
    goes_on,
    numbers,
    plain,
    skip,
)

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int"), "i2"),
    **dict.fromkeys(("int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int"), "u2"),
    **dict.fromkeys(("uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), "i8"),
    **dict.fromkeys(("signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int"), "u8"),
    **dict.fromkeys(("uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_LONGEST_LINE = 2**16
_COLOUR = {"rgb-color", "hsv-color", "xyz-color", "rgba-color", "3-color", "4-color"}
_TEXT = {"ascii", "text", "txt"}
_READERS: dict[str, Callable[[Read], Read]] = {
    "raw": lambda read: read,
    **dict.fromkeys(_TEXT, numbers),
    **dict.fromkeys(("gzip", "gz"), deflated),
    **dict.fromkeys(("bzip2", "bz2"), bzipped),
}
_SEGMENT = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer)")


class Segment(NamedTuple):
    """A segment of 3D Slicer's.

    Attributes:
        name: What it is called.
        value: Of its voxels.
        layer: The channel in which it lies: segments that overlap lie in several.
    """

    name: str
    value: int
    layer: int


def load_nrrd(path: Path, dtype: DTypeLike) -> Loaded:
    """Read a NRRD file; without a `space` field it is LPS, as ITK has it."""
    header = read_header(path)
    sizes = _sizes(header)
    spatial, affine, remarks = place(header, len(sizes))
    others = [axis for axis in range(len(sizes)) if axis not in spatial]
    check_grid(path, [sizes[a] for a in spatial + others], spatial=len(spatial))
    if sum(sizes[axis] > 1 for axis in others) > 1:
        raise MedrlError(f"{path}: has {len(sizes)} dimensions; medrl reads 3D and 4D scans")
    if {"oldmin", "oldmax"} & set(header.fields):
        remarks.append(
            "its values were other ones before they were quantized (old min, old max): they are "
            "taken as they are stored"
        )
    voxels = np.empty([sizes[axis] for axis in others + spatial], dtype=dtype)
    _fill(header, voxels.transpose(np.argsort(others + spatial)))
    voxels = voxels.reshape(-1, *voxels.shape[-3:])
    segments = _segments(header, len(voxels))
    facts = {} if segments is None else {"segments": segments}
    return Loaded(voxels, affine, remarks, facts)


def _sizes(header: NrrdHeader) -> list[int]:
    """Of the axes, the fastest first, once it is certain that voxels are real numbers."""
    path, fields = header.path, header.fields
    lacking = [key for key in ("sizes", "type", "encoding", "dimension") if key not in fields]
    if lacking:
        raise MedrlError(f"{path}: its NRRD header lacks {', '.join(lacking)}; export it anew")
    if fields["type"].lower() == "block":
        raise reject_pixels(path, "block")
    count = header.number("dimension", 0)
    sizes = header.numbers("sizes", count)
    if sizes is None or (sizes != np.rint(sizes)).any() or (np.abs(sizes) > 2**40).any():
        raise header.wrong("sizes")
    for kind in header.words("kinds", count):
        if kind in _COLOUR or "complex" in kind:
            raise reject_pixels(path, "complex" if "complex" in kind else "colour")
    return [int(n) for n in sizes]


def _fill(header: NrrdHeader, view: np.ndarray[Any, Any]) -> None:
    """Fill an array, its axes in the file's order, from the files with the voxels."""
    path = header.path
    encoding = header.fields["encoding"].lower()
    if encoding not in _READERS:
        raise MedrlError(f"{path}: has voxels in encoding {encoding!r}; write it as raw or gzip")
    number = np.dtype(np.float64) if encoding in _TEXT else _stored_type(header)
    share, rest = divmod(view.size, len(header.files))
    if rest:
        raise MedrlError(
            f"{path}: its {view.size} voxels cannot lie in {len(header.files)} files of one size; "
            "mend its header"
        )
    packed = encoding not in {"raw", *_TEXT}
    for file in header.files:
        needed = share * (1 if encoding in _TEXT else number.itemsize)
        check_stored(path, needed, file.stat().st_size - header.start, compressed=packed)
    try:
        read = chained(_parts(header, encoding, share * number.itemsize))
        fill(read, view, number)
        goes_on(read)
    except MedrlError as error:
        raise MedrlError(f"{path}: {error}") from error


def _parts(header: NrrdHeader, encoding: str, share: int) -> Iterator[tuple[Read, int]]:
    """What gives the voxels of each file, and how many bytes they are."""
    lines, count = header.number("lineskip", 0), header.number("byteskip", 0)
    if lines < 0 or count < -1 or (count < 0 and encoding != "raw"):
        raise MedrlError(f"its line skip of {lines} or byte skip of {count} cannot be; mend it")
    for file in header.files:
        with file.open("rb") as stream:
            stream.seek(header.start)
            _skip_lines(stream, lines)
            if count < 0:
                stream.seek(max(stream.tell(), stream.seek(0, SEEK_END) - share))
            read = _READERS[encoding](plain(stream))
            skip(read, count)
            yield read, share
            if goes_on(read):
                raise MedrlError("holds more voxels than its header declares; export it again")


def _skip_lines(stream: IO[bytes], count: int) -> None:
    for _ in range(count):
        if not stream.readline(_LONGEST_LINE):
            return


def _stored_type(header: NrrdHeader) -> np.dtype[Any]:
    """How a voxel is stored."""
    name = " ".join(header.fields["type"].lower().split())
    if name not in _TYPES:
        raise MedrlError(f"{header.path}: has voxels of an unknown type ({name!r}); export it anew")
    dtype = np.dtype(_TYPES[name])
    if dtype.itemsize == 1:
        return dtype
    endian = header.fields.get("endian", "").lower()
    if endian not in ("little", "big"):
        raise MedrlError(f"{header.path}: its header does not say its endian; export it anew")
    return dtype.newbyteorder("<" if endian == "little" else ">")


def _segments(header: NrrdHeader, layers: int) -> tuple[Segment, ...] | None:
    """The segments of a segmentation of 3D Slicer's, in order; None if it is none."""
    known: dict[int, dict[str, str]] = {}
    for key, value in header.pairs.items():
        if match := _SEGMENT.fullmatch(key):
            known.setdefault(int(match[1]), {})[match[2]] = value
    if not known:
        return () if "list" in header.words("kinds", header.number("dimension", 0)) else None
    try:
        found = tuple(
            Segment(
                fields.get("Name", f"Segment {number}"),
                # Without its value a segment of an older edition is 1 in a layer of its own.
                int(fields.get("LabelValue", 1)),
                int(fields.get("Layer", number if "LabelValue" not in fields else 0)),
            )
            for number, fields in sorted(known.items())
        )
    except ValueError:
        found = ()
    if not found or any(not 0 <= segment.layer < layers for segment in found):
        raise MedrlError(
            f"{header.path}: the label or layer of a segment cannot be; export it anew"
        )
    return found
