"""What DICOM series a folder holds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medrl.errors import MedrlError
from medrl.volume._dicom_headers import by_series, find_images
from medrl.volume.dicom_files import files_below
from medrl.volume.log_filter import libraries_muted


@dataclass(frozen=True)
class Series:
    """One DICOM series of a folder.

    Attributes:
        uid: Its SeriesInstanceUID, as `medrl.read(..., series=)` takes it; ``no-uid``, with its
            number, of images that have none, and their folder before it where there are several.
        modality: Such as CT.
        description: Its SeriesDescription; may be empty.
        number: Its SeriesNumber, if it has one.
        files: Its images.
    """

    uid: str
    modality: str
    description: str
    number: int | None
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Listing:
    """What DICOM there is among some files.

    Attributes:
        series: The one with most images first.
        unreadable: DICOM files that cannot be read; they may be images of any series.
        misnamed: Files that are called DICOM and are none.
        complaint: What to say of those; empty if there are none.
    """

    series: tuple[Series, ...]
    unreadable: tuple[Path, ...]
    misnamed: tuple[Path, ...]
    complaint: str


def list_series(folder: str | os.PathLike[str]) -> list[Series]:
    """List the DICOM series in a folder, however deep, the one with most images first.

    Args:
        folder: Folder to search; what is no DICOM image is passed over.

    Returns:
        At least one.

    Raises:
        MedrlError: If there is none, or the folder holds too many files.
    """
    root = Path(folder)
    listing = group_series(files_below(root))
    if not listing.series:
        said = listing.complaint or (
            "holds no DICOM images; name an image file, or a folder with a series"
        )
        raise MedrlError(f"{root}: {said}")
    return list(listing.series)


def group_series(files: Iterable[Path]) -> Listing:
    """List the DICOM series among some files; what is no DICOM image is passed over."""
    with libraries_muted():
        found = find_images(files, listing=True)
        series = [
            Series(
                uid,
                str(images[0].header.get("Modality") or ""),
                str(images[0].header.get("SeriesDescription") or ""),
                _number(images[0].header.get("SeriesNumber")),
                tuple(image.file for image in images),
            )
            for uid, images in by_series(found.images).items()
        ]
    series.sort(key=lambda one: (-len(one.files), one.uid))
    unreadable = tuple(file for file, _ in found.unreadable)
    return Listing(tuple(series), unreadable, tuple(found.misnamed), found.complaint())


def _number(value: object) -> int | None:
    """A whole number, of whatever a file says."""
    try:
        return int(str(value))
    except ValueError:
        return None
