"""Hands cases to workers that may hang or die, wherever these are; engines share it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from medrl.batch.cases import Case
from medrl.batch.engines import Outcome
from medrl.batch.pipeline import DEPTH, Message, Stage
from medrl.errors import MedrlError

#: How often timeouts are looked at (s).
_TICK = 0.2
#: A case during which so many workers have died is not tried again.
_MOST_DEATHS = 2
#: So many workers in a row that end before they are ready are not bad luck.
_MOST_STILLBORN = 3


class Remote(Protocol):
    """A worker in another process, on this machine or elsewhere."""

    def send(self, case: Case) -> None:
        """Give it a case; nothing happens if it is dead."""

    def receive(self) -> list[Message | None]:
        """What it has told since the last call, without waiting; None says that it is ready."""

    def alive(self) -> bool:
        """Whether it can still tell something."""

    def lost(self) -> bool:
        """Whether it is gone with its machine, which no case is to blame for."""

    def kill(self) -> None:
        """End it now, whatever it does; return when it is gone."""

    def cause(self) -> str:
        """What it died of, in a few words."""


_R = TypeVar("_R", bound=Remote)


@dataclass
class _Flight:
    """A case that a worker has; a suspect is worked on with no other at the same time."""

    case: Case
    deaths: int = 0
    suspect: bool = False
    stage: Stage = "waiting"
    since: float = 0.0


@dataclass
class _Seat(Generic[_R]):
    """A worker, and what it has to do, of so many cases at most."""

    worker: _R
    most: int
    ready: bool = False
    flights: dict[str, _Flight] = field(default_factory=dict)

    def free(self, flight: _Flight) -> bool:
        """Whether it can take another case."""
        if not self.ready or len(self.flights) >= self.most:
            return False
        alone = flight.suspect or any(other.suspect for other in self.flights.values())
        return not (alone and self.flights)


def run_pool(
    cases: Sequence[Case],
    workers: int,
    *,
    start: Callable[[], _R],
    wait: Callable[[Sequence[_R], float], None],
    end: Callable[[Sequence[_R]], None],
    depth: int = DEPTH,
    timeout: float | None,
    tell: Callable[[Outcome], None],
) -> None:
    """Work through cases with a number of workers; those that die are replaced.

    A case whose worker dies is tried once more, alone; one that takes too long has failed, and its
    worker's other cases go to the next.

    Args:
        cases: What is to be worked on.
        workers: How many there are at most.
        start: Starts one.
        wait: Returns when one of some workers has told something or died, or after some seconds.
        end: Ends workers at the end of all, whatever they do; returns when they are gone.
        depth: How many cases a worker has at most.
        timeout: Seconds that each stage of a case may take; None for ever.
        tell: Called once for each case.

    Raises:
        MedrlError: If no case can be worked on: a worker says so, or one after another ends before
            it is ready.
    """
    queue = deque(_Flight(case) for case in cases)
    pool: list[_Seat[_R]] = []
    stillborn = 0
    try:
        while len(pool) < min(workers, len(queue)):
            pool.append(_Seat(start(), depth))
        while queue or any(seat.flights for seat in pool):
            for seat in pool:
                while queue and seat.free(queue[0]):
                    _send(seat, queue.popleft())
            wait([seat.worker for seat in pool], _TICK)
            for number, seat in enumerate(pool):
                if _listen(seat, tell):
                    stillborn = 0
                late = _late(seat, timeout)
                if seat.worker.alive() and late is None:
                    continue
                blameless = late is not None or seat.worker.lost()
                seat.worker.kill()
                _listen(seat, tell)
                stillborn = 0 if seat.ready or blameless else stillborn + 1
                if stillborn == _MOST_STILLBORN:
                    raise MedrlError(f"workers end before they begin: {seat.worker.cause()}")
                if late is not None and timeout is not None:
                    _give_up(seat, late, timeout, tell)
                _bury(seat, queue, tell, blameless=blameless)
                pool[number] = _Seat(start(), depth)
    finally:
        end([seat.worker for seat in pool])


def _send(seat: _Seat[_R], flight: _Flight) -> None:
    flight.stage = "waiting"
    seat.flights[flight.case.name] = flight
    seat.worker.send(flight.case)


def _listen(seat: _Seat[_R], tell: Callable[[Outcome], None]) -> bool:
    """Take what a worker has told; whether it has become ready."""
    was_ready = seat.ready
    for message in seat.worker.receive():
        if message is None:
            seat.ready = True
        elif message.fatal:
            raise MedrlError(str(message.error))
        elif message.stage is not None:
            flight = seat.flights[message.name]
            flight.stage, flight.since = message.stage, time.monotonic()
        else:
            tell(Outcome(seat.flights.pop(message.name).case, message.error))
    return seat.ready and not was_ready


def _late(seat: _Seat[_R], timeout: float | None) -> _Flight | None:
    """One of its cases that takes too long, if there is one."""
    if timeout is None:
        return None
    now = time.monotonic()
    running = (flight for flight in seat.flights.values() if flight.stage != "waiting")
    return next((flight for flight in running if now - flight.since > timeout), None)


def _give_up(
    seat: _Seat[_R], late: _Flight, timeout: float, tell: Callable[[Outcome], None]
) -> None:
    """A case has taken too long, unless it has just ended."""
    if late.case.name not in seat.flights:
        return
    running = [flight for flight in seat.flights.values() if flight.stage != "waiting"]
    if len(running) > 1:
        # One that hangs may hold up others; which it is shows when each goes alone.
        for flight in running:
            flight.suspect = True
        return
    del seat.flights[late.case.name]
    tell(Outcome(late.case, f"{late.stage} took longer than {timeout:g} s (--timeout)"))


def _bury(
    seat: _Seat[_R],
    queue: deque[_Flight],
    tell: Callable[[Outcome], None],
    *,
    blameless: bool,
) -> None:
    """Let others do what a worker had to do, unless it is what it died of."""
    for flight in reversed(seat.flights.values()):
        flight.deaths += not blameless
        flight.suspect |= not blameless
        if flight.deaths < _MOST_DEATHS:
            queue.appendleft(flight)
        else:
            tell(Outcome(flight.case, f"its worker process died twice: {seat.worker.cause()}"))
