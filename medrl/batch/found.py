"""What there is to work through, and what is left out: with a reason, never in silence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medrl.batch.cases import MARKER, Case
from medrl.files import one_line

#: Endings of images that medrl does not read.
_FOREIGN = (
    *(".hdr", ".img", ".hdr.gz", ".img.gz", ".mgz", ".mgh", ".mnc", ".mnc.gz", ".gipl", ".gipl.gz"),
    *(".par", ".rec", ".nii.bz2", ".nii.xz", ".nii.zst", ".nrrd.gz", ".dcm.gz"),
    *(".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".tif", ".tiff", ".vtk"),
)
#: So many reasons are told in a line.
_REASONS = 6


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not worked on.

    Attributes:
        path: Where it lies.
        reason: Why, so that a sentence begins with the path.
    """

    path: Path
    reason: str


class Found(list[Case]):
    """Cases.

    Attributes:
        files: How many files they consist of.
        left_out: What else was met.
    """

    def __init__(
        self,
        cases: Iterable[Case] = (),
        left_out: Iterable[LeftOut] = (),
        *,
        files: int | None = None,
    ) -> None:
        """Take cases, and what lies beside them; of one file each if that is left out."""
        super().__init__(cases)
        self.left_out = tuple(left_out)
        self.files = len(self) if files is None else files

    def __str__(self) -> str:
        """How many files were met, and what became of them, in one line."""
        left = len(self.left_out)
        line = f"{self.files + left} files seen, {self.files} taken, {left} left out"
        return f"{line}: {in_words(self.left_out)}" if left else line


def in_words(left_out: Iterable[LeftOut]) -> str:
    """Why files are left out, the most common reason first."""
    counts = Counter(one.reason for one in left_out).most_common()
    parts = [f"{one_line(reason)}: {count}" for reason, count in counts[:_REASONS]]
    if rest := sum(count for _, count in counts[_REASONS:]):
        parts.append(f"other reasons: {rest}")
    return "; ".join(parts)


def walk(
    root: Path,
    leave: Callable[[Path, str], None],
    skip: Path | None = None,
    *,
    results: bool = False,
) -> Iterator[Path]:
    """The files below a folder, those of a folder before those of the folders in it.

    Links to folders are followed, but for those that lead back.

    Args:
        root: Where to begin.
        leave: Told of what is not searched, and why.
        skip: A folder that is passed over, such as that for results.
        results: Also search folders of results of medrl.

    Yields:
        Paths in the order of their names; regular files or not, broken links included.
    """
    stack: list[tuple[Path, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    hidden = None if skip is None else skip.resolve()
    while stack:
        folder, above = stack.pop()
        try:
            status = folder.stat()
            names = sorted(os.listdir(folder))
        except OSError as error:
            leave(folder, f"cannot be searched: {error.strerror}")
            continue
        own = status.st_dev, status.st_ino
        if own in above:
            leave(folder, "a link back to a folder above it")
            continue
        if MARKER in names and folder != root and not results:
            leave(folder, "results of medrl")
            continue
        folders = []
        for name in names:
            path = folder / name
            if name.startswith("."):
                leave(path, "hidden: a name that begins with a dot")
            elif not os.path.isdir(path):  # also where it may not be looked at
                yield path
            elif path.resolve() != hidden:
                folders.append(path)
        stack += [(path, above | {own}) for path in reversed(folders)]


def no_scan(path: Path) -> str:
    """Why a file whose name is not that of a scan is left out."""
    name = path.name.lower()
    if name.endswith(_FOREIGN):
        return "of a format that medrl does not read: convert it, for example to .nii.gz"
    return "no scan by its name"


def odd_kind(path: Path) -> str | None:
    """Why what lies at a path is no scan, whatever its name; None if it is a file or missing."""
    try:
        return None if path.is_file() or not path.exists() else "neither a file nor a folder"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
