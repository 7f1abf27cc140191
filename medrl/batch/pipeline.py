"""One worker: while a case is worked on, the next is read and the one before is written."""

from __future__ import annotations

import errno
import shutil
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

from medrl.batch.cases import Case
from medrl.batch.store import Store
from medrl.batch.tasks import Worker
from medrl.errors import MedrlError, describe

Stage = Literal["reading", "working", "writing"]

#: A worker is busy with so many cases at the same time.
DEPTH = 3


class Message(NamedTuple):
    """What a worker tells: a stage of a case begins, or the case has ended.

    Attributes:
        name: Of the case.
        stage: Which begins; None at the end.
        error: Why the case failed, if it did.
        fatal: Whether the other cases would fail as well.
    """

    name: str
    stage: Stage | None
    error: str | None = None
    fatal: bool = False


class Pipeline:
    """Takes cases, and works through them one after another, each stage in its own thread."""

    def __init__(self, worker: Worker, store: Store, tell: Callable[[Message], None]) -> None:
        """Be ready.

        Args:
            worker: The task, opened.
            store: Where results go.
            tell: Told of every stage and end; called from several threads.
        """
        self._worker = worker
        self._store = store
        self._tell = tell
        self._reader = ThreadPoolExecutor(1, "medrl-read")
        self._writer = ThreadPoolExecutor(1, "medrl-write")
        self._ahead: deque[tuple[Case, Future[tuple[Any, float]]]] = deque()

    def __len__(self) -> int:
        """Cases that have not been worked on yet."""
        return len(self._ahead)

    def put(self, case: Case) -> None:
        """Take a case."""
        self._ahead.append((case, self._reader.submit(self._read, case)))

    def step(self) -> None:
        """Work on the next case, and leave its writing to the writer."""
        case, data = self._ahead.popleft()
        try:
            scan, reading = data.result()
            self._tell(Message(case.name, "working"))
            began = time.perf_counter()
            result = self._worker.work(case, scan)
            seconds = {"reading": reading, "working": time.perf_counter() - began}
        except BaseException as error:
            self._end(case, error)
            return
        self._writer.submit(self._write, case, result, seconds)

    def close(self) -> None:
        """Wait for what is being written."""
        self._reader.shutdown()
        self._writer.shutdown()

    def _read(self, case: Case) -> tuple[Any, float]:
        self._tell(Message(case.name, "reading"))
        began = time.perf_counter()
        return self._worker.read(case), time.perf_counter() - began

    def _write(self, case: Case, result: Any, seconds: dict[str, float]) -> None:
        try:
            self._tell(Message(case.name, "writing"))
            began = time.perf_counter()
            folder = self._store.work_folder(case)
            try:
                record = self._worker.write(case, result, folder)
                seconds["writing"] = time.perf_counter() - began
                rounded = {stage: round(value, 3) for stage, value in seconds.items()}
                self._store.finish(case, folder, record, rounded)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except BaseException as error:
            self._end(case, error)
            return
        self._tell(Message(case.name, None))

    def _end(self, case: Case, error: BaseException) -> None:
        """A case has failed."""
        self._tell(Message(case.name, None, reason(error), _disk_is_full(error)))


def reason(error: BaseException) -> str:
    """One line that says why a case failed."""
    if isinstance(error, MedrlError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "does not fit in memory; crop or downsample it"
    return describe(error)


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, is that of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False
