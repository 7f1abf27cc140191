"""What a file is by its content, whatever its name says."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from medrl.errors import MedrlError
from medrl.volume._content import NIFTI, look

_START = 512
_DEEPEST = 3
#: Compressed bytes that hold more than enough of a beginning.
_PACKED = 2**16


@dataclass(frozen=True)
class Content:
    """What a file is.

    Attributes:
        format: Such as ``NIfTI-1``, or what else it is in words; ``unknown`` if nothing is known.
        packed: ``gzip`` if all of it is compressed; empty if it is not.
        hint: What to do with it; empty if it can be read as it is, or if nobody knows.
    """

    format: str
    packed: str = ""
    hint: str = ""


def identify(path: Path) -> Content:
    """Tell what a file is.

    Raises:
        OSError: If it cannot be opened.
    """
    start, gzips = head(path, _START)
    packed = "gzip" if gzips else ""
    try:
        found = look(path)
    except MedrlError:
        # Cut off or damaged, and yet its first bytes may be there.
        return Content(_nifti(start) if _is_nifti(start) else "unknown", packed)
    if found.kind == NIFTI:
        return Content(_nifti(start), packed)
    if found.kind is not None:
        return Content(found.kind, packed, found.advice)
    if not start:
        return Content("empty file", packed)
    if start.lstrip().startswith((b"{", b"[")):
        return Content("JSON", packed)
    text = all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in start)
    return Content("text" if text else "unknown", packed)


def head(path: Path, count: int) -> tuple[bytes, int]:
    """The first bytes of a file with gzip taken off, as far as they are there; how often it was.

    Raises:
        OSError: If it cannot be opened.
    """
    with path.open("rb") as stream:
        start = stream.read(_PACKED + count)
    gzips = 0
    while start[:2] == b"\x1f\x8b" and gzips < _DEEPEST:
        try:
            start = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start, _PACKED + count)
        except zlib.error:
            return b"", gzips + 1
        gzips += 1
    return start[:count], gzips


def _is_nifti(start: bytes) -> bool:
    return start[344:346] in (b"n+", b"ni") or start[4:6] in (b"n+", b"ni")


def _nifti(start: bytes) -> str:
    """Which edition it is, and whether its voxels are elsewhere."""
    edition = "NIfTI-2" if start[4:7] in (b"n+2", b"ni2") else "NIfTI-1"
    if start[344:347] == b"ni1" or start[4:7] == b"ni2":
        return f"{edition} header without voxels"
    return edition if b"n+" in (start[344:346], start[4:6]) else "Analyze 7.5 header"
