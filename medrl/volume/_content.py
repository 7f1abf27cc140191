"""What a file is by its content: names and contents disagree, and gzip is put round anything."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medrl.errors import MedrlError
from medrl.volume._stored import Read, deflated, plain
from medrl.volume.dicom_files import START, is_dicom

NIFTI, NRRD, METAIMAGE, DICOM, ZIP = "NIfTI", "NRRD", "MetaImage", "DICOM", "zip"
_GZIP = b"\x1f\x8b"
#: How often gzip may be put round a file.
_DEEPEST = 3

_UNPACK = "unpack it first"
_CONVERT = "convert it to NIfTI first"
_AGAIN = "download or copy it again"
#: What else is met under a scan's name: how it begins, what it is, what to do.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ\0", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as MINC 2", _CONVERT),
    (b"CDF\x01", "a netCDF file, such as MINC 1", _CONVERT),
    (b"MATLAB 5.0", "a MATLAB file", _CONVERT),
    (b"\x93NUMPY", "a NumPy array, which does not say where it lies", _CONVERT),
    (b"\x89PNG", "a PNG picture", "name a scan"),
    (b"\xff\xd8\xff", "a JPEG picture", "name a scan"),
    (b"II*\0", "a TIFF picture, which does not say where it lies", _CONVERT),
    (b"MM\0*", "a TIFF picture, which does not say where it lies", _CONVERT),
    (b"%PDF", "a PDF document", "name a scan"),
)
_PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
_XML = re.compile(rb"\s*<(\?xml|gifti)", re.IGNORECASE)
_META_FIELD = re.compile(rb"^\s*(NDims|DimSize|ElementDataFile)\s*=", re.MULTILINE)


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        kind: NIFTI, NRRD, METAIMAGE, DICOM, ZIP; or what else it is, in words; None if unknown.
        advice: What to do about it, if it is none of the former.
        gzips: How often it is gzipped.
    """

    kind: str | None
    advice: str
    gzips: int


@contextmanager
def opened(path: Path, gzips: int, remarks: list[str] | None = None) -> Iterator[Read]:
    """A file's bytes with gzip taken off.

    Args:
        path: The file.
        gzips: How often it is gzipped.
        remarks: Is told of bytes that follow the gzip stream, once that has been read to its end.

    Yields:
        What gives the bytes.
    """
    with path.open("rb") as stream:
        read = plain(stream)
        for _ in range(gzips):
            read = deflated(read, remarks)
        yield read


def look(path: Path) -> Content:
    """Say what a file is.

    Raises:
        MedrlError: If it is gzipped too often, or the first bytes of its gzip stream are damaged.
        OSError: If it cannot be opened.
    """
    for gzips in range(_DEEPEST + 1):
        with opened(path, gzips) as read:
            try:
                start = read(START)
            except EOFError as error:
                raise MedrlError(
                    f"{path}: is truncated: its gzip stream has no end; copy or export it again"
                ) from error
            except zlib.error as error:
                raise MedrlError(
                    f"{path}: its gzip stream is damaged; copy or export it again"
                ) from error
        if not start:
            return Content("empty file", _AGAIN, gzips)
        if start[:2] != _GZIP:
            kind, advice = _kind(start)
            return Content(kind, advice, gzips)
    raise MedrlError(f"{path}: is gzipped {_DEEPEST + 1} times or more; unpack it first")


def _kind(start: bytes) -> tuple[str | None, str]:
    tests: tuple[tuple[str, Callable[[bytes], object]], ...] = (
        (NRRD, lambda b: b.startswith(b"NRRD")),
        (DICOM, lambda b: b[128:132] == b"DICM"),
        (ZIP, lambda b: b.startswith((b"PK\x03\x04", b"PK\x05\x06"))),
        (NIFTI, _is_nifti),
        (METAIMAGE, _META_FIELD.search),
        (DICOM, is_dicom),
    )
    for kind, test in tests:
        if test(start):
            return kind, ""
    for begin, what, advice in _OTHERS:
        if start.startswith(begin):
            return what, advice
    if _PAGE.match(start):
        return "a web page, not the scan that was meant to be downloaded", _AGAIN
    if _XML.match(start):
        return "an XML file", "name a scan"
    if start[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    # FreeSurfer's .mgh: version 1, then the grid, big-endian, then one of four voxel types.
    if start[:4] == b"\0\0\0\x01" and start[20:24] in (
        b"\0\0\0\0",
        b"\0\0\0\x01",
        b"\0\0\0\x03",
        b"\0\0\0\x04",
    ):
        return "a FreeSurfer .mgh file", "convert it to NIfTI with mri_convert"
    return None, ""


def _is_nifti(start: bytes) -> bool:
    """By its magic, or by the size of its header as Analyze has it, too."""
    if start[344:347] in (b"n+1", b"ni1") or start[4:7] in (b"n+2", b"ni2"):
        return True
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
    return bool(sizes & {348, 540})
