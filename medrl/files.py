"""What is written to disk: files that are whole or not there, folders, and names for results."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from medrl.errors import MedrlError

#: Endings of scans' names, that of their format.
SCAN_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip", ".dcm")
#: Endings of pictures, of which a folder may be a film.
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
#: Endings of files that hold a film and nothing else.
VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
#: Endings of files that may hold a film.
_FILM_ENDINGS = (*VIDEO_ENDINGS, ".webp", ".tif", ".tiff")
#: Endings of files that may hold several things, each with a name.
_NAMING = (".json", ".csv", ".tsv")
#: Bytes that names of results may have: 255 is what file systems take, endings need the rest.
_LONGEST = 190
#: Letters that some file systems refuse.
_REFUSED = {ord(letter): "-" for letter in '\\:*?"<>|'} | {code: "-" for code in (*range(32), 127)}
#: Categories of Unicode that are commands rather than letters: control, surrogates, breaks.
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")
#: Halves of letters that stand for no byte of a file's name.
_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
#: What git-annex and Git LFS leave in place of a file.
_NOTE = re.compile(rb"(\.\./|\.git/|/)*annex/objects/|version https://git-lfs\.")
_NOTE_BYTES = 2048
_NOT_HERE = (
    "only stands for a file whose content is not here; fetch it, for example with `git annex get`, "
    "`datalad get` or `git lfs pull`"
)
_BYTE = re.compile(r"\\x([0-9a-f]{2})")


def is_film(path: str | os.PathLike[str]) -> bool:
    """Whether a path is, by its name and what lies in it, a film of pictures."""
    place = Path(path)
    if place.is_dir():
        return any(entry.suffix.lower() in PICTURE_ENDINGS for entry in place.iterdir())
    return place.suffix.lower() in _FILM_ENDINGS


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


def printable(text: str) -> str:
    r"""A text as any file takes it: bytes of a name that are no UTF-8 as ``\xe4``.

    Python keeps such bytes as lone surrogates, which no file and no other program takes.
    """
    return _as_bytes(text).decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """A text that a terminal shows as one line: breaks, tabs and commands in names as escapes."""
    return "".join(
        repr(letter)[1:-1] if unicodedata.category(letter) in _UNSEEN else letter
        for letter in printable(text)
    )


def place_of(path: str | os.PathLike[str]) -> Path:
    """The absolute path, links kept: each name that leads to a file is a scan of its own.

    Only what ``..`` leads to is looked up, as the system does it.
    """
    here = Path()
    for part in Path(path).absolute().parts:
        here = Path(os.path.realpath(here)).parent if part == ".." else here / part
    return here


def result_name(text: str) -> str:
    """A name for files or folders of results that any file system takes, made of a scan's name.

    Bytes that are no UTF-8 become ``%e4``, letters that some systems refuse a dash; where it is too
    long for the endings of results, its end is replaced by a checksum.
    """
    known = _BYTE.sub(r"%\1", printable(text)).translate(_REFUSED).encode()
    if len(known) > _LONGEST:
        digest = hashlib.sha256(_as_bytes(text)).hexdigest()[:8]
        known = known[:_LONGEST].decode("utf-8", "ignore").encode() + f"~{digest}".encode()
    return os.fsdecode(known)


def file_and_name(text: str) -> tuple[str, str | None]:
    """What ``FILE:NAME`` means: a file, and the name of one thing in it; None if none is named.

    A file that is not there is known by the ending of tables and of JSON.
    """
    if os.path.isfile(text):
        return text, None
    parts = text.split(":")
    # Names may have colons, too, and so may files.
    for count in range(1, len(parts)):
        file, name = ":".join(parts[:count]), ":".join(parts[count:])
        if name and (os.path.isfile(file) or file.lower().endswith(_NAMING)):
            return file, name
    return text, None


def absence(path: str | os.PathLike[str]) -> str | None:
    """Why there is nothing to read at a path, with the path before; None if there is something.

    DataLad, git-annex and Git LFS keep links and notes where content has not been fetched.
    """
    if not os.path.exists(path):
        return _NOT_HERE if os.path.islink(path) else "no such file or folder"
    if os.path.isfile(path) and os.path.getsize(path) <= _NOTE_BYTES:
        with suppress(OSError), open(path, "rb") as stream:
            if _NOTE.match(stream.read(_NOTE_BYTES)):
                return _NOT_HERE
    return None


def has_odd_letters(name: str) -> bool:
    """Whether some file system refuses a name, however long it is."""
    known = printable(name)
    return known != known.translate(_REFUSED)


def without_ending(name: str) -> str:
    """A scan's or film's file or folder name without the ending of its format."""
    for ending in (*SCAN_ENDINGS, *_FILM_ENDINGS):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def stem_of(scan: Path) -> str:
    """What the results of a scan are called; a link has its own name."""
    return result_name(without_ending(place_of(scan).name))


def joint_stem(scans: Sequence[Path]) -> str:
    """What the results of several scans together are called, such as ``moving_to_fixed``."""
    return result_name("_to_".join(distinct_stems(scans)))


def distinct_stems(scans: Sequence[Path]) -> list[str]:
    """Names for the results of several scans, no two alike.

    Scans with the same name are told apart by the folders they lie in, as far up as it takes;
    those that differ in nothing but the format by a number.

    Args:
        scans: Paths.

    Returns:
        One name a scan, in the same order.
    """
    paths = [place_of(scan) for scan in scans]
    stems = [stem_of(path) for path in paths]
    names = list(stems)
    for depth in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        keys = [alike(name) for name in names]
        same = [n for n, key in enumerate(keys) if keys.count(key) > 1]
        if not same:
            return names
        for n in same:
            above = [part for part in paths[n].parent.parts[-depth:] if part != paths[n].anchor]
            names[n] = result_name("_".join([*above, stems[n]]))
    taken: set[str] = set()
    for n, name in enumerate(names):
        number = 1
        while alike(names[n]) in taken:
            number += 1
            names[n] = f"{name}_{number}"
        taken.add(alike(names[n]))
    return names


def alike(name: str) -> str:
    """Names for which this is the same are one name to some file systems."""
    return unicodedata.normalize("NFC", name).casefold()


# -------------------------------------------------------------------------------------------------


def _as_bytes(text: str) -> bytes:
    """UTF-8, but for the bytes that a file's name has instead."""
    return _LONE.sub(lambda found: repr(found[0])[1:-1], text).encode("utf-8", "surrogateescape")
