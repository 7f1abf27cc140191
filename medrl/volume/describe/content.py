"""What a file is by its content, whatever its name says."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

_START = 1024
#: Signatures at the start of a file, and what they stand for; formats that medrl does not read come
#: with a hint where there is a usual way out.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"NRRD", "NRRD", ""),
    (b"PK\x03\x04", "zip", ""),
    (b"PK\x05\x06", "zip", "it is empty"),
    (b"\x89PNG", "PNG picture", "a picture has no place in space"),
    (b"\xff\xd8\xff", "JPEG picture", "a picture has no place in space"),
    (b"GIF8", "GIF picture", "a picture has no place in space"),
    (b"II*\0", "TIFF", "it has no place in space: convert it to NIfTI or NRRD"),
    (b"MM\0*", "TIFF", "it has no place in space: convert it to NIfTI or NRRD"),
    (b"II+\0", "BigTIFF", "it has no place in space: convert it to NIfTI or NRRD"),
    (b"\x89HDF", "HDF5", "MINC 2 among others: convert it to NIfTI"),
    (b"CDF\x01", "netCDF", "MINC 1 among others: convert it to NIfTI"),
    (b"CDF\x02", "netCDF", "MINC 1 among others: convert it to NIfTI"),
    (b"\x93NUMPY", "NumPy array", "it has no place in space: write it as NIfTI"),
    (b"# vtk DataFile", "VTK", "convert it to NRRD or MetaImage"),
    (b"<VTKFile", "VTK", "convert it to NRRD or MetaImage"),
    (b"%PDF", "PDF", ""),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip archive", "unpack it"),
    (b"Rar!", "RAR archive", "unpack it"),
    (b"version https://git-lfs", "Git LFS pointer", "the file itself has not been fetched yet"),
    (b"/annex/objects/", "git-annex pointer", "the file itself has not been fetched yet"),
    (b"<!DOCTYPE html", "web page", "the download has failed: fetch it again"),
    (b"<!doctype html", "web page", "the download has failed: fetch it again"),
    (b"<html", "web page", "the download has failed: fetch it again"),
    (b"<?xml", "XML", ""),
    (b"solid ", "STL mesh", "a surface, not a scan"),
)
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_OPEN: dict[str, Callable[..., Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)
_METAIMAGE = (b"ObjectType", b"NDims", b"DimSize", b"Comment", b"ElementType")
#: Tags of the first element of a DICOM file without preamble, little endian.
_DICOM_FIRST = (b"\x02\x00\x00\x00", b"\x02\x00\x01\x00", b"\x08\x00")


@dataclass(frozen=True)
class Content:
    """What a file is.

    Attributes:
        format: Such as ``NIfTI-1``; ``unknown`` if nothing is known of it.
        packed: ``gzip``, ``bzip2`` or ``xz`` if all of it is compressed; empty if it is not.
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
    with path.open("rb") as stream:
        start = stream.read(_START)
    packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), "")
    if packed:
        try:
            with open_unpacked(path) as stream:
                start = stream.read(_START)
        except _DAMAGED:
            return Content("unknown", packed, "its compression is damaged: copy it again")
    found = _identify(start)
    return Content(found.format, packed, found.hint)


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file, its compression undone, whatever its name says of it."""
    with path.open("rb") as stream:
        start = stream.read(6)
    for magic, name in _PACKED.items():
        if start.startswith(magic):
            return cast(IO[bytes], _OPEN[name](path, "rb"))
    return path.open("rb")


def _identify(start: bytes) -> Content:
    if not start:
        return Content("empty file")
    if start[128:132] == b"DICM":
        return Content("DICOM")
    for magic, name, hint in _SIGNATURES:
        if start.startswith(magic):
            return Content(name, hint=hint)
    if nifti := _nifti(start):
        return nifti
    if start.lstrip().startswith(_METAIMAGE) and b"=" in start[:200]:
        return Content("MetaImage")
    if start[:4] == b"\0\0\0\x01" and all(start[at : at + 2] == b"\0\0" for at in (4, 8, 12)):
        return Content("FreeSurfer MGH", hint="convert it to NIfTI with mri_convert")
    if start[257:262] == b"ustar":
        return Content("tar archive", hint="unpack it")
    if start.startswith(_DICOM_FIRST) and start[4:6].isalnum():
        return Content("DICOM without its preamble")
    if start.lstrip().startswith((b"{", b"[")):
        return Content("JSON")
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in start):
        return Content("text")
    return Content("unknown")


def _nifti(start: bytes) -> Content | None:
    """NIfTI and its ancestor: known by the length of their header and a magic word."""
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
    if 540 in sizes and start[4:7] in (b"n+2", b"ni2"):
        return Content("NIfTI-2" if start[4:7] == b"n+2" else "NIfTI-2 header without voxels")
    if 348 in sizes:
        magic = start[344:347]
        if magic == b"n+1":
            return Content("NIfTI-1")
        if magic == b"ni1":
            hint = "its voxels are in an .img file: convert the pair to one .nii"
            return Content("NIfTI-1 header without voxels", hint=hint)
        hint = "it does not say where left and right are: convert it to NIfTI"
        return Content("Analyze 7.5 header", hint=hint)
    return None
