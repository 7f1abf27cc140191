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
    """A case that a worker has."""

    case: Case
    deaths: int = 0
    stage: Stage | None = None
    since: float = 0.0


@dataclass
class _Seat(Generic[_R]):
    """A worker, and what it has to do."""

    worker: _R
    ready: bool = False
    flights: dict[str, _Flight] = field(default_factory=dict)

    def free(self, deaths: int) -> bool:
        """Whether it can take another case; one that may kill it goes alone."""
        if not self.ready or len(self.flights) >= DEPTH:
            return False
        alone = deaths > 0 or any(flight.deaths for flight in self.flights.values())
        return not (alone and self.flights)


def run_pool(
    cases: Sequence[Case],
    workers: int,
    *,
    start: Callable[[], _R],
    wait: Callable[[Sequence[_R], float], None],
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
        timeout: Seconds that each stage of a case may take; None for ever.
        tell: Called once for each case.

    Raises:
        MedrlError: If no case can be worked on: a worker says so, or ends before it is ready.
    """
    queue = deque(_Flight(case) for case in cases)
    pool = [_Seat(start()) for _ in range(min(workers, len(queue)))]
    try:
        while queue or any(seat.flights for seat in pool):
            for seat in pool:
                while queue and seat.free(queue[0].deaths):
                    _send(seat, queue.popleft())
            wait([seat.worker for seat in pool], _TICK)
            for number, seat in enumerate(pool):
                _listen(seat, tell)
                late = _late(seat, timeout, tell)
                if late or not seat.worker.alive():
                    _listen(seat, tell)
                    _bury(seat, queue, tell, killed=late)
                    pool[number] = _Seat(start())
    finally:
        for seat in pool:
            seat.worker.kill()


def _send(seat: _Seat[_R], flight: _Flight) -> None:
    flight.stage = None
    seat.flights[flight.case.name] = flight
    seat.worker.send(flight.case)


def _listen(seat: _Seat[_R], tell: Callable[[Outcome], None]) -> None:
    """Take what a worker has told."""
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


def _late(seat: _Seat[_R], timeout: float | None, tell: Callable[[Outcome], None]) -> bool:
    """Whether one of its cases takes too long; that one has failed."""
    if timeout is None:
        return False
    for flight in list(seat.flights.values()):
        if flight.stage is not None and time.monotonic() - flight.since > timeout:
            del seat.flights[flight.case.name]
            line = f"{flight.stage} took longer than {timeout:g} s (--timeout)"
            tell(Outcome(flight.case, line))
            return True
    return False


def _bury(
    seat: _Seat[_R],
    queue: deque[_Flight],
    tell: Callable[[Outcome], None],
    *,
    killed: bool,
) -> None:
    """Let others do what a worker had to do, unless it is what it died of."""
    blameless = killed or seat.worker.lost()
    seat.worker.kill()
    if not seat.ready and not blameless:
        raise MedrlError(f"a worker ended before it began: {seat.worker.cause()}")
    for flight in reversed(seat.flights.values()):
        flight.deaths += not blameless
        if flight.deaths < _MOST_DEATHS:
            queue.appendleft(flight)
        else:
            tell(Outcome(flight.case, f"its worker process died twice: {seat.worker.cause()}"))
