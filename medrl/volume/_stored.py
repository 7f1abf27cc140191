"""Voxels as files store them, brought into memory without trusting what the header says of them.

Memory is taken as voxels arrive: one slab of the file at a time, on top of the scan itself.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError

_BLOCK = 2**16
_CHUNK = 2**20
#: Voxels that are converted at a time, few enough for the processor's cache.
_SLAB = 2**19
#: Labels that were stored as fractions with a slope come back whole but for this.
_ROUNDING = 1e-3
_LARGEST = 2**63 - 1

#: Gives a number of bytes; fewer at the end.
Read = Callable[[int], bytes]


def data_file(path: Path, name: str) -> Path:
    """The file with the voxels that a header names.

    Raises:
        MedrlError: If it is not there, or not below the header's folder: a header that someone has
            sent must not choose what is read from this machine.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name or "\0" in name:
        raise MedrlError(
            f"{path}: says that its voxels lie outside of its folder; move them beside it and "
            "mend its header"
        )
    file = path.parent / name
    if not file.is_file():
        raise MedrlError(f"{path}: its voxels are in {file.name}, which is not there")
    return file


def plain(stream: IO[bytes]) -> Read:
    """Bytes as they are stored."""
    return stream.read


def deflated(stream: IO[bytes]) -> Read:
    """Bytes that zlib or gzip has deflated."""
    return _Parts(_inflate(stream)).read


def bzipped(stream: IO[bytes]) -> Read:
    """Bytes that bzip2 has packed."""
    return _Parts(_unzip(stream)).read


def numbers(stream: IO[bytes]) -> Read:
    """Numbers that are written as text, as float64."""
    return _Parts(_parse(stream)).read


def fill(
    read: Read,
    view: NDArray[Any],
    dtype: np.dtype[Any],
    *,
    scaling: tuple[float, float] | tuple[None, None] = (None, None),
) -> None:
    """Fill an array with voxels, slab after slab.

    Args:
        read: Gives the file's bytes.
        view: A view of the array whose axes are in the file's order, the fastest first; float32
            for intensities, int64 for labels, which come exactly as they are.
        dtype: How the file stores a voxel.
        scaling: Slope and intercept from what is stored to the voxel's value; None for none.

    Raises:
        MedrlError: If there are too few bytes, they cannot be inflated, or labels are no whole
            numbers.
    """
    view = view.squeeze()
    slope, inter = scaling
    plainly = (slope, inter) in ((1, 0), (None, None))
    row = math.prod(view.shape[:-1])
    step = max(1, _SLAB // row)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, view.shape[-1], step):
            part = view[..., first : first + step]
            content = _exactly(read, part.size * dtype.itemsize)
            stored = np.frombuffer(content, dtype).reshape(part.shape, order="F")
            values = stored if plainly else stored * np.float64(slope) + np.float64(inter)
            part[...] = values if view.dtype.kind == "f" else whole(values)


def whole(values: NDArray[Any]) -> NDArray[np.int64]:
    """Labels as int64.

    Raises:
        MedrlError: If some are no whole numbers, but for rounding, or do not fit.
    """
    if values.dtype.kind != "f":
        if values.dtype.itemsize == 8 and values.max(initial=0) > _LARGEST:
            raise MedrlError("holds labels above 2^63 - 1, more than medrl takes; number them anew")
        return values.astype(np.int64)
    nearest = np.rint(values)
    odd = ~(np.abs(values - nearest) < _ROUNDING)
    if odd.any():
        raise MedrlError(
            f"holds values that are no whole numbers, such as {values[odd][0]:g}: it is no label "
            "map; round or threshold it first"
        )
    if np.abs(nearest).max(initial=0) >= _LARGEST:
        raise MedrlError("holds labels beyond 2^63, more than medrl takes; number them anew")
    return nearest.astype(np.int64)


def skip(read: Read, count: int) -> None:
    """Leave out so many bytes.

    Raises:
        MedrlError: If there are fewer.
    """
    while count > 0:
        count -= len(_exactly(read, min(count, _CHUNK)))


def _exactly(read: Read, count: int) -> bytes:
    try:
        content = read(count)
    except EOFError:
        content = b""
    except (zlib.error, OSError) as error:
        raise MedrlError("its compressed voxels are damaged; copy or export it again") from error
    if len(content) < count:
        raise MedrlError("is truncated: voxels are missing at its end; copy or export it again")
    return content


class _Parts:
    """Parts of any size, read as a file is."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = memoryview(b"")

    def read(self, count: int) -> bytes:
        """So many bytes; fewer at the end."""
        out = bytearray()
        while len(out) < count:
            if not self._rest:
                part = next(self._parts, b"")
                if not part:
                    break
                self._rest = memoryview(part)
            taken = self._rest[: count - len(out)]
            out += taken
            self._rest = self._rest[len(taken) :]
        return bytes(out)


def _inflate(stream: IO[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    while not inflater.eof:
        block = inflater.unconsumed_tail or stream.read(_BLOCK)
        part = inflater.decompress(block, _CHUNK)
        if not part and not block:
            return
        if part:
            yield part


def _unzip(stream: IO[bytes]) -> Iterator[bytes]:
    inflater = bz2.BZ2Decompressor()
    while not inflater.eof:
        block = stream.read(_BLOCK) if inflater.needs_input else b""
        if inflater.needs_input and not block:
            return
        if part := inflater.decompress(block, _CHUNK):
            yield part


def _parse(stream: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while True:
        block = stream.read(_BLOCK)
        text = rest + block
        # The last word may go on in the next block; none is longer than this.
        cut = (
            max(text.rfind(white) for white in (b" ", b"\n", b"\t", b"\r")) + 1
            if block
            else len(text)
        )
        words, rest = text[:cut].split(), text[cut:]
        if len(rest) > 400:
            raise MedrlError("its voxels are not the numbers that its header announces")
        try:
            values = np.array([float(word) for word in words], dtype=np.float64)
        except ValueError as error:
            raise MedrlError("its voxels are not the numbers that its header announces") from error
        if len(values):
            yield values.tobytes()
        if not block:
            return
