"""What commands share: where they print, progress bars, the table of a detection."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from medrl.errors import MedrlError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn
    from rich.table import Table

    from medrl.landmark.detect import Detection

_T = TypeVar("_T")

#: Width of tables that go into a pipe or file.
_PIPE_WIDTH = 140
#: From so many of the latest scans the pace of a run is told.
_RECENT = 32
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


class Pace:
    """How fast the scans of a run end, and how long the rest will take."""

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin.

        Args:
            total: How many scans there are.
            clock: Tells the time (s).
        """
        self._left = total
        self._clock = clock
        self._times = deque([clock()], maxlen=_RECENT + 1)

    def ended(self) -> None:
        """Note that a scan has ended."""
        self._left -= 1
        self._times.append(self._clock())

    @property
    def per_minute(self) -> float | None:
        """Scans a minute, of late; None while none has ended."""
        took = self._times[-1] - self._times[0]
        return 60 * (len(self._times) - 1) / took if took > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at this pace; None if that is not known yet."""
        rate = self.per_minute
        if rate is None:
            return None
        return max(0.0, 60 * self._left / rate - (self._clock() - self._times[-1]))

    def __str__(self) -> str:
        """Both, for a person."""
        rate, left = self.per_minute, self.seconds_left
        if rate is None or left is None:
            return "starting"
        digits = 1 if rate < 10 else 0
        return f"{rate:.{digits}f} scans/min, {duration(left)} left"


def duration(seconds: float) -> str:
    """A time for a person, such as ``45 s``, ``12 min`` or ``3 h 20 min``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def scan_progress(total: int) -> Iterator[Callable[[bool], None]]:
    """Show a line with scans done and failed, their rate, and the time left.

    Nothing is shown if standard error is not a terminal.

    Args:
        total: How many scans there are to do.

    Yields:
        To be called for each scan that ends: whether it has failed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    pace, failed = Pace(total), 0
    progress = Progress(
        TextColumn("scans"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
        _pace_column(pace),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )

    def ended(has_failed: bool) -> None:
        nonlocal failed
        failed += has_failed
        pace.ended()
        progress.update(bar, advance=1, failed=f"{failed} failed" if failed else "")

    with progress:
        bar = progress.add_task("scans", total=total, failed="")
        yield ended


def _pace_column(pace: Pace) -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Column(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(str(pace))

    return Column()


def check_device(name: str) -> str:
    """Check the name of a device.

    Raises:
        MedrlError: If PyTorch does not know it or it is not there.
    """
    if name == "cpu":
        return name  # there without having to import PyTorch, which takes seconds
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
