"""The files of a case as bytes, for a worker that does not see the file system they lie in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from medrl.batch.cases import Case, Source
from medrl.errors import MedrlError

#: Headers whose voxels are in other files beside them.
_DETACHED = (".nhdr", ".mhd")
_LONGEST_HEADER = 2**16

#: A file's path, size and time of change (ns): what is the same elsewhere is the same file.
Stamp = tuple[str, int, int]
#: Content by absolute path.
Parcel = dict[str, bytes]


def stamps(case: Case) -> list[Stamp]:
    """How the files of a case can be told from others of the same names.

    Args:
        case: Whose files are here.

    Returns:
        One for each file that belongs to it; none for those that are missing.
    """
    return [stamp for file in _files(case) if (stamp := _stamp(file)) is not None]


def are_here(wanted: list[Stamp]) -> bool:
    """Whether the very same files are on this machine, too."""
    return all(_stamp(Path(stamp[0])) == stamp for stamp in wanted)


def pack(case: Case) -> Parcel:
    """Read all files of a case.

    Raises:
        MedrlError: If one cannot be read.
    """
    try:
        return {str(file): file.read_bytes() for file in _files(case)}
    except OSError as error:
        raise MedrlError(f"{error.filename}: cannot be read: {error.strerror}") from error


def unpack(case: Case, parcel: Parcel, folder: Path) -> Case:
    """Write the files of a case below a folder.

    Args:
        case: Whose files they are.
        parcel: Their content.
        folder: An empty one.

    Returns:
        The case, to be read from there; its paths and results are the same.
    """
    copied = replace(case, copies=folder)
    for name, content in parcel.items():
        target = copied.here(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return copied


def _files(case: Case) -> Iterator[Path]:
    for source in case.sources.values():
        yield from _files_of(source)
    for value in case.options.values():
        if "\0" not in value and Path(value).is_file():
            yield Path(value).absolute()


def _files_of(source: Source) -> Iterator[Path]:
    path = source.path.absolute()
    if path.is_dir():
        yield from (file for file in sorted(path.rglob("*")) if file.is_file())
        return
    yield path
    if path.name.lower().endswith(_DETACHED) and path.is_file():
        with path.open("rb") as stream:
            header = os.fsdecode(stream.read(_LONGEST_HEADER))
        beside = (file for file in sorted(path.parent.iterdir()) if file != path)
        yield from (file for file in beside if file.name in header and file.is_file())


def _stamp(file: Path) -> Stamp | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return str(file), status.st_size, status.st_mtime_ns
