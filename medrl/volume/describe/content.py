"""What a file is by its content, whatever its name says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medrl.errors import MedrlError
from medrl.volume._content import NIFTI, look, opened

_START = 512


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
    try:
        found = look(path)
    except MedrlError as error:
        return Content("unknown", "gzip", str(error).removeprefix(f"{path}: "))
    packed = "gzip" if found.gzips else ""
    with opened(path, found.gzips) as read:
        start = read(_START)
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


def _nifti(start: bytes) -> str:
    """Which edition it is, and whether its voxels are elsewhere."""
    edition = "NIfTI-2" if start[4:7] in (b"n+2", b"ni2") else "NIfTI-1"
    if start[344:347] == b"ni1" or start[4:7] == b"ni2":
        return f"{edition} header without voxels"
    return edition if b"n+" in (start[344:346], start[4:6]) else "Analyze 7.5 header"
