"""Whom the pool blames for lost time, with workers that say what a test wants, on its own clock."""

import pytest
from jobs import Count

from medrl.engines import Outcome, pool
from medrl.engines.messages import Began, Ready


class Clock:
    """Seconds that pass when the pool waits."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


class Worker:
    """Tells what is due at a time; a name's script is a list of (seconds since it came, phase)."""

    def __init__(self, clock, scripts, log):
        self.clock, self.scripts, self.log = clock, scripts, log
        self.due = [(clock.now, Ready())]
        self.dead = False

    def send(self, job):
        self.log.append(job.name)
        script = self.scripts[job.name]
        if isinstance(script[0], list):  # one for each time that it is given
            script = script[self.log.count(job.name) - 1]
        self.due += [(self.clock.now + s, self.message(job.name, phase)) for s, phase in script]

    def message(self, name, phase):
        return Outcome(name) if phase is None else Began(name, phase)

    def receive(self):
        now = [message for when, message in self.due if when <= self.clock.now]
        self.due = [(when, message) for when, message in self.due if when > self.clock.now]
        return now

    def alive(self):
        return not self.dead

    def lost(self):
        return False

    def kill(self):
        self.dead, self.due = True, []

    def cause(self):
        return "it was killed"


@pytest.fixture
def outcomes(monkeypatch):
    """Run scripted cases with a timeout of 10 s; what became of them, and the order of sending."""

    def run(scripts, depth=3):
        clock, log, told = Clock(), [], {}
        monkeypatch.setattr(pool, "time", clock)

        def wait(workers, seconds):
            clock.now += seconds
            assert clock.now < 1000

        pool.Pool(
            start=lambda: Worker(clock, scripts, log),
            wait=wait,
            end=lambda workers: [worker.kill() for worker in workers],
            depth=depth,
            timeout=10.0,
            on_end=lambda outcome: told.update({outcome.name: outcome.error}),
        ).run([Count(name) for name in scripts], 1)
        return told, log

    return run


def test_waiting_for_others_is_not_counted(outcomes):
    told, log = outcomes(
        {
            "a": [(0, "reading"), (1, "waiting"), (1, "working"), (9, "writing"), (9.5, None)],
            "b": [(1, "reading"), (2, "waiting"), (19, "working"), (28, "writing"), (29, None)],
            "c": [(2, "reading"), (3, "waiting"), (38, "working"), (47, "writing"), (48, None)],
        }
    )
    assert told == {"a": None, "b": None, "c": None}
    assert log == ["a", "b", "c"]


def test_one_that_hangs_by_itself_is_blamed_at_once(outcomes):
    told, log = outcomes(
        {
            "a": [(0, "reading"), (1, "waiting"), (1, "working"), (2, "writing"), (3, None)],
            "b": [(1, "reading")],
            "c": [(12, "reading"), (13, None)],
        }
    )
    assert told["a"] is None
    assert told["b"] == "reading took longer than 10 s (--timeout)"
    assert told["c"] is None
    assert log == ["a", "b", "c", "c"]


def test_of_several_that_are_held_up_each_goes_alone(outcomes):
    held_up = [(0, "reading"), (1, "waiting"), (2, "working")]
    alone = [*held_up, (3, "writing"), (4, None)]
    told, log = outcomes({"a": [held_up, alone], "b": held_up, "c": [held_up, alone]})
    assert told == {"a": None, "b": "working took longer than 10 s (--timeout)", "c": None}
    assert log == ["a", "b", "c", "a", "b", "c"]
