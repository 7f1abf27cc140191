"""Processes on this machine: a case that kills one is listed, the others go on."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from threading import Lock
from typing import Any

from medrl.batch.cases import Case
from medrl.batch.engines import Outcome
from medrl.batch.engines.pool import run_pool
from medrl.batch.pipeline import Message, Pipeline, reason
from medrl.batch.store import Store
from medrl.batch.tasks import Task
from medrl.errors import MedrlError

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


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

        def start() -> _Process:
            return self._start(task, root)

        run_pool(cases, self.workers, start=start, wait=_wait, timeout=timeout, tell=tell)

    def _start(self, task: Task, root: Path) -> _Process:
        ours, theirs = self._context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        process = self._context.Process(
            target=_serve, args=(theirs, task, root, threads), daemon=True, name="medrl-batch"
        )
        process.start()
        theirs.close()
        return _Process(process, ours)


class _Process:
    """A worker process."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe

    def send(self, case: Case) -> None:
        with suppress(OSError):  # it is dead, which will be noticed
            self.pipe.send(case)

    def receive(self) -> list[Message | None]:
        told = []
        with suppress(EOFError, OSError):  # it is dead
            while self.pipe.poll():
                told.append(self.pipe.recv())
        return told

    def alive(self) -> bool:
        return bool(self.process.is_alive())

    def lost(self) -> bool:
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def cause(self) -> str:
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"{name}, out of memory?" if name == "SIGKILL" else name
        return f"exit code {code}"


def _wait(workers: Sequence[_Process], seconds: float) -> None:
    wait_for([w.pipe for w in workers] + [w.process.sentinel for w in workers], timeout=seconds)


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
