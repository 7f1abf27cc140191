"""What DICOM series a folder holds."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medrl.volume._dicom import Slice, read_headers
from medrl.volume.log_filter import libraries_muted


@dataclass(frozen=True)
class Series:
    """One DICOM series of a folder.

    Attributes:
        uid: Its SeriesInstanceUID, as `medrl.read(..., series=)` takes it.
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
    return group_series(root, sorted(root.rglob("*")))


def group_series(path: Path, files: Iterable[Path]) -> list[Series]:
    """List the DICOM series among some files, the one with most images first.

    Args:
        path: Where they are, for messages.
        files: What is no DICOM image is passed over.

    Returns:
        At least one.

    Raises:
        MedrlError: If there is none, or they are too many.
    """
    groups: dict[str, list[Slice]] = defaultdict(list)
    with libraries_muted():
        # One bad file must not hide the others; whoever reads its series will find it.
        for item in read_headers(path, files, strict=False):
            groups[str(item.header.SeriesInstanceUID)].append(item)
        series = [
            Series(
                uid,
                str(items[0].header.get("Modality") or ""),
                str(items[0].header.get("SeriesDescription") or ""),
                _number(items[0].header.get("SeriesNumber")),
                tuple(item.file for item in items),
            )
            for uid, items in groups.items()
        ]
    return sorted(series, key=lambda one: (-len(one.files), one.uid))


def _number(value: object) -> int | None:
    """A whole number, of whatever a file says."""
    try:
        return int(str(value))
    except ValueError:
        return None
