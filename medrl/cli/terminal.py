"""What commands share: options, where they print, progress bars."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from medrl.errors import MedrlError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

    from medrl.systems import System

_T = TypeVar("_T")

#: Width of tables that go into a pipe or file.
_PIPE_WIDTH = 140
#: The pace of a run is that of so many of the latest scans.
_RECENT = 32


def parse(command: type[_T], argv: Sequence[str], *, prog: str, description: str = "") -> _T:
    """Parse the options of one command.

    Args:
        command: Dataclass of its options.
        argv: What follows the command's name.
        prog: Name of the command in its help.
        description: What it does; the docstring of its options if empty.

    Returns:
        An instance.

    Raises:
        SystemExit: After printing help (code 0) or a complaint (code 2).
    """
    import tyro

    return tyro.cli(command, prog=prog, args=list(argv), description=description or None)


def choose(argv: Sequence[str], choices: Mapping[str, System], *, prog: str) -> System:
    """The system that the first word of a command line names.

    Args:
        argv: What follows the command's name.
        choices: Systems by the words that stand for them.
        prog: Name of the command.

    Raises:
        SystemExit: After printing help (code 0).
        MedrlError: If it names none.
    """
    word = argv[0] if argv else ""
    if word in ("-h", "--help"):
        print(f"usage: {prog} {{{','.join(choices)}}} ...\n")
        for name, system in choices.items():
            print(f"  {name:<14}{system.summary}")
        print(f"\n`{prog} NAME --help` explains one.")
        raise SystemExit(0)
    if word not in choices:
        raise MedrlError(f"{prog}: say first which of {', '.join(choices)}")
    return choices[word]


def options_type(
    name: str, base: type[_T], added: Sequence[tuple[str, Any] | tuple[str, Any, Any]]
) -> type[_T]:
    """Options of a command, and those of a system.

    Args:
        name: Of the new dataclass.
        base: The former, a frozen dataclass.
        added: Names, types and, perhaps, defaults of further fields.
    """
    return cast(
        type[_T], make_dataclass(name, list(added), bases=(base,), frozen=True, kw_only=True)
    )


def model_field(system: System) -> tuple[str, Any, Any]:
    """The option that names a model; the usual one of a system is its default."""
    import tyro

    what = "Name of a model (see `medrl models`) or the folder of one"
    if system.default_model is None:
        what += "; left out: one that ships for such scans, if there is one"
    return "model", Annotated[str | None, tyro.conf.arg(help=f"{what}.")], system.default_model


def find_model(system: System, name: str) -> Path:
    """The folder of a model of a system.

    Raises:
        MedrlError: If there is none, or it is of another system.
    """
    from medrl.systems import of_model

    other, bundle = of_model(name)
    if other.name != (system.models or system.name):
        raise MedrlError(f"{name} is a {other.name} model: medrl {other.verb} is what uses it")
    return bundle


def flat(kind: type[Any], *, repeated: bool = False) -> Any:
    """The type of a field whose own fields become options, with no word before their names.

    Args:
        kind: A dataclass.
        repeated: Options of several values are given again and again, instead of all at once.
    """
    import tyro

    markers = (tyro.conf.arg(name=""), *((tyro.conf.UseAppendAction,) if repeated else ()))
    return Annotated[(kind, *markers)]


def stdout() -> Console:
    """Console for results; names are shown as they are, brackets and colons included."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}", markup=False),
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
