"""The files of a job as bytes, for a worker that does not see the file system they lie in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medrl.engines import J, Job
from medrl.errors import MedrlError

#: A file's path, size and time of change (ns): what is the same elsewhere is the same file.
Stamp = tuple[str, int, int]
#: Content by absolute path.
Payload = dict[str, bytes]


def stamps(job: Job) -> list[Stamp]:
    """How the files of a job can be told from others of the same names; not of missing ones."""
    return [stamp for file in job.files() if (stamp := _stamp(file)) is not None]


def are_here(wanted: Iterable[Stamp]) -> bool:
    """Whether the very same files are on this machine, too."""
    return all(_stamp(Path(stamp[0])) == stamp for stamp in wanted)


def pack(job: Job) -> Payload:
    """Read all files of a job.

    Raises:
        MedrlError: If one cannot be read.
    """
    try:
        return {str(file): file.read_bytes() for file in job.files()}
    except OSError as error:
        raise MedrlError(f"{error.filename}: cannot be read: {error.strerror}") from error


def unpack(job: J, payload: Payload, folder: Path) -> J:
    """Write the files of a job below an empty folder.

    Returns:
        The job, to be read from there.
    """
    for name, content in payload.items():
        target = copy_of(Path(name), folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return job.relocated(folder)


def copy_of(path: Path, folder: Path) -> Path:
    """Where the copy of a file lies below a folder with copies."""
    absolute = path.absolute()
    return folder / absolute.relative_to(absolute.anchor)


def _stamp(file: Path) -> Stamp | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return str(file), status.st_size, status.st_mtime_ns
