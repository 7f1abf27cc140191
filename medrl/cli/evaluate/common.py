"""What the evaluations of all systems share: splits, provenance, writing and showing figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from medrl.cli import complain
from medrl.cli.terminal import stdout
from medrl.errors import MedrlError
from medrl.files import atomic_path

if TYPE_CHECKING:
    from rich.table import Table

    from medrl.evaluation import Evaluation

Split = Literal["training", "validation", "test"]


class Command(Protocol):
    """What the options of every evaluation have in common."""

    @property
    def data(self) -> Path:
        """The datalist."""

    @property
    def out(self) -> Path:
        """Folder to write into."""

    @property
    def split(self) -> Split:
        """Which scans of the datalist."""

    @property
    def json(self) -> bool:
        """Print the figures in JSON instead of tables."""


def check_split(command: Command, cases: Mapping[str, Sequence[object]]) -> None:
    """Refuse a split that has no scans.

    Raises:
        MedrlError: If it has none.
    """
    if not cases[command.split]:
        raise MedrlError(f"{command.data} has no scans in the split {command.split!r}")


def provenance(manifest: Mapping[str, Any], command: Command) -> dict[str, Any]:
    """What was measured on what."""
    return {
        "model": str(manifest.get("name")),
        "versions": manifest.get("versions", {}),
        "data": str(command.data),
        "split": command.split,
    }


def write(
    folder: Path, summary: Mapping[str, Any], files: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """Write the figures as JSON and the rows of some CSV files, each file whole or not at all.

    Raises:
        MedrlError: If they cannot be written.
    """
    from medrl.volume.points import write_points_csv

    try:
        with atomic_path(folder / "evaluation.json") as temporary:
            temporary.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
        for name, rows in files.items():
            write_points_csv(folder / name, rows)
    except OSError as error:
        raise MedrlError(f"cannot write the figures to {folder}: {error.strerror}") from None


def finish(command: Command, evaluation: Evaluation, manifest: Mapping[str, Any]) -> int:
    """Write an evaluation, and print it; the exit code."""
    summary = {**provenance(manifest, command), **evaluation.summary}
    evaluation = replace(evaluation, summary=summary)
    evaluation.write(command.out)
    show(
        command,
        evaluation.summary,
        [table.rich() for table in evaluation.tables],
        *evaluation.lines,
    )
    for line in evaluation.failed:
        complain(line)
    return 1 if evaluation.failed else 0


def show(
    command: Command, summary: Mapping[str, Any], tables: Sequence[Table], *lines: str
) -> None:
    """Print the figures, as JSON or for a person."""
    if command.json:
        print(json.dumps(summary, indent=1, allow_nan=False))
        return
    console = stdout()
    for table in tables:
        console.print(table)
    for line in lines:
        console.print(line)
    console.print(f"wrote {command.out / 'evaluation.json'}", markup=False, soft_wrap=True)
