"""Processes on this machine: a job that kills one is listed, the others go on."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from threading import Lock
from typing import Any

from medrl.engines import J, O, Outcome, Progress, Task
from medrl.engines.messages import Fatal, Message, Ready, reason
from medrl.engines.pipeline import Pipeline, depth
from medrl.engines.pool import Pool
from medrl.errors import MedrlError

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl
#: Signals that end a run: Ctrl-C; a scheduler that wants the machine back; a terminal that closes.
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
#: By these the libraries below NumPy and PyTorch learn how many threads they may use.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


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
        task: Task[J, O],
        jobs: Sequence[J],
        output: O,
        *,
        timeout: float | None = None,
        on_end: Callable[[Outcome], None],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """See :class:`medrl.engines.Engine`."""
        started: list[_Process] = []
        pool = Pool[J, _Process](
            start=lambda: self._start(task, output, started),
            wait=_wait,
            end=_end,
            depth=depth(task.batch_size, read_ahead=task.read_ahead),
            timeout=timeout,
            on_end=on_end,
            on_progress=on_progress,
        )
        try:
            pool.run(jobs, self.workers)
        finally:
            # Also those that the pool does not know yet, if it was interrupted at that moment.
            _end(started)

    def _start(self, task: Task[J, O], output: O, started: list[_Process]) -> _Process:
        resource_tracker.ensure_running()  # it lets signals through again
        with _signals_deferred():
            ours, theirs = self._context.Pipe()
            threads = threads_of(self.workers)
            process = self._context.Process(
                target=_serve,
                args=(theirs, task, output, threads, os.getpid()),
                daemon=True,
                name="medrl-worker",
            )
            process.start()
            theirs.close()
            started[:] = [worker for worker in started if worker.alive()]
            started.append(_Process(process, ours))
        return started[-1]


def threads_of(workers: int) -> int:
    """How many threads each of some workers has; the cores that are granted are divided."""
    if hasattr(os, "sched_getaffinity"):  # a cluster's scheduler may grant less than there are
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, cores // workers)


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Let signals that end the run wait; processes started meanwhile keep them waiting."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    """A worker process."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe

    def send(self, job: Any) -> None:
        with suppress(OSError):  # it is dead, which will be noticed
            self.pipe.send(job)

    def receive(self) -> list[Message]:
        messages: list[Message] = []
        with suppress(EOFError, OSError):  # it is dead
            while self.pipe.poll():
                messages.append(self.pipe.recv())
        return messages

    def alive(self) -> bool:
        return bool(self.process.is_alive())

    def lost(self) -> bool:
        return False

    def kill(self) -> None:
        _end([self])

    def cause(self) -> str:
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"{name}, out of memory?" if name == "SIGKILL" else name
        return f"exit code {code}"


def _wait(workers: Sequence[_Process], seconds: float) -> None:
    wait_for([w.pipe for w in workers] + [w.process.sentinel for w in workers], timeout=seconds)


def _end(workers: Sequence[_Process]) -> None:
    with _signals_deferred():
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()


def _serve(pipe: Connection, task: Task[J, O], output: O, threads: int, parent: int) -> None:
    """A worker process: jobs come through a pipe, messages go back."""
    _die_with(parent)
    # The run decides what an interruption means; this process was started with it blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING - {signal.SIGINT})
    for name in _THREADS:
        os.environ[name] = str(threads)
    lock = Lock()

    def send(message: Message) -> None:
        with lock:
            pipe.send(message)

    try:
        pipeline = Pipeline(task.open(threads, output), send, batch_size=task.batch_size)
    except Exception as error:
        send(Fatal(reason(error)))
        return
    send(Ready())
    try:
        while True:
            while pipe.poll(None if not len(pipeline) else 0):
                pipeline.put(pipe.recv())
            pipeline.step()
    except (EOFError, OSError):
        os._exit(0)  # the run is over


def _die_with(parent: int) -> None:
    """On Linux, let the kernel end this process with the run, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it has ended already
