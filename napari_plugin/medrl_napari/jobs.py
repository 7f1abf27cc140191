"""Work beside the window: threads that are watched and cancelled, and never freeze anything."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from medrl.errors import MedrlError, describe
from medrl.trajectory import Step

#: Redraws while agents walk: as many as look smooth and leave the processor to the agents.
_TICK_MS = 125
#: Steps of which a frame tells; of a longer run the last ones.
_MOST_STEPS = 256
#: After a frame that keeps the window busy for so long (s) it rests some times as long.
_SLOW_S, _REST = 0.2, 4
#: A frame that takes longer (s) would keep a result waiting: after two there are no more. The first
#: may only have been slow because layers had to be made.
_TOO_SLOW_S, _MOST_TOO_SLOW = 0.4, 2


def line_of(error: Exception) -> str:
    """An error as one line for the user."""
    if isinstance(error, MedrlError):
        return str(error)
    return describe(error)


class Worker(QObject):
    """A thread that does one thing after another, in the order in which they were asked for.

    Subclasses tell of what was done by signals, which Qt delivers on the window's thread.
    """

    ended = Signal()
    """The thread is over."""

    def __init__(self, name: str, *, parent: QObject | None = None) -> None:
        """Prepare the thread.

        Args:
            name: Of the thread.
            parent: Whose end is the end of this.
        """
        super().__init__(parent)
        self._waiting: deque[Callable[[], None]] = deque()
        self._condition = threading.Condition()
        self._idle_wanted = False
        self._last = False
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self.ended.connect(self._forget, Qt.ConnectionType.QueuedConnection)

    @property
    def working(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    @property
    def wanted(self) -> bool:
        """Whether anything else waits to be done, or nothing is to be done any more."""
        return bool(self._waiting) or self._stopped

    def start(self) -> None:
        """Start the thread."""
        _alive.add(self)
        self._thread.start()

    def put(self, work: Callable[[], None], *, last: bool = False, idle: bool = False) -> None:
        """Do this after all that was asked for before.

        Args:
            work: What to do, in the thread; must not raise.
            last: Whether the thread ends with it.
            idle: Whether `idle` is to be called when nothing else waits.
        """
        with self._condition:
            self._waiting.append(work)
            self._last = last
            self._idle_wanted = idle
            self._condition.notify()

    def wake(self) -> None:
        """Call `idle` when nothing else waits."""
        with self._condition:
            self._idle_wanted = True
            self._condition.notify()

    def idle(self) -> None:
        """Called in the thread when there is nothing else to do and somebody has asked for it."""

    def stop(self) -> None:
        """End after what is being done; what waits is not done any more."""
        with self._condition:
            self._stopped = True
            self._waiting.clear()
            self._condition.notify()

    def tell(self, signal: str, *what: Any) -> None:
        """Emit the signal of this name, unless Qt has gone already."""
        try:
            getattr(self, signal).emit(*what)
        except RuntimeError:
            self._forget()

    def _loop(self) -> None:
        while not (self._last and not self._waiting):
            with self._condition:
                while not (self._waiting or self._idle_wanted or self._stopped):
                    self._condition.wait()
                if self._stopped:
                    break
                work = self._waiting.popleft() if self._waiting else None
                if work is None:
                    self._idle_wanted = False
            (work or self.idle)()
        self.tell("ended")

    def _forget(self) -> None:
        _alive.discard(self)


#: Workers whose threads run; Qt's part of one must not be freed in its own thread.
_alive: set[Worker] = set()


class Cancelled(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Raised in the work, at its next report, when nobody wants its result any more."""


