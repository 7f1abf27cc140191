"""Messages of worker processes to the pool that they belong to."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from medrl.engines import Outcome, Progress
from medrl.errors import MedrlError, describe
from medrl.files import printable

#: What happens to a job; it waits when others are in the way.
Phase = Literal["reading", "working", "writing", "waiting"]


@dataclass(frozen=True)
class Ready:
    """The task has been opened; jobs may come."""


@dataclass(frozen=True)
class Began:
    """A phase of a job begins."""

    name: str
    phase: Phase


@dataclass(frozen=True)
class Fatal:
    """No job can be worked on, for the reason that is given."""

    error: str


Message = Ready | Began | Progress | Outcome | Fatal


def failure(name: str, error: BaseException) -> Outcome | Fatal:
    """The message about a job that has raised; a full disk is the end of all of them."""
    line = reason(error)
    full = (errno.ENOSPC, errno.EDQUOT)
    if any(isinstance(one, OSError) and one.errno in full for one in _causes(error)):
        return Fatal(line)
    return Outcome(name, line)


def reason(error: BaseException) -> str:
    """One line that says why a job failed."""
    if isinstance(error, MedrlError):
        return printable(" ".join(str(error).split()))
    return printable(describe(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
