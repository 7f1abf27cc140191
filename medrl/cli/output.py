"""Standard output and error that cannot fail: what is printed may be lost, what is done is not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from medrl.files import one_line, printable

_PROG = "medrl"
#: Columns that lines are wrapped to at the least.
_NARROWEST = 40
_NAMES = ("stdin", "stdout", "stderr")


@contextmanager
def steady_output() -> Iterator[None]:
    r"""Let nothing that happens while printing end the work, or change how it ends.

    Streams may be closed (daemons), end early (``| head``), lie on a full disk, or have an encoding
    that lacks letters of a file's name: these are then written as escapes, such as ``\u982d``.
    """
    _occupy_closed()
    if shutil.get_terminal_size().columns < _NARROWEST:
        os.environ["COLUMNS"] = str(_NARROWEST)  # in less, libraries wrap help without end
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Steady(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def say(line: str) -> None:
    """Print one line of the results, whatever the names in it look like."""
    print(one_line(line))


def tell(kind: str, line: str) -> None:
    """Print one line on standard error, whatever the message looks like.

    Args:
        kind: ``error``, ``warning`` or ``note``.
        line: What there is to say.
    """
    print(f"{_PROG}: {kind}: {one_line(' '.join(line.split()))}", file=sys.stderr)


class _Steady:
    """A stream whose troubles reach nobody; all but writing is left to the stream itself."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"
        known = printable(text).encode(encoding, "backslashreplace").decode(encoding)
        try:
            self._stream.write(known)
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        """Let what is still in buffers, and all that follows, go nowhere."""
        with suppress(OSError, ValueError):
            _to_nowhere(self._stream.fileno())


def _occupy_closed() -> None:
    """Open what the process was started without, lest a file of results becomes its output."""
    for number, name in enumerate(_NAMES):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                _to_nowhere(number)


def _to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
