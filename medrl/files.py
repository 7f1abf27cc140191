"""What is written to disk: files that are whole or not there, folders, and names for results."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from medrl.errors import MedrlError

#: Endings of scans' names, that of their format.
SCAN_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip", ".dcm")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to `path` when the block ends well.

    Args:
        path: File to write; replaced if it exists.

    Yields:
        Path of a new file in the same folder, with the same suffixes, so that writers pick the
        same format. What was written there is removed if the block raises.

    Raises:
        MedrlError: If the file cannot be written: no such folder, no permission, disk full.
    """
    target = Path(path)
    suffix = "".join(target.suffixes[-2:])
    temporary = target.with_name(f".part-{secrets.token_hex(6)}{suffix}")
    try:
        if not target.parent.is_dir():
            raise MedrlError(f"cannot write {target}: there is no folder {target.parent}")
        yield temporary
        temporary.replace(target)
    except OSError as error:
        # Another file's trouble (one that the block was reading) is not this file's.
        if error.filename is not None and Path(os.fsdecode(error.filename)) != temporary:
            raise
        reason = error.strerror or str(error)
        raise MedrlError(f"cannot write {target}: {reason}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


@contextmanager
def all_or_nothing(paths: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Give temporary paths for files that belong together, and rename them when the block ends.

    Args:
        paths: Files to write, by kind; all in one existing folder, replaced if they exist.

    Yields:
        Paths of the same names in a temporary folder. All of them must exist when the block ends;
        if it raises, none of the files is touched.

    Raises:
        MedrlError: If the files cannot be written.
    """
    folder = next(iter(paths.values())).parent
    work = None
    try:
        work = Path(tempfile.mkdtemp(prefix=".medrl-", dir=folder))
        drafts = {kind: work / path.name for kind, path in paths.items()}
        yield drafts
        for kind, path in paths.items():
            drafts[kind].replace(path)
    except OSError as error:
        raise MedrlError(f"cannot write the results to {folder}: {error.strerror}") from None
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, and rename it when the block ends well.

    Args:
        target: Folder to write, with its parents; an older one is replaced.

    Yields:
        An empty folder beside it; removed if the block raises.

    Raises:
        MedrlError: If the folder cannot be written.
    """
    work = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        (work / "new").mkdir()
        yield work / "new"
        if target.exists():
            target.replace(work / "old")
        (work / "new").replace(target)
    except OSError as error:
        if work is not None and (work / "old").exists() and not target.exists():
            (work / "old").replace(target)
        raise MedrlError(f"cannot write {target}: {error.strerror}") from None
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def prepare_folder(folder: Path) -> Path:
    """Make an output folder and find out now whether it can be written to.

    Args:
        folder: Made, with its parents, if missing.

    Returns:
        The same folder.

    Raises:
        MedrlError: If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MedrlError(
            f"cannot write into the output folder {folder}: {error.strerror}; choose another"
        ) from None
    return folder


def stem_of(scan: Path) -> str:
    """A scan's file or folder name without the ending of its format; a link has its own name."""
    name = Path(os.path.abspath(scan)).name
    for ending in SCAN_ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def distinct_stems(scans: Sequence[Path]) -> list[str]:
    """Names for the results of several scans, no two alike.

    Scans with the same name are told apart by the folders they lie in, as far up as it takes;
    those that differ in nothing but the format by a number.

    Args:
        scans: Paths.

    Returns:
        One name a scan, in the same order.
    """
    paths = [Path(os.path.abspath(scan)) for scan in scans]
    stems = [stem_of(path) for path in paths]
    names = list(stems)
    for depth in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        keys = [name.casefold() for name in names]
        alike = [n for n, key in enumerate(keys) if keys.count(key) > 1]
        if not alike:
            return names
        for n in alike:
            above = [part for part in paths[n].parent.parts[-depth:] if part != paths[n].anchor]
            names[n] = "_".join([*above, stems[n]])
    taken: set[str] = set()
    for n, name in enumerate(names):
        number = 1
        while names[n].casefold() in taken:
            number += 1
            names[n] = f"{name}_{number}"
        taken.add(names[n].casefold())
    return names
