"""What is worked through: one case a scan, or a pair of scans."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from medrl.engines.payload import copy_of
from medrl.errors import MedrlError
from medrl.files import file_and_name, has_odd_letters, place_of, printable, result_name, stem_of

if TYPE_CHECKING:
    from medrl.dicom import Pseudonyms

Layout = Literal["folder", "bids"]

#: What the folder of a case that is done holds.
MARKER = "case.json"

#: Headers whose voxels are in other files beside them.
_DETACHED = (".nhdr", ".mhd")
_MAX_HEADER = 2**16


@dataclass(frozen=True)
class Source:
    """Where a scan is.

    Attributes:
        path: File, or folder with DICOM files; absolute, as workers may run elsewhere.
        series: SeriesInstanceUID, where a folder holds several.
    """

    path: Path
    series: str | None = None

    def __post_init__(self) -> None:
        """Make the path absolute."""
        object.__setattr__(self, "path", Path(self.path).absolute())

    def files(self) -> Iterator[Path]:
        """All files that it consists of; a header's voxels may be in others beside it."""
        if self.path.is_dir():
            yield from (file for file in sorted(self.path.rglob("*")) if file.is_file())
            return
        yield self.path
        if self.path.name.lower().endswith(_DETACHED) and self.path.is_file():
            with self.path.open("rb") as stream:
                header = os.fsdecode(stream.read(_MAX_HEADER))
            beside = (file for file in sorted(self.path.parent.iterdir()) if file != self.path)
            yield from (file for file in beside if file.name in header and file.is_file())


@dataclass(frozen=True)
class Case:
    """One unit of work; its results are a folder.

    Attributes:
        name: Of the case and its folder below the output folder, parts separated by ``/``.
        sources: Its scans by role, the last of which it is named after; names of further channels.
        options: What a manifest says of it beyond that, such as its seeds.
        copies: Folder below which copies of its files lie, where they themselves are out of reach.
        layout: Whether the results are a folder, or files of a BIDS derivative.
        hidden: Whether its name is a pseudonym: where its files lie, and what they are called, is
            not written down and not said.
    """

    name: str
    sources: Mapping[str, Source]
    options: Mapping[str, str] = field(default_factory=dict)
    copies: Path | None = field(default=None, compare=False)
    layout: Layout = "folder"
    hidden: bool = False

    def __post_init__(self) -> None:
        """Check that the name stays below the output folder.

        Raises:
            MedrlError: If it does not.
        """
        path = PurePosixPath(self.name)
        if not path.parts or path.is_absolute() or any(p.strip(".") == "" for p in path.parts):
            raise MedrlError(f"{self.name!r} is no name for results: it would lead elsewhere")
        if has_odd_letters(self.name):
            raise MedrlError(f"{self.name!r} is no name for results: it holds odd characters")

    @property
    def source(self) -> Source:
        """The scan that it is named after, if it has no further channels."""
        return list(self.sources.values())[-1]

    @property
    def stem(self) -> str:
        """What the files of the results are called."""
        return PurePosixPath(self.name).name

    @property
    def folder(self) -> str:
        """Where the results lie, below the output folder."""
        path = PurePosixPath(self.name)
        return str(path.parent if self.layout == "bids" else path)

    def here(self, path: str | os.PathLike[str]) -> Path:
        """Where one of its files is to be read."""
        return Path(path) if self.copies is None else copy_of(Path(path), self.copies)

    def files(self) -> Iterator[Path]:
        """The files of its scans, those that headers name included, and of its options."""
        for source in self.sources.values():
            yield from source.files()
        for value in self.options.values():
            file, _ = file_and_name(value)
            if os.path.isfile(file):
                yield Path(file).absolute()

    def relocated(self, folder: Path) -> Case:
        """The case with copies of its files below a folder; its paths and results are the same."""
        return replace(self, copies=folder)

    def under(self, pseudonyms: Pseudonyms) -> Case:
        """The case under a pseudonym; its results are a folder."""
        name = pseudonyms.case(self.name)
        return replace(self, name=name, layout="folder", hidden=True)

    def discreet(self, line: str) -> str:
        """A line about the case as it may be said."""
        if not self.hidden:
            return line
        from medrl.dicom.deidentify import without_paths

        paths = [source.path for source in self.sources.values()]
        paths += [Path(file_and_name(v)[0]) for v in self.options.values() if os.sep in v]
        return without_paths(line, paths, self.name)

    def plain(self) -> dict[str, Any]:
        """The case in terms of JSON, as far as it may be written down."""
        if self.hidden:
            return {"name": self.name, "sources": {}, "options": {}, "layout": self.layout}
        return {
            "name": self.name,
            "sources": {
                role: {"path": printable(str(source.path)), "series": source.series}
                for role, source in self.sources.items()
            },
            "options": {key: printable(value) for key, value in self.options.items()},
            "layout": self.layout,
        }

    @staticmethod
    def of_plain(content: Mapping[str, Any]) -> Case:
        """The case again."""
        sources = {
            role: Source(Path(source["path"]), source["series"])
            for role, source in content["sources"].items()
        }
        layout: Layout = "bids" if content.get("layout") == "bids" else "folder"
        return Case(str(content["name"]), sources, dict(content["options"]), layout=layout)


def name_of(path: Path, root: Path) -> str:
    """The name of a scan's case: where it lies below a root, without its ending."""
    path, root = place_of(path), place_of(root)
    relative = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    parts = [*map(result_name, relative.parent.parts), stem_of(path)]
    return "/".join(part for part in parts if part.strip("."))
