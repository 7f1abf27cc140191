"""What commands share: where they print, progress bars, the table of a detection."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from medrl.errors import MedrlError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from medrl.landmark.detect import Detection

_T = TypeVar("_T")

#: Width of tables that go into a pipe or file.
_PIPE_WIDTH = 140
_STATUS_STYLES = {"found": "green", "corrected": "magenta", "absent": "yellow"}


def parse(command: type[_T] | Mapping[str, type[_T]], argv: Sequence[str], *, prog: str) -> _T:
    """Parse the options of one command.

    Args:
        command: Dataclass of its options; or, by name, those of its subcommands.
        argv: What follows the command's name.
        prog: Name of the command in its help.

    Returns:
        An instance.

    Raises:
        SystemExit: After printing help (code 0) or a complaint (code 2).
    """
    import tyro

    if isinstance(command, Mapping):
        options: _T = tyro.extras.subcommand_cli_from_dict(
            dict(command), prog=prog, args=list(argv)
        )
        return options
    return tyro.cli(command, prog=prog, args=list(argv))


def stdout() -> Console:
    """Console for results."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def progress_bars() -> Progress:
    """Progress bars on standard error; nothing at all if that is not a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}"),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def check_device(name: str) -> str:
    """Check the name of a device.

    Raises:
        MedrlError: If PyTorch does not know it or it is not there.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise MedrlError(f"{name!r} is not a device: try cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MedrlError(f"device {name} is not available here: use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MedrlError(f"there is no device {name}: this machine has {torch.cuda.device_count()}")
    if device.type not in ("cpu", "cuda"):
        raise MedrlError(f"device {name} is not supported: use cpu or cuda")
    return name


def detection_table(detection: Detection, *, title: str) -> Table:
    """A detection for a person to read; coordinates are RAS mm."""
    from rich.table import Table
    from rich.text import Text

    from medrl.landmark.results import landmark_rows

    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("landmark", no_wrap=True)
    for axis in ("R", "A", "S"):
        table.add_column(f"{axis} mm", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("confidence", justify="right", no_wrap=True)
    table.add_column("note")
    for row in landmark_rows(detection):
        sure = row["confidence"]
        table.add_row(
            row["name"],
            *("-" if row[axis] is None else f"{row[axis]:.1f}" for axis in "xyz"),
            Text(row["status"], style=_STATUS_STYLES.get(row["status"], "")),
            "-" if sure is None else f"{sure:.2f}",
            row["note"],
        )
    return table
