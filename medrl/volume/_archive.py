"""Unpacking a zip of DICOM files without trusting it."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from medrl.errors import MedrlError

#: Most bytes and files that a zip may unpack to.
MOST_BYTES = 16 * 2**30
MOST_FILES = 50_000
#: Most bytes that a byte of a zip may unpack to, beyond what any zip may; slices come to about 5.
MOST_DEFLATION = 200
ANY_BYTES = 64 * 2**20


def unpack(path: Path, folder: Path) -> list[Path]:
    """Unpack a zip's files into a folder, under new names, so that no name can lead elsewhere.

    Its folders stay apart.

    Args:
        path: The zip.
        folder: An empty folder.

    Returns:
        The files.

    Raises:
        MedrlError: If the zip is damaged, encrypted, too large, or names files outside itself.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            _check(path, members, free=shutil.disk_usage(folder).free)
            files = []
            folders: dict[str, Path] = {}
            for number, info in enumerate(members, 1):
                above = info.filename.replace("\\", "/").rpartition("/")[0]
                if above not in folders:
                    folders[above] = folder / f"folder-{len(folders) + 1}"
                    folders[above].mkdir()
                file = folders[above] / f"member-{number}"
                with archive.open(info) as source, file.open("wb") as target:
                    shutil.copyfileobj(source, target)
                files.append(file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise MedrlError(f"{path}: is a damaged zip file ({error}); copy it again") from error
    return files


def _check(path: Path, members: list[zipfile.ZipInfo], *, free: int) -> None:
    total = sum(info.file_size for info in members)
    likely = ANY_BYTES + MOST_DEFLATION * path.stat().st_size
    if len(members) > MOST_FILES or total > min(MOST_BYTES, free, likely):
        raise MedrlError(
            f"{path}: would unpack to {len(members)} files and {total / 2**30:.1f} GiB, too much; "
            "unpack the series that you need and name its folder"
        )
    for info in members:
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
            raise MedrlError(f"{path}: is unsafe: it names a file outside itself")
        if info.flag_bits & 1:
            raise MedrlError(f"{path}: is encrypted; unpack it first")
