"""Voxels as files store them, brought into memory without trusting what the header says of them.

Memory is taken as voxels arrive: one slab of the file at a time, on top of the scan itself.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError

_BLOCK = 2**16
_CHUNK = 2**20
#: Voxels that are converted at a time, few enough for the processor's cache.
_SLAB = 2**19
_ROUNDING = 1e-3
_LARGEST = 2**63 - 1
_GZIP = b"\x1f\x8b"

#: Gives a number of bytes; fewer at the end.
Read = Callable[[int], bytes]


def plain(stream: IO[bytes]) -> Read:
    """Bytes as they are stored."""
    return stream.read


def deflated(read: Read, remarks: list[str] | None = None) -> Read:
    """Bytes that zlib or gzip has deflated, in one stream or in several.

    Args:
        read: Gives the deflated bytes.
        remarks: Is told of bytes that follow the last stream, once that has been read to its end.
    """
    return _Parts(_inflate(read, [] if remarks is None else remarks)).read


def bzipped(read: Read) -> Read:
    """Bytes that bzip2 has packed."""
    return _Parts(_unzip(read)).read


def chained(parts: Iterable[tuple[Read, int]]) -> Read:
    """Bytes that lie in several places, one after the other.

    Args:
        parts: What gives the bytes of a place, and how many there are.
    """

    def blocks() -> Iterator[bytes]:
        for read, count in parts:
            for first in range(0, count, _CHUNK):
                yield _exactly(read, min(_CHUNK, count - first))

    return _Parts(blocks()).read


def numbers(read: Read) -> Read:
    """Numbers that are written as text, as float64."""
    return _Parts(_parse(read)).read


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
    # Labels that a writer has spread over a whole type are off by up to half a slope.
    rounding = _ROUNDING + (0 if plainly else min(0.51 * abs(float(slope or 0)), 0.25))
    row = math.prod(view.shape[:-1])
    step = max(1, _SLAB // row)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, view.shape[-1], step):
            part = view[..., first : first + step]
            content = _exactly(read, part.size * dtype.itemsize)
            stored = np.frombuffer(content, dtype).reshape(part.shape, order="F")
            values = stored if plainly else stored * np.float64(slope) + np.float64(inter)
            part[...] = values if view.dtype.kind == "f" else whole(values, rounding=rounding)


def whole(values: NDArray[Any], *, rounding: float = _ROUNDING) -> NDArray[np.int64]:
    """Labels as int64.

    Raises:
        MedrlError: If some are further from a whole number than by rounding, or do not fit.
    """
    if values.dtype.kind != "f":
        if values.dtype.itemsize == 8 and values.max(initial=0) > _LARGEST:
            raise MedrlError("holds labels above 2^63 - 1, more than medrl takes; number them anew")
        return values.astype(np.int64)
    nearest = np.rint(values)
    odd = ~(np.abs(values - nearest) <= rounding)
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


def goes_on(read: Read) -> bool:
    """Whether there are more bytes; at the end of a compressed stream its checksum is compared.

    Raises:
        MedrlError: If the stream is damaged or has no end.
    """
    try:
        return bool(read(1))
    except EOFError as error:
        raise MedrlError("is truncated: its end is missing; copy or export it again") from error
    except (zlib.error, OSError) as error:
        raise MedrlError("its compressed voxels are damaged; copy or export it again") from error


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


def _inflate(read: Read, remarks: list[str]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    block = b""
    while True:
        block = inflater.unconsumed_tail or block or read(_BLOCK)
        part = inflater.decompress(block, _CHUNK)
        if not block and not part and not inflater.eof:
            raise EOFError
        block = b""
        if part:
            yield part
        if inflater.eof:
            block = inflater.unused_data or read(_BLOCK)
            block += read(_BLOCK) if len(block) == 1 else b""
            if block[:2] != _GZIP:
                break
            # Several streams one after the other are those of one file.
            inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    if block.strip(b"\0"):
        remarks.append("bytes that follow its gzip stream were passed over")


def _unzip(read: Read) -> Iterator[bytes]:
    inflater = bz2.BZ2Decompressor()
    while not inflater.eof:
        block = read(_BLOCK) if inflater.needs_input else b""
        if inflater.needs_input and not block:
            return
        if part := inflater.decompress(block, _CHUNK):
            yield part


def _parse(read: Read) -> Iterator[bytes]:
    rest = b""
    while True:
        block = read(_BLOCK)
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
