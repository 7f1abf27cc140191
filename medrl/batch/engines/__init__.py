"""Where the work is done. A third engine is one more small file with the same few functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medrl.batch.cases import Case
from medrl.batch.tasks import Task


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        case: Which.
        error: Why it failed, one line; None if its folder is there.
    """

    case: Case
    error: str | None = None


class Engine(Protocol):
    """Works through cases; what it needs to know comes when it is made."""

    def run(
        self,
        task: Task,
        cases: Sequence[Case],
        root: Path,
        *,
        timeout: float | None,
        tell: Callable[[Outcome], None],
    ) -> None:
        """Work through cases; each ends with its folder below the root, or with an error.

        Args:
            task: What to do.
            cases: What to do it to.
            root: The output folder (:class:`medrl.batch.store.Store`).
            timeout: Seconds that reading, working and writing may take each; None for ever.
            tell: Called once for each case, in whatever order they end.

        Raises:
            MedrlError: If no case can be worked on: the task cannot be opened, the disk is full.
            KeyboardInterrupt: If the user wants no more; nothing is left running.
        """
