"""One worker: phases that overlap, jobs that go together, what becomes of those that fail."""

import errno
import pickle
import threading

import pytest
from jobs import Count

from medrl.engines import Outcome, Processor
from medrl.engines.messages import Began, Fatal, reason
from medrl.engines.pipeline import Pipeline, depth
from medrl.errors import MedrlError


class Stub(Processor):
    """Does what a test says to a job of a name; writes down what it was given at once."""

    def __init__(self, **does):
        self.does = does
        self.groups = []
        self.reading = threading.Event()
        self.reading.set()

    def read(self, job):
        assert self.reading.wait(30)
        if job.name in self.does.get("unreadable", ()):
            raise MedrlError("cannot be read")
        return job.name.upper()

    def work(self, jobs, data, report):
        names = [job.name for job in jobs]
        assert [name.upper() for name in names] == list(data)
        self.groups.append(names)
        for name in names:
            if name in self.does.get("raises", {}):
                raise self.does["raises"][name]
        return [self.does.get("says", {}).get(name, name) for name in names]

    def write(self, job, result, seconds):
        assert set(seconds) == {"reading", "working"}
        if job.name in self.does.get("full", ()):
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.does.get("returns", result)


@pytest.fixture
def go():
    """Put jobs of some names into a pipeline, all at once; what it sent and which are done."""

    def run(processor, names, *, batch_size=1, steps=None):
        sent = []
        pipeline = Pipeline(processor, sent.append, batch_size=batch_size)
        for name in names:
            pipeline.put(Count(name))
        if batch_size > 1:  # all are read before the first is worked on
            for _, reading in pipeline._ahead:
                reading.exception(timeout=30)
        taken = 0
        while len(pipeline):
            pipeline.step()
            taken += 1
        pipeline.close()
        assert steps is None or taken == steps
        done = [m.name for m in sent if isinstance(m, Outcome) and m.error is None]
        return sent, sorted(done)

    return run


def ends(sent):
    return {message.name: message.error for message in sent if isinstance(message, Outcome)}


def test_jobs_go_one_after_another_and_every_phase_is_told(go):
    processor = Stub()
    sent, done = go(processor, "abc")
    assert processor.groups == [["a"], ["b"], ["c"]]
    assert done == ["a", "b", "c"]
    for name in "abc":
        *phases, end = [message for message in sent if message.name == name]
        assert [message.phase for message in phases] == [
            *("reading", "waiting", "working", "waiting", "writing")
        ]
        assert end == Outcome(name, result=name)


def test_those_that_are_read_go_together_and_no_more_than_may(go):
    processor = Stub()
    _, done = go(processor, "abcdefg", batch_size=3, steps=3)
    assert processor.groups == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert done == list("abcdefg")


def test_what_is_not_read_yet_is_not_waited_for():
    processor, sent = Stub(), []
    pipeline = Pipeline(processor, sent.append, batch_size=4)
    pipeline.put(Count("a"))
    pipeline._ahead[0][1].result(timeout=30)
    processor.reading.clear()
    pipeline.put(Count("b"))
    pipeline.step()
    assert processor.groups == [["a"]]
    processor.reading.set()
    pipeline.step()
    pipeline.close()
    assert processor.groups == [["a"], ["b"]]
    assert set(ends(sent)) == {"a", "b"}


def test_the_next_is_read_while_one_is_worked_on():
    read, sent = threading.Event(), []

    class Patient(Stub):
        def read(self, job):
            if job.name == "b":
                read.set()
            return super().read(job)

        def work(self, jobs, data, report):
            assert jobs[0].name != "a" or read.wait(30)
            return super().work(jobs, data, report)

    pipeline = Pipeline(Patient(), sent.append)
    for name in "ab":
        pipeline.put(Count(name))
    pipeline.step()
    pipeline.step()
    pipeline.close()
    assert ends(sent) == {"a": None, "b": None}


def test_one_bad_job_does_not_harm_its_neighbours(go):
    processor = Stub(unreadable="b", says={"c": MedrlError("shows no head")})
    sent, done = go(processor, "abcd", batch_size=4)
    assert processor.groups == [["a", "c", "d"]]
    assert ends(sent) == {"a": None, "b": "cannot be read", "c": "shows no head", "d": None}
    assert done == ["a", "d"]


@pytest.mark.parametrize("error", [MemoryError(), KeyError("what"), RuntimeError("odd")])
def test_those_that_fail_together_are_tried_one_by_one(go, error):
    processor = Stub(raises={"b": error})
    sent, done = go(processor, "abc", batch_size=3)
    assert processor.groups == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert done == ["a", "c"]
    assert ends(sent)["b"] == reason(error)
    assert not any(isinstance(message, Fatal) for message in sent)


def test_a_full_disk_is_everybodys_trouble(go):
    sent, done = go(Stub(full="b"), "ab")
    assert done == ["a"]
    (end,) = [message for message in sent if isinstance(message, Fatal)]
    assert "No space left" in end.error


def test_a_result_that_cannot_be_sent_is_a_failure():
    sent = []

    def send(message):
        if not isinstance(message, Began):
            pickle.dumps(message)
        sent.append(message)

    pipeline = Pipeline(Stub(returns=threading.Lock()), send)
    pipeline.put(Count("a"))
    pipeline.step()
    pipeline.close()
    assert "cannot pickle" in ends(sent)["a"]


def test_what_is_said_of_errors():
    cuda = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate")
    cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 TB")
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = MemoryError()
    for error in (MemoryError(), cuda, cpu, wrapped):
        assert reason(error) == "does not fit in memory; crop or downsample it"
    assert reason(MedrlError("two\nlines")) == "two lines"
    assert reason(ValueError("odd")) == "unexpected ValueError: odd"


def test_memory_of_a_real_allocation_that_cannot_be():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert "does not fit in memory" in reason(caught.value)


def test_how_many_jobs_a_worker_has():
    # One is read ahead, one worked on, one written.
    assert depth(1) == 3
    assert depth(8) == 17
    assert depth(8, read_ahead=False) == 8
