"""The files with the voxels that a header names; it must not choose what is read elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from medrl.errors import MedrlError

_MOST_FILES = 100_000
#: A pattern of file names, as printf has it, and the numbers that it runs through.
_PATTERN = re.compile(
    r"(?P<name>[^%]*%0?\d?\d?d[^%]*?)\s+(?P<first>-?\d+)\s+(?P<last>-?\d+)\s+(?P<step>-?\d+)"
    r"(\s+\d+)?"
)
_LIST = re.compile(r"LIST(\s+\d+D?)?", re.IGNORECASE)


def is_list(value: str) -> bool:
    """Whether the names of files follow, a line each."""
    return _LIST.fullmatch(value) is not None


def files_named(path: Path, value: str) -> tuple[Path, ...]:
    """The files of a single name, or of a pattern of names.

    Raises:
        MedrlError: As :func:`files_listed`.
    """
    pattern = _PATTERN.fullmatch(value)
    if pattern is None:
        return files_listed(path, [value])
    first, last, step = (int(pattern[key]) for key in ("first", "last", "step"))
    numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
    if not 0 < len(numbers) <= _MOST_FILES:
        raise MedrlError(f"{path}: names {len(numbers)} files with its voxels; mend its header")
    return files_listed(path, [pattern["name"] % number for number in numbers])


def files_listed(path: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """The files of some names.

    Args:
        path: The header.
        names: Relative to its folder.

    Raises:
        MedrlError: If there are none or too many, one is not there, or not below the header's
            folder: a header that someone has sent must not choose what is read from this machine.
    """
    if not 0 < len(names) <= _MOST_FILES:
        raise MedrlError(f"{path}: names {len(names)} files with its voxels; mend its header")
    return tuple(_file(path, name) for name in names)


def _file(path: Path, name: str) -> Path:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name or "\0" in name:
        raise MedrlError(
            f"{path}: says that its voxels lie outside of its folder; move them beside it and "
            "mend its header"
        )
    file = path.parent / name
    if not file.is_file():
        raise MedrlError(f"{path}: its voxels are in {file.name}, which is not there")
    return file
