"""Inside a worker: while a job is worked on, the next is read and the one before is written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple

from medrl.engines import J, Outcome, Processor
from medrl.engines.messages import Began, Message, failure


def depth(batch_size: int, *, read_ahead: bool = True) -> int:
    """With how many jobs a worker is busy at the same time.

    Args:
        batch_size: How many it works on at once.
        read_ahead: Whether as many are read meanwhile, and one is written.
    """
    return 2 * batch_size + 1 if read_ahead else batch_size


class _Read(NamedTuple):
    """A job that has been read, and how long that took."""

    job: Any
    data: Any
    seconds: float


class Pipeline(Generic[J]):
    """Takes jobs, and works through them in their order, each phase in its own thread."""

    def __init__(
        self,
        processor: Processor[J],
        send: Callable[[Message], None],
        *,
        batch_size: int = 1,
    ) -> None:
        """Be ready.

        Args:
            processor: What reads, works and writes.
            send: Takes messages; called from several threads.
            batch_size: How many jobs the processor may be given at once.
        """
        self._batch_size = batch_size
        self._processor = processor
        self._send = send
        self._reader = ThreadPoolExecutor(1, "medrl-read")
        self._writer = ThreadPoolExecutor(1, "medrl-write")
        self._ahead: deque[tuple[J, Future[_Read]]] = deque()

    def __len__(self) -> int:
        """Jobs that have not been worked on yet."""
        return len(self._ahead)

    def put(self, job: J) -> None:
        """Take a job."""
        self._ahead.append((job, self._reader.submit(self._read, job)))

    def step(self) -> None:
        """Work on the next job, with those after it that are read; leave the rest to the writer.

        It waits until a job is read, unless none can be.
        """
        group: list[_Read] = []
        while self._ahead and len(group) < self._batch_size:
            job, reading = self._ahead[0]
            if group and not reading.done():
                break
            self._ahead.popleft()
            try:
                group.append(reading.result())
            except BaseException as error:
                self._send(failure(job.name, error))
        if group:
            self._work(group)

    def close(self) -> None:
        """Wait for what is being written."""
        self._reader.shutdown()
        self._writer.shutdown()

    def _read(self, job: J) -> _Read:
        self._send(Began(job.name, "reading"))
        began = time.perf_counter()
        data = self._processor.read(job)
        seconds = time.perf_counter() - began
        self._send(Began(job.name, "waiting"))
        return _Read(job, data, seconds)

    def _work(self, group: Sequence[_Read]) -> None:
        for one in group:
            self._send(Began(one.job.name, "working"))
        began = time.perf_counter()
        try:
            results = self._processor.work(
                [one.job for one in group], [one.data for one in group], self._send
            )
        except BaseException as error:
            if len(group) == 1:
                self._send(failure(group[0].job.name, error))
                return
            # Whose fault it is, or whether they are too large together, shows when each is alone.
            for one in group:
                self._work([one])
            return
        working = (time.perf_counter() - began) / len(group)
        for one, result in zip(group, results, strict=True):
            if isinstance(result, BaseException):
                self._send(failure(one.job.name, result))
            else:
                self._send(Began(one.job.name, "waiting"))
                seconds = {"reading": one.seconds, "working": working}
                self._writer.submit(self._write, one.job, result, seconds)

    def _write(self, job: J, result: Any, seconds: dict[str, float]) -> None:
        try:
            self._send(Began(job.name, "writing"))
            value = self._processor.write(job, result, seconds)
            self._send(Outcome(job.name, result=value))
        except BaseException as error:
            self._send(failure(job.name, error))
