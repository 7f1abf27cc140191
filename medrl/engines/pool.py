"""Hands jobs to workers that may hang or die, wherever these are; engines share it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from medrl.engines import J, Outcome, Progress
from medrl.engines.messages import Began, Fatal, Message, Phase, Ready
from medrl.errors import MedrlError

#: How often timeouts are checked (s).
_TICK = 0.2
#: A job during which so many workers have died is not tried again.
_MAX_DEATHS = 2
#: So many workers in a row that end before they are ready are not bad luck.
_MAX_FAILED_STARTS = 3


class Worker(Protocol):
    """A process that works through jobs, on this machine or elsewhere."""

    def send(self, job: Any) -> None:
        """Give it a job; nothing happens if it is dead."""

    def receive(self) -> list[Message]:
        """What it has sent since the last call, without waiting."""

    def alive(self) -> bool:
        """Whether more may come from it."""

    def lost(self) -> bool:
        """Whether it is gone with its machine, which no job is to blame for."""

    def kill(self) -> None:
        """End it now, whatever it does; return when it is gone."""

    def cause(self) -> str:
        """What it died of, in a few words."""


W = TypeVar("W", bound=Worker)


@dataclass
class _Attempt(Generic[J]):
    """A job on its way; a suspect is worked on with no other at the same time."""

    job: J
    deaths: int = 0
    suspect: bool = False
    phase: Phase = "waiting"
    since: float = 0.0


@dataclass
class _Slot(Generic[J, W]):
    """A worker, and the jobs that it has, so many at most."""

    worker: W
    depth: int
    ready: bool = False
    attempts: dict[str, _Attempt[J]] = field(default_factory=dict)

    def takes(self, attempt: _Attempt[J]) -> bool:
        """Whether it can have another job."""
        if not self.ready or len(self.attempts) >= self.depth:
            return False
        alone = attempt.suspect or any(other.suspect for other in self.attempts.values())
        return not (alone and self.attempts)

    def give(self, attempt: _Attempt[J]) -> None:
        attempt.phase = "waiting"
        self.attempts[attempt.job.name] = attempt
        self.worker.send(attempt.job)

    def running(self) -> list[_Attempt[J]]:
        return [attempt for attempt in self.attempts.values() if attempt.phase != "waiting"]

    def late(self, timeout: float | None) -> _Attempt[J] | None:
        """A job of it that takes too long, if there is one."""
        now = time.monotonic()
        return next(
            (a for a in self.running() if timeout is not None and now - a.since > timeout), None
        )


class Pool(Generic[J, W]):
    """Works through jobs with a number of workers; those that die are replaced.

    A job whose worker dies is tried once more, alone; one that takes too long has failed, and its
    worker's other jobs go to the next.
    """

    def __init__(
        self,
        *,
        start: Callable[[], W],
        wait: Callable[[Sequence[W], float], None],
        end: Callable[[Sequence[W]], None],
        depth: int,
        timeout: float | None,
        on_end: Callable[[Outcome], None],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Plan for workers of some kind.

        Args:
            start: Starts a worker.
            wait: Returns when one of some workers has sent something or died, or after some
                seconds.
            end: Ends workers at the end of all, whatever they do; returns when they are gone.
            depth: How many jobs a worker has at most.
            timeout: Seconds that each phase of a job may take; None for ever.
            on_end: Called once for each job.
            on_progress: Called with what processors report.
        """
        self._start = start
        self._wait = wait
        self._end = end
        self._depth = depth
        self._timeout = timeout
        self._on_end = on_end
        self._on_progress = on_progress
        self._queue: deque[_Attempt[J]] = deque()
        self._slots: list[_Slot[J, W]] = []
        self._failed_starts = 0

    def run(self, jobs: Sequence[J], workers: int) -> None:
        """Work through jobs with so many workers at most.

        Raises:
            MedrlError: If no job can be worked on: a worker says so, or one after another ends
                before it is ready.
        """
        self._queue.extend(_Attempt(job) for job in jobs)
        try:
            while len(self._slots) < min(workers, len(self._queue)):
                self._slots.append(_Slot(self._start(), self._depth))
            while self._queue or any(slot.attempts for slot in self._slots):
                for slot in self._slots:
                    while self._queue and slot.takes(self._queue[0]):
                        slot.give(self._queue.popleft())
                self._wait([slot.worker for slot in self._slots], _TICK)
                for number, slot in enumerate(self._slots):
                    if not self._goes_on(slot):
                        self._slots[number] = _Slot(self._start(), self._depth)
        finally:
            self._end([slot.worker for slot in self._slots])

    def _goes_on(self, slot: _Slot[J, W]) -> bool:
        """Take what a worker has sent; False if it is gone, and its jobs are taken care of."""
        self._receive(slot)
        late = slot.late(self._timeout)
        if slot.worker.alive() and late is None:
            return True
        blameless = late is not None or slot.worker.lost()
        slot.worker.kill()
        self._receive(slot)
        self._failed_starts = 0 if slot.ready or blameless else self._failed_starts + 1
        if self._failed_starts == _MAX_FAILED_STARTS:
            raise MedrlError(f"workers end before they begin: {slot.worker.cause()}")
        if late is not None:
            self._time_out(slot, late)
        self._requeue(slot, blameless=blameless)
        return False

    def _receive(self, slot: _Slot[J, W]) -> None:
        for message in slot.worker.receive():
            match message:
                case Ready():
                    slot.ready = True
                    self._failed_starts = 0
                case Fatal(error):
                    raise MedrlError(error)
                case Began(name, phase):
                    attempt = slot.attempts[name]
                    attempt.phase, attempt.since = phase, time.monotonic()
                case Outcome(name):
                    del slot.attempts[name]
                    self._on_end(message)
                case Progress():
                    if self._on_progress is not None:
                        self._on_progress(message)

    def _time_out(self, slot: _Slot[J, W], late: _Attempt[J]) -> None:
        """A job has taken too long, unless it has just ended."""
        name = late.job.name
        if name not in slot.attempts:
            return
        running = slot.running()
        if len(running) > 1:
            # One that hangs may hold up others; which it is shows when each goes alone.
            for attempt in running:
                attempt.suspect = True
            return
        del slot.attempts[name]
        line = f"{late.phase} took longer than {self._timeout:g} s (--timeout)"
        self._on_end(Outcome(name, line))

    def _requeue(self, slot: _Slot[J, W], *, blameless: bool) -> None:
        """Let others do what a worker had to do, unless it is what it died of."""
        for attempt in reversed(slot.attempts.values()):
            attempt.deaths += not blameless
            attempt.suspect |= not blameless
            if attempt.deaths < _MAX_DEATHS:
                self._queue.appendleft(attempt)
            else:
                cause = f"its worker process died twice: {slot.worker.cause()}"
                self._on_end(Outcome(attempt.job.name, cause))
