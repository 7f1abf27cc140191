"""One worker: while a case is worked on, the next is read and the one before is written."""

from __future__ import annotations

import errno
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

from medrl.batch.cases import Case
from medrl.batch.store import Store
from medrl.batch.tasks import Worker
from medrl.errors import MedrlError, describe

Stage = Literal["reading", "working", "writing", "waiting"]


def depth(together: int) -> int:
    """With how many cases a worker is busy at the same time.

    Args:
        together: How many it works on at once; as many are read ahead, and one is written.
    """
    return 2 * together + 1


#: That of a worker that works on one case after another.
DEPTH = depth(1)


class Message(NamedTuple):
    """What a worker tells: a stage of a case begins, it waits for the next, or it has ended.

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


class _Read(NamedTuple):
    """A case that has been read, and how long that took."""

    case: Case
    data: Any
    seconds: float


class Pipeline:
    """Takes cases, and works through them in their order, each stage in its own thread."""

    def __init__(
        self,
        worker: Worker,
        store: Store,
        tell: Callable[[Message], None],
        *,
        together: int = 1,
    ) -> None:
        """Be ready.

        Args:
            worker: The task, opened.
            store: Where results go.
            tell: Told of every stage and end; called from several threads.
            together: How many cases the worker may be given at once.
        """
        self._together = together
        self._worker = worker
        self._store = store
        self._tell = tell
        self._reader = ThreadPoolExecutor(1, "medrl-read")
        self._writer = ThreadPoolExecutor(1, "medrl-write")
        self._ahead: deque[tuple[Case, Future[_Read]]] = deque()

    def __len__(self) -> int:
        """Cases that have not been worked on yet."""
        return len(self._ahead)

    def put(self, case: Case) -> None:
        """Take a case."""
        self._ahead.append((case, self._reader.submit(self._read, case)))

    def step(self) -> None:
        """Work on the next case, with those after it that are read; leave the rest to the writer.

        It waits until a case is read, unless none can be.
        """
        group: list[_Read] = []
        while self._ahead and len(group) < self._together:
            case, reading = self._ahead[0]
            if group and not reading.done():
                break
            self._ahead.popleft()
            try:
                group.append(reading.result())
            except BaseException as error:
                self._end(case, error)
        if group:
            self._work(group)

    def close(self) -> None:
        """Wait for what is being written."""
        self._reader.shutdown()
        self._writer.shutdown()

    def _read(self, case: Case) -> _Read:
        self._tell(Message(case.name, "reading"))
        began = time.perf_counter()
        data = self._worker.read(case)
        seconds = time.perf_counter() - began
        self._tell(Message(case.name, "waiting"))
        return _Read(case, data, seconds)

    def _work(self, group: Sequence[_Read]) -> None:
        for one in group:
            self._tell(Message(one.case.name, "working"))
        began = time.perf_counter()
        try:
            results = self._worker.work([one.case for one in group], [one.data for one in group])
        except BaseException as error:
            if len(group) == 1:
                self._end(group[0].case, error)
                return
            # Whose fault it is, or whether they are too large together, shows when each is alone.
            for one in group:
                self._work([one])
            return
        working = (time.perf_counter() - began) / len(group)
        for one, result in zip(group, results, strict=True):
            if isinstance(result, BaseException):
                self._end(one.case, result)
            else:
                self._tell(Message(one.case.name, "waiting"))
                seconds = {"reading": one.seconds, "working": working}
                self._writer.submit(self._write, one.case, result, seconds)

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
    if any(_is_of_memory(one) for one in _chain(error)):
        return "does not fit in memory; crop or downsample it"
    return describe(error)


def _is_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out; PyTorch has words of its own for it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def _disk_is_full(error: BaseException) -> bool:
    """Whether an error, or what led to it, is that of a full disk."""
    return any(
        isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT)
        for one in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
