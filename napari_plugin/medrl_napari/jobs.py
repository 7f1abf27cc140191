"""Work beside the window: a thread that is watched and cancelled, and never freezes anything."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from medrl.errors import MedrlError, describe
from medrl.trajectory import Step

#: Redraws while agents walk: as many as look smooth and leave the processor to the agents.
_TICK_MS = 125


class Cancelled(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Raised in the work, at its next report, when nobody wants its result any more."""


class Report:
    """What the work says while it runs; each call raises `Cancelled` once the job is cancelled."""

    def __init__(self) -> None:
        """Nothing reported yet."""
        self._lock = threading.Lock()
        self._steps: list[Step] = []
        self._progress: tuple[int, int] | None = None
        self._unwanted = threading.Event()

    def step(self, step: Step) -> None:
        """Tell what agents did; of use as `watch=`."""
        self._check()
        with self._lock:
            self._steps.append(step)

    def progress(self, done: int, total: int) -> None:
        """Tell how much is done; of use as `progress=`."""
        self._check()
        with self._lock:
            self._progress = (done, total)

    def cancel(self) -> None:
        """Let the next call raise."""
        self._unwanted.set()

    def collect(self) -> tuple[list[Step], tuple[int, int] | None]:
        """What has been told since the last call."""
        with self._lock:
            steps, progress = self._steps, self._progress
            self._steps, self._progress = [], None
        return steps, progress

    def _check(self) -> None:
        if self._unwanted.is_set():
            raise Cancelled


class Job(QObject):
    """One run of some work in a thread of its own.

    Exactly one of `done`, `failed` and `cancelled` comes, after all steps; all signals are sent
    from the window's thread.
    """

    stepped = Signal(list)
    """Steps since the last tick, at most eight times a second."""
    progressed = Signal(int, int)
    """Done, total."""
    done = Signal(object)
    """What the work returned."""
    failed = Signal(str)
    """One line that says why."""
    cancelled = Signal()

    def __init__(self, work: Callable[[Report], Any], *, parent: QObject | None = None) -> None:
        """Prepare a run.

        Args:
            work: What to do; gets a `Report`.
            parent: Whose end cancels the run.
        """
        super().__init__(parent)
        self._work = work
        self._report = Report()
        self._outcome: tuple[str, Any] | None = None
        self._thread = threading.Thread(target=self._run, name="medrl-job", daemon=True)
        # A child of the job: it dies with the widget, and no late tick meets a deleted object.
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)
        self.destroyed.connect(self._report.cancel)

    @property
    def running(self) -> bool:
        """Whether its end has not been told yet."""
        return self._timer.isActive()

    @property
    def working(self) -> bool:
        """Whether its thread is alive: after `cancel`, until the work's next report."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._timer.start()
        self._thread.start()

    def cancel(self) -> None:
        """End at once for the window; the work ends at its next report, its result is dropped."""
        self._report.cancel()
        if self.running:
            self._end()
            self.cancelled.emit()

    def _run(self) -> None:
        """In the thread."""
        try:
            self._outcome = ("done", self._work(self._report))
        except Cancelled:
            self._outcome = ("cancelled", None)
        except MedrlError as error:
            self._outcome = ("failed", str(error))
        except MemoryError:
            self._outcome = ("failed", "there is not enough memory for this")
        except Exception as error:
            self._outcome = ("failed", describe(error))

    def _tick(self) -> None:
        """In the window's thread."""
        # Read first: what was reported before the end is then surely among what is collected.
        outcome = self._outcome
        steps, progress = self._report.collect()
        if steps:
            self.stepped.emit(steps)
        if progress is not None and self.running:
            self.progressed.emit(*progress)
        if outcome is None or not self.running:
            return
        self._end()
        kind, value = outcome
        if kind == "done":
            self.done.emit(value)
        elif kind == "failed":
            self.failed.emit(value)
        else:
            self.cancelled.emit()

    def _end(self) -> None:
        self._timer.stop()
