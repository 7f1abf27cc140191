"""Processes on this machine: a case that kills one is listed, the others go on."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Lock
from typing import Any

from medrl.batch.cases import Case
from medrl.batch.engines import Outcome
from medrl.batch.pipeline import DEPTH, Message, Pipeline, Stage, reason
from medrl.batch.store import Store
from medrl.batch.tasks import Task
from medrl.errors import MedrlError

#: How often timeouts are looked at (s).
_TICK = 0.2
#: A case during which so many processes have died is not tried again.
_MOST_DEATHS = 2
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


@dataclass
class _Flight:
    """A case that a process has."""

    case: Case
    deaths: int = 0
    stage: Stage | None = None
    since: float = 0.0


@dataclass
class _Process:
    """A worker process, and what it has to do."""

    process: Any
    pipe: Connection
    ready: bool = False
    flights: dict[str, _Flight] = field(default_factory=dict)

    def free(self, deaths: int) -> bool:
        """Whether it can take another case; one that may kill it goes alone."""
        if not self.ready or len(self.flights) >= DEPTH:
            return False
        alone = deaths > 0 or any(flight.deaths for flight in self.flights.values())
        return not (alone and self.flights)


class LocalEngine:
    """A pool of processes."""

    def __init__(self, workers: int = 1) -> None:
        """Plan for a number of processes; the machine's cores are divided among them.

        Args:
            workers: How many.

        Raises:
            MedrlError: If it is none.
        """
        if workers < 1:
            raise MedrlError("--workers must be at least 1")
        self.workers = workers
        self._context = multiprocessing.get_context("spawn")

    def run(
        self,
        task: Task,
        cases: Sequence[Case],
        root: Path,
        *,
        timeout: float | None,
        tell: Callable[[Outcome], None],
    ) -> None:
        """See :class:`medrl.batch.engines.Engine`."""
        queue = deque(_Flight(case) for case in cases)
        pool = [self._start(task, root) for _ in range(min(self.workers, len(queue)))]
        try:
            while queue or any(process.flights for process in pool):
                for process in pool:
                    while queue and process.free(queue[0].deaths):
                        self._send(process, queue.popleft())
                wait([p.pipe for p in pool] + [p.process.sentinel for p in pool], timeout=_TICK)
                for number, process in enumerate(pool):
                    self._listen(process, tell)
                    late = self._late(process, timeout, tell)
                    if late or not process.process.is_alive():
                        self._listen(process, tell)
                        self._bury(process, queue, tell, killed=late)
                        pool[number] = self._start(task, root)
        finally:
            for process in pool:
                process.process.kill()
            for process in pool:
                process.process.join()

    def _start(self, task: Task, root: Path) -> _Process:
        ours, theirs = self._context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        process = self._context.Process(
            target=_serve, args=(theirs, task, root, threads), daemon=True, name="medrl-batch"
        )
        process.start()
        theirs.close()
        return _Process(process, ours)

    @staticmethod
    def _send(process: _Process, flight: _Flight) -> None:
        flight.stage = None
        process.flights[flight.case.name] = flight
        with suppress(OSError):  # it is dead, which will be noticed
            process.pipe.send(flight.case)

    @staticmethod
    def _listen(process: _Process, tell: Callable[[Outcome], None]) -> None:
        """Take what a process has told."""
        with suppress(EOFError, ConnectionError):  # it is dead
            while process.pipe.poll():
                message = process.pipe.recv()
                if message is None:
                    process.ready = True
                elif message.fatal:
                    raise MedrlError(str(message.error))
                elif message.stage is not None:
                    flight = process.flights[message.name]
                    flight.stage, flight.since = message.stage, time.monotonic()
                else:
                    tell(Outcome(process.flights.pop(message.name).case, message.error))

    @staticmethod
    def _late(process: _Process, timeout: float | None, tell: Callable[[Outcome], None]) -> bool:
        """Whether one of its cases takes too long; that one has failed."""
        if timeout is None:
            return False
        for flight in list(process.flights.values()):
            if flight.stage is not None and time.monotonic() - flight.since > timeout:
                del process.flights[flight.case.name]
                line = f"{flight.stage} took longer than {timeout:g} s (--timeout)"
                tell(Outcome(flight.case, line))
                return True
        return False

    @staticmethod
    def _bury(
        process: _Process,
        queue: deque[_Flight],
        tell: Callable[[Outcome], None],
        *,
        killed: bool,
    ) -> None:
        """Let others do what a process had to do, unless it is what it died of."""
        process.process.kill()
        process.process.join()
        process.pipe.close()
        if not process.ready and not killed:
            raise MedrlError(f"a worker process ended before it began: {_end_of(process)}")
        for flight in reversed(process.flights.values()):
            flight.deaths += not killed
            if flight.deaths < _MOST_DEATHS:
                queue.appendleft(flight)
            else:
                tell(Outcome(flight.case, f"its worker process died twice: {_end_of(process)}"))


def _end_of(process: _Process) -> str:
    code = process.process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}, out of memory?" if name == "SIGKILL" else name
    return f"exit code {code}"


def _serve(pipe: Connection, task: Task, root: Path, threads: int) -> None:
    """A worker process: cases come through a pipe, messages go back."""
    _die_with_parent()
    # The run decides what an interruption means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lock = Lock()

    def tell(message: Message | None) -> None:
        with lock:
            pipe.send(message)

    try:
        pipeline = Pipeline(task.open(threads), Store(root), tell)
    except Exception as error:
        tell(Message("", None, reason(error), fatal=True))
        return
    tell(None)
    try:
        while True:
            while pipe.poll(None if not len(pipeline) else 0):
                pipeline.put(pipe.recv())
            pipeline.step()
    except (EOFError, OSError):
        os._exit(0)  # the run is over


def _die_with_parent() -> None:
    """On Linux, let the kernel end this process with the run, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
