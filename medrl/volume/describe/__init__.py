"""What a scan is, by its content and its header; no voxel is read for it.

:func:`describe` never complains of what a file holds: of one that cannot be read it says as much as
can be known. Whether a scan can be used is for :func:`medrl.volume.read.read` to say.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medrl.errors import MedrlError
from medrl.files import absence
from medrl.volume._content import DICOM, METAIMAGE, NIFTI, NRRD, ZIP, Content, look
from medrl.volume.describe.header import Header
from medrl.volume.dicom_files import called_dicom, files_below

if TYPE_CHECKING:
    from medrl.volume.series import Series

__all__ = ["Content", "Description", "Header", "describe"]


@dataclass(frozen=True, eq=False)
class Description:
    """What a scan is.

    Attributes:
        path: File or folder.
        content: What it is by its content.
        bytes: Size of the file, or of the images of a DICOM series.
        header: What its header says, of several series that of the chosen one; empty if it has
            none, or if none of several was chosen.
        series: DICOM series in it, the one with most images first.
    """

    path: Path
    content: Content
    bytes: int
    header: Header
    series: tuple[Series, ...] = ()

    @property
    def several(self) -> bool:
        """Whether it holds several series, none of which was chosen."""
        return len(self.series) > 1


def describe(path: Path, *, series: str | None = None) -> Description:
    """Say what a scan is.

    Args:
        path: File or folder.
        series: SeriesInstanceUID of the one that is meant, where there are several.

    Returns:
        What can be known of it.

    Raises:
        MedrlError: If there is no such file or folder, or it cannot be opened.
    """
    if path.is_dir():
        return _of_dicom(path, Content("DICOM folder", "", 0), files_below(path), series)
    if reason := absence(path):
        raise MedrlError(f"{path}: {reason}")
    if not path.is_file():
        raise MedrlError(f"{path}: is not a regular file")
    try:
        content = look(path)
    except MedrlError:
        content = Content(None, "", 1)
    except OSError as error:
        raise MedrlError(f"{path}: cannot be opened: {error.strerror}") from error
    if content.kind == ZIP:
        from medrl.volume._archive import unpack

        with tempfile.TemporaryDirectory(prefix="medrl-") as folder:
            try:
                found = _of_dicom(path, content, unpack(path, Path(folder)), series)
            except MedrlError:
                found = Description(path, content, 0, Header())
        return replace(found, content=content, bytes=os.path.getsize(path))
    if content.kind == DICOM or (content.kind is None and called_dicom(path)):
        return _of_dicom(path, content, [path], series)
    return Description(path, content, os.path.getsize(path), _header(path, content))


def _header(path: Path, content: Content) -> Header:
    """What a file's header says; nothing if it is damaged, or of a kind that is not read."""
    from medrl.volume.describe.nifti import describe_nifti
    from medrl.volume.describe.text_headers import describe_metaimage, describe_nrrd

    try:
        if content.kind == NIFTI:
            return describe_nifti(path)
        if content.kind == NRRD and not content.gzips:
            return describe_nrrd(path)
        if content.kind == METAIMAGE and not content.gzips:
            return describe_metaimage(path)
    except (MedrlError, ValueError, OverflowError, OSError, IndexError):
        pass
    return Header()


def _of_dicom(
    path: Path, content: Content, files: Iterable[Path], series: str | None
) -> Description:
    from medrl.volume.describe.dicom import describe_dicom
    from medrl.volume.series import group_series

    found = group_series(files).series
    if not found:
        if path.is_dir():
            return Description(path, Content("folder", "", 0), 0, Header())
        return Description(path, content, os.path.getsize(path), describe_dicom([path]))
    chosen = [one for one in found if series in (None, one.uid)]
    size = sum(file.stat().st_size for one in chosen for file in one.files)
    header = describe_dicom(list(chosen[0].files)) if len(chosen) == 1 else Header()
    return Description(path, content, size, header, tuple(chosen))