class Report:
    """What the work says while it runs; each call raises `Cancelled` once the job is cancelled."""

    def __init__(self) -> None:
        """Nothing reported yet."""
        self._lock = threading.Lock()
        self._steps: deque[Step] = deque(maxlen=_MOST_STEPS)
        self._news = False
        self._progress: tuple[int, int] | None = None
        self._unwanted = threading.Event()

    def step(self, step: Step) -> None:
        """Tell what agents did; of use as `watch=`."""
        self._check()
        with self._lock:
            self._steps.append(step)
            self._news = True

    def progress(self, done: int, total: int) -> None:
        """Tell how much is done; of use as `progress=`."""
        self._check()
        with self._lock:
            self._progress = (done, total)

    def cancel(self) -> None:
        """Let the next call raise."""
        self._unwanted.set()

    def collect(self) -> tuple[list[Step], tuple[int, int] | None]:
        """The last steps, if there is a new one; and the progress, if there is any."""
        with self._lock:
            steps = list(self._steps) if self._news else []
            progress, self._progress, self._news = self._progress, None, False
        return steps, progress

    def _check(self) -> None:
        if self._unwanted.is_set():
            raise Cancelled


class Job(Worker):
    """One run of some work in a thread of its own.

    Exactly one of `done`, `failed` and `cancelled` comes, as soon as the window is free, and all
    signals are sent from the window's thread. A frame tells of all that was done lately, so that
    none need be seen: where drawing is slow frames are left out, and no result waits for them.
    """

    framed = Signal(list)
    """The last steps, oldest first, at most eight times a second."""
    progressed = Signal(int, int)
    """Done, total."""
    done = Signal(object)
    """What the work returned."""
    failed = Signal(str)
    """One line that says why."""
    cancelled = Signal()
    _over = Signal(str, object)

    def __init__(self, work: Callable[[Report], Any], *, parent: QObject | None = None) -> None:
        """Prepare a run.

        Args:
            work: What to do; gets a `Report`.
            parent: Whose end cancels the run.
        """
        super().__init__("medrl-job", parent=parent)
        self._work = work
        self._report = Report()
        self._running = False
        self._too_slow = 0
        self._drawing_s = 0.0
        self._due = 0.0
        # A child of the job: it dies with the widget, and no late tick meets a deleted object.
        self._timer = QTimer(self, singleShot=True)
        self._timer.timeout.connect(self._tick)
        self._over.connect(self._end, Qt.ConnectionType.QueuedConnection)
        self.destroyed.connect(self._report.cancel)

    @property
    def running(self) -> bool:
        """Whether its end has not been told yet."""
        return self._running

    def start(self) -> None:
        """Begin."""
        self._running = True
        self.put(self._run, last=True)
        super().start()
        self._wait(_TICK_MS / 1000)

    def cancel(self) -> None:
        """End at once for the window; the work ends at its next report, its result is dropped."""
        self._report.cancel()
        self._end("cancelled", None)

    def _run(self) -> None:
        try:
            outcome = ("done", self._work(self._report))
        except Cancelled:
            outcome = ("cancelled", None)
        except Exception as error:
            outcome = ("failed", line_of(error))
        self.tell("_over", *outcome)

    def _tick(self) -> None:
        # What kept the window busy since a tick that drew something is what that drawing led to.
        late = time.perf_counter() - self._due
        cost = self._drawing_s and self._drawing_s + max(late, 0.0)
        self._drawing_s = 0.0
        self._too_slow += cost > _TOO_SLOW_S
        if cost > _SLOW_S:
            self._wait(_REST * cost)
            return
        began = time.perf_counter()
        steps, progress = self._report.collect()
        if steps:
            self.framed.emit(steps)
        if progress is not None and self._running:
            self.progressed.emit(*progress)
        if steps or progress is not None:
            self._drawing_s = time.perf_counter() - began
        self._wait(_TICK_MS / 1000)

    def _wait(self, seconds: float) -> None:
        if self._running and self._too_slow < _MOST_TOO_SLOW:
            self._due = time.perf_counter() + seconds
            self._timer.start(round(1000 * seconds))

    def _end(self, kind: str, value: Any) -> None:
        if not self._running:
            return
        self._running = False
        self._timer.stop()
        if kind == "cancelled":
            self.cancelled.emit()
        else:
            (self.done if kind == "done" else self.failed).emit(value)


def silence(*signals: Any) -> None:
    """Let nobody hear these signals any more."""
    for signal in signals:
        # Nobody has connected it, or Qt has gone already.
        with suppress(RuntimeError, TypeError):
            signal.disconnect()
