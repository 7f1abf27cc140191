"""One worker: stages that overlap, cases that go together, what becomes of those that fail."""

import errno
import threading

import pytest

from medrl.batch.cases import Case, Source
from medrl.batch.pipeline import DEPTH, Message, Pipeline, depth, reason
from medrl.batch.store import Store
from medrl.batch.tasks import Record
from medrl.errors import MedrlError


class Worker:
    """Does what a test says to a case of a name; writes down what it was given together."""

    def __init__(self, **does):
        self.does = does
        self.groups = []
        self.reading = threading.Event()
        self.reading.set()

    def read(self, case):
        assert self.reading.wait(30)
        if case.name in self.does.get("unreadable", ()):
            raise MedrlError("cannot be read")
        return case.name.upper()

    def work(self, cases, data):
        names = [case.name for case in cases]
        assert [name.upper() for name in names] == list(data)
        self.groups.append(names)
        for name in names:
            if name in self.does.get("raises", {}):
                raise self.does["raises"][name]
        return [self.does.get("says", {}).get(name, name) for name in names]

    def write(self, case, result, folder):
        if case.name in self.does.get("full", ()):
            raise OSError(errno.ENOSPC, "No space left on device")
        (folder / "result.txt").write_text(result)
        return Record([{"value": result}])


@pytest.fixture
def go(tmp_path):
    """Put cases of some names into a pipeline, all at once; tells what it said and what is done."""

    def run(worker, names, *, together=1, steps=None):
        told, store = [], Store(tmp_path / "out")
        pipeline = Pipeline(worker, store, told.append, together=together)
        for name in names:
            pipeline.put(Case(name, {"scan": Source(tmp_path / name)}))
        if together > 1:  # all are read before the first is worked on
            for _, reading in pipeline._ahead:
                reading.exception(timeout=30)
        taken = 0
        while len(pipeline):
            pipeline.step()
            taken += 1
        pipeline.close()
        assert steps is None or taken == steps
        return told, sorted(store.records())

    return run


def ends(told):
    return {message.name: message.error for message in told if message.stage is None}


def test_cases_go_one_after_another_and_every_stage_is_told(go):
    worker = Worker()
    told, done = go(worker, "abc")
    assert worker.groups == [["a"], ["b"], ["c"]]
    assert done == ["a", "b", "c"]
    for name in "abc":
        stages = [message.stage for message in told if message.name == name]
        assert stages == ["reading", "waiting", "working", "waiting", "writing", None]


def test_those_that_are_read_go_together_and_no_more_than_may(go):
    worker = Worker()
    _, done = go(worker, "abcdefg", together=3, steps=3)
    assert worker.groups == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert done == list("abcdefg")


def test_what_is_not_read_yet_is_not_waited_for(tmp_path):
    worker, told = Worker(), []
    pipeline = Pipeline(worker, Store(tmp_path / "out"), told.append, together=4)
    pipeline.put(Case("a", {"scan": Source(tmp_path / "a")}))
    pipeline._ahead[0][1].result(timeout=30)
    worker.reading.clear()
    pipeline.put(Case("b", {"scan": Source(tmp_path / "b")}))
    pipeline.step()
    assert worker.groups == [["a"]]
    worker.reading.set()
    pipeline.step()
    pipeline.close()
    assert worker.groups == [["a"], ["b"]]
    assert set(ends(told)) == {"a", "b"}


def test_the_next_is_read_while_one_is_worked_on(tmp_path):
    read, told = threading.Event(), []

    class Patient(Worker):
        def read(self, case):
            if case.name == "b":
                read.set()
            return super().read(case)

        def work(self, cases, data):
            assert cases[0].name != "a" or read.wait(30)
            return super().work(cases, data)

    pipeline = Pipeline(Patient(), Store(tmp_path / "out"), told.append)
    for name in "ab":
        pipeline.put(Case(name, {"scan": Source(tmp_path / name)}))
    pipeline.step()
    pipeline.step()
    pipeline.close()
    assert ends(told) == {"a": None, "b": None}


def test_one_bad_case_does_not_harm_its_neighbours(go):
    worker = Worker(unreadable="b", says={"c": MedrlError("shows no head")}, full=())
    told, done = go(worker, "abcd", together=4)
    assert worker.groups == [["a", "c", "d"]]
    assert ends(told) == {"a": None, "b": "cannot be read", "c": "shows no head", "d": None}
    assert done == ["a", "d"]


@pytest.mark.parametrize("error", [MemoryError(), KeyError("what"), RuntimeError("odd")])
def test_those_that_fail_together_are_tried_one_by_one(go, error):
    worker = Worker(raises={"b": error})
    told, done = go(worker, "abc", together=3)
    assert worker.groups == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert done == ["a", "c"]
    assert ends(told)["b"] == reason(error)
    assert not any(message.fatal for message in told)


def test_a_full_disk_is_everybodys_trouble(go, tmp_path):
    told, done = go(Worker(full="b"), "ab")
    assert done == ["a"]
    (end,) = [message for message in told if message.error]
    assert end.fatal
    assert "No space left" in end.error
    assert not (tmp_path / "out" / "b").exists()
    assert not list((tmp_path / "out" / ".medrl" / "work").iterdir())


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


def test_how_many_cases_a_worker_has():
    # One is read ahead, one worked on, one written.
    assert depth(1) == DEPTH == 3
    assert depth(8) == 17
    assert Message("a", None) == ("a", None, None, False)
