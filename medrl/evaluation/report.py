"""Figures for people and files: tables, JSON, CSV, and where the figures come from."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import medrl
from medrl.errors import MedrlError
from medrl.files import atomic_path

if TYPE_CHECKING:
    import rich.table

#: Packages that figures depend on.
_PACKAGES = ("torch", "monai", "numpy", "SimpleITK")


@dataclass(frozen=True)
class Table:
    """A table to be shown.

    Attributes:
        title: Above it; may be empty.
        header: Names of the columns; the first says what a row is about.
        rows: Cells; a float is shown with ``digits``, None as ``-``, the rest as text.
        digits: After the point.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    digits: int = 2

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[self._text(value) for value in row] for row in self.rows]

    def markdown(self) -> str:
        """The table in Markdown, without its title."""
        lines = [list(self.header), ["---"] * len(self.header), *self.cells()]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def rich(self) -> rich.table.Table:
        """The table for a terminal."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=Text(self.title) if self.title else None,
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        first, *others = self.header
        table.add_column(first, no_wrap=True)
        for column in others:
            table.add_column(column, justify="right")
        for row in self.cells():
            table.add_row(*(Text(cell) for cell in row))
        return table

    def _text(self, value: object) -> str:
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return "-"
        return f"{value:.{self.digits}f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Evaluation:
    """All that comes out of an evaluation.

    Attributes:
        summary: The figures; made ready for JSON by :func:`plain`.
        tables: What a person is shown.
        lines: Sentences below the tables.
        files: Rows by the name of the CSV file that they go to.
        failed: One line for each case or method that failed.
    """

    summary: Mapping[str, Any]
    tables: Sequence[Table] = ()
    lines: Sequence[str] = ()
    files: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    failed: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", plain(self.summary))

    def write(self, folder: Path) -> Path:
        """Write the summary as ``evaluation.json``, and the CSV files, into an existing folder.

        Returns:
            The file of the summary.

        Raises:
            MedrlError: If they cannot be written.
        """
        write_json(folder / "evaluation.json", self.summary)
        for name, rows in self.files.items():
            write_csv(folder / name, rows)
        return folder / "evaluation.json"


def write_json(path: Path, content: Any, *, digits: int | None = None) -> None:
    """Write figures as JSON, whole or not at all.

    Args:
        path: The file.
        content: See :func:`plain`.
        digits: Round to so many after the point; not at all if None.

    Raises:
        MedrlError: If it cannot be written.
    """
    text = json.dumps(plain(content, digits=digits), indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` has written; nothing if the file does not exist."""
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of equal keys, which become the header; NaN and None as nothing.

    Raises:
        MedrlError: If rows differ in their keys, or the file cannot be written.
    """
    table = [plain(row) for row in rows]
    header = list(table[0]) if table else []
    if any(list(row) != header for row in table):
        raise MedrlError(f"cannot write {path}: its rows differ in their columns")
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(["" if v is None else v for v in row.values()] for row in table)


def plain(value: Any, *, digits: int | None = None) -> Any:
    """Anything as JSON takes it: NaN and infinity as null, arrays as lists, dataclasses as objects.

    Args:
        value: Nested dictionaries, sequences, dataclasses, arrays, numbers and text.
        digits: Round to so many after the point; not at all if None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits=digits) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item, digits=digits) for item in value]
    if isinstance(value, float):
        if not np.isfinite(value):
            return None
        return value if digits is None else round(value, digits)
    return str(value) if isinstance(value, Path) else value


def versions() -> dict[str, str]:
    """Versions that figures depend on."""
    found = {"python": platform.python_version(), "medrl": medrl.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "machine": platform.machine()}


def provenance(manifest: Mapping[str, Any], **measured_on: Any) -> dict[str, Any]:
    """What was measured on what.

    Args:
        manifest: The model's.
        measured_on: Data, split and whatever else fixes the figures.
    """
    return {
        "model": str(manifest.get("name")),
        "weights_sha256": manifest.get("weights", {}).get("sha256"),
        "versions": versions(),
        **measured_on,
    }
