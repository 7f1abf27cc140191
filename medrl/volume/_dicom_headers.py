"""Headers of DICOM images among any files, and the series that they make.

What is no DICOM is passed over. What is, and cannot be read, may be a slice that a series then
lacks: it is named.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.uid import UID

from medrl.errors import MedrlError
from medrl.volume.dicom_files import START, called_dicom, is_dicom, regular
from medrl.volume.dicom_origin import IDENTITY_TAGS

_TAGS = [
    *IDENTITY_TAGS,
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "FrameOfReferenceUID",
    "HighBit",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "Modality",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelSpacing",
    "Rows",
    "SOPClassUID",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SliceThickness",
    "SpacingBetweenSlices",
]
#: Where objects of more than one frame, or made to hold more, say where these are.
_FRAME_TAGS = [
    *_TAGS,
    "DetectorInformationSequence",
    "GridFrameOffsetVector",
    "ImageType",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "SliceVector",
]
#: To list series by.
_LIST_TAGS = [
    *("Columns", "Modality", "Rows", "SOPClassUID", "SeriesDescription", "SeriesInstanceUID"),
    *("SeriesNumber", "StudyInstanceUID"),
]
_WHOLE = (
    *("BitsAllocated", "BitsStored", "Columns", "HighBit", "NumberOfFrames", "Rows"),
    "SamplesPerPixel",
)
_STANDARD = "1.2.840.10008."
_DEFLATED = b"1.2.840.10008.1.2.1.99"
#: Bytes that a deflated file may inflate to: these, and so many times its size.
_MOST_INFLATED, _MOST_INFLATION = 64 * 2**20, 20

#: Objects with rows and columns that are no scans, but lie beside the scan that they belong to:
#: segmentations, spectra, doses of radiation.
NO_SCANS = {
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "segmentation",
    "1.2.840.10008.5.1.4.1.1.4.2": "spectrum",
    "1.2.840.10008.5.1.4.1.1.481.2": "radiation dose",
}


@dataclass(frozen=True)
class Image:
    """One DICOM image file: its header without pixels."""

    file: Path
    header: pydicom.Dataset

    @property
    def frame_count(self) -> int:
        """How many frames it holds."""
        return int(self.header.get("NumberOfFrames") or 1)


@dataclass(frozen=True)
class Found:
    """What there is among some files.

    Attributes:
        images: The DICOM images.
        unreadable: DICOM files that cannot be read, and why.
        misnamed: Files that are called DICOM and are none.
    """

    images: list[Image] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    misnamed: list[Path] = field(default_factory=list)

    def complaint(self) -> str:
        """What to say of DICOM files that cannot be read; empty if there are none."""
        if not self.unreadable:
            return ""
        file, reason = self.unreadable[0]
        return (
            f"{len(self.unreadable)} of its DICOM files cannot be read, the first is {file.name} "
            f"({reason}); copy or export them again"
        )


def find_images(files: Iterable[Path], *, listing: bool = False) -> Found:
    """Read the headers of the DICOM images among some files.

    Args:
        files: Candidates.
        listing: Read no more than it takes to list series.
    """
    found = Found()
    for file in regular(files):
        try:
            header = _header(file, _LIST_TAGS if listing else _TAGS)
            if "Rows" in header and "Columns" in header:
                found.images.append(Image(file, header))
            elif _should_be_image(header):
                found.unreadable.append((file, "truncated: it does not say how large its image is"))
        except _NoDicomError:
            if called_dicom(file):
                found.misnamed.append(file)
        except OSError as error:
            found.unreadable.append((file, error.strerror or type(error).__name__))
        except MedrlError as error:
            found.unreadable.append((file, str(error)))
        except Exception as error:
            # Parsers of damaged files fail in every way there is, and their words quote values.
            found.unreadable.append((file, f"damaged: {type(error).__name__}"))
    # Segmentations of a scan lie beside it.
    scans = [one for one in found.images if one.header.get("SOPClassUID") not in NO_SCANS]
    return Found(scans or found.images, found.unreadable, found.misnamed)


def with_frames(path: Path, image: Image) -> Image:
    """The same, with what its header says of each frame, if it may say such things.

    Args:
        path: What the user named, for messages.
        image: As found.

    Raises:
        MedrlError: If that is damaged.
    """
    if "NumberOfFrames" not in image.header and image.header.get("ImagePositionPatient"):
        return image
    try:
        return Image(image.file, _header(image.file, _FRAME_TAGS))
    except Exception as error:
        raise MedrlError(
            f"{path}: what {image.file.name} says of its frames is damaged "
            f"({type(error).__name__}); copy or export it again"
        ) from error


def by_series(images: list[Image]) -> dict[str, list[Image]]:
    """Images by their SeriesInstanceUID.

    Those that have none belong together if they lie in one folder and are of one study, series
    number and modality. Such a series is called ``no-uid``, with its number if it has one and the
    folder's name before it where images lie in several.
    """
    groups: dict[str, list[Image]] = {}
    names: dict[tuple[str, ...], str] = {}
    root = os.path.commonpath([image.file.parent for image in images]) if images else ""
    for image in images:
        name = str(image.header.get("SeriesInstanceUID") or "")
        if not name:
            tags = ("SeriesNumber", "StudyInstanceUID", "Modality")
            said = [str(image.header.get(tag) or "") for tag in tags]
            key = (str(image.file.parent), *said)
            if key not in names:
                names[key] = _new_name(image.file.parent.relative_to(root), said[0], names)
            name = names[key]
        groups.setdefault(name, []).append(image)
    return groups


# -------------------------------------------------------------------------------------------------


class _NoDicomError(Exception):
    """It is another kind of file."""


def _header(file: Path, tags: list[str]) -> pydicom.Dataset:
    """A file's header, every value converted, so that damaged ones fail here."""
    with file.open("rb") as stream:
        start = stream.read(START)
        if not start and called_dicom(file):
            raise MedrlError("empty")
        if not is_dicom(start):
            raise _NoDicomError
        _check_deflated(file, start)
        stream.seek(0)
        header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=[*tags], force=True)
    for element in list(header):
        if element.keyword not in _WHOLE:
            continue
        if element.value in (None, "") and element.keyword not in ("Rows", "Columns"):
            del header[element.tag]  # it says nothing
        elif int(element.value) < 0:
            raise ValueError("negative")
    return header


