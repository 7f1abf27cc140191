"""Which files may be DICOM, told by how they begin, without reading them and without pydicom."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from medrl.errors import MedrlError

#: Most files that are looked through for one series.
MOST_FILES = 50_000
#: Bytes at a file's beginning that tell what it is.
START = 1024
#: Endings that say that a file is DICOM, whether it is or not.
_ENDINGS = (".dcm", ".dicom", ".dic", ".ima")

_SHORT = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
_LONG = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
_UNDEFINED = 2**32 - 1
_LONGEST_VALUE = 2**20
#: Groups that a file without preamble may begin with.
_FIRST_GROUPS = (0x0002, 0x0008)


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins so is DICOM: by its preamble, or by elements without one.

    Files without preamble are what older exporters, and programs that store what came over the
    network as it came, leave behind (PS3.10 7.1 asks for it).

    Args:
        start: The first `START` bytes, or the whole file if it is shorter.
    """
    return start[128:132] == b"DICM" or any(_holds_elements(start, order) for order in "<>")


def called_dicom(file: Path) -> bool:
    """Whether a file's name says that it is DICOM."""
    return file.name.lower().endswith(_ENDINGS) and not file.name.startswith(".")


def may_be_dicom(file: Path) -> bool:
    """Whether a file is DICOM by its name, or by how it begins."""
    try:
        with file.open("rb") as stream:
            return called_dicom(file) or is_dicom(stream.read(START))
    except OSError:
        return called_dicom(file)


def files_below(folder: Path) -> list[Path]:
    """Regular files in a folder, however deep, in order.

    Raises:
        MedrlError: If there are too many, or a folder cannot be opened.
    """

    def refuse(error: OSError) -> None:
        raise MedrlError(f"{error.filename}: cannot be opened: {error.strerror}") from error

    found: list[Path] = []
    for here, _, names in os.walk(folder, onerror=refuse):
        found += (Path(here, name) for name in names)
        if len(found) > MOST_FILES:
            raise MedrlError(f"{folder}: holds more than {MOST_FILES} files; name one series")
    return sorted(regular(found))


def regular(files: Iterable[Path]) -> Iterator[Path]:
    """Leave out what is no file: a pipe would never end."""
    return (file for file in files if file.is_file())


def _holds_elements(start: bytes, order: str) -> bool:
    """Whether bytes are data elements one after the other: known kinds, even lengths, rising."""
    at, count, before = 0, 0, (0, 0)
    while at + 8 <= len(start):
        tag = struct.unpack_from(f"{order}HH", start, at)
        if tag <= before or (not count and tag[0] not in _FIRST_GROUPS):
            return False
        kind = start[at + 4 : at + 6]
        if kind in _LONG and at + 12 <= len(start):
            (length,), head = struct.unpack_from(f"{order}I", start, at + 8), 12
        elif kind in _SHORT:
            (length,), head = struct.unpack_from(f"{order}H", start, at + 6), 8
        else:
            (length,), head = struct.unpack_from(f"{order}I", start, at + 4), 8
        if length == _UNDEFINED:
            break
        if length % 2 or length > _LONGEST_VALUE:
            return False
        at, count, before = at + head + length, count + 1, tag
    return count >= 3