def _check_deflated(file: Path, start: bytes) -> None:
    """Refuse a deflated file that pydicom would inflate to whatever size."""
    if start[128:132] != b"DICM" or _DEFLATED not in start:
        return
    (length,) = struct.unpack_from("<I", start, 140)
    if _DEFLATED not in start[: 144 + length]:
        return
    most = _MOST_INFLATED + _MOST_INFLATION * file.stat().st_size
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with file.open("rb") as stream:
        stream.seek(144 + length)
        while not inflater.eof:
            block = inflater.unconsumed_tail or stream.read(2**16)
            part = inflater.decompress(block, 2**20)
            most -= len(part)
            if most < 0:
                raise MedrlError("it would inflate to too much")
            if not block and not part:
                raise MedrlError("truncated")


def _should_be_image(header: pydicom.Dataset) -> bool:
    """Whether a header without an image's size has lost it; reports and plans have none."""
    meta = getattr(header, "file_meta", {})
    kind = str(meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or "")
    name = UID(kind).name
    if name != kind:
        return "Image Storage" in name
    # Of those that are not the standard's, nothing is known; a part of one of its own is damaged.
    return kind.startswith(_STANDARD) or _STANDARD.startswith(kind)


def _new_name(folder: Path, number: str, names: dict[tuple[str, ...], str]) -> str:
    name = (folder / (f"no-uid-{number}" if number.isdigit() else "no-uid")).as_posix()
    count, new = 1, name
    while new in names.values():
        count += 1
        new = f"{name}_{count}"
    return new
