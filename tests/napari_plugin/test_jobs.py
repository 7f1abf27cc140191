"""Jobs end exactly once, at once when cancelled, and leave no thread behind."""

import threading
import time

import numpy as np
import pytest
from qtpy.QtCore import QObject, QThread
from qtpy.QtWidgets import QApplication

from medrl.errors import MedrlError
from medrl.trajectory import Step
from medrl_napari.jobs import Cancelled, Job, Worker

STEP = Step(("a",), np.zeros(1, int), np.zeros((1, 3)), np.ones(1), np.zeros(1, int), np.ones(1))


class Ear:
    """Writes down what a job says, and in which thread."""

    def __init__(self, job):
        self.heard = []
        for name in ("framed", "progressed", "done", "failed", "cancelled"):
            getattr(job, name).connect(lambda *said, name=name: self._hear(name, said))

    def _hear(self, name, said):
        assert QThread.currentThread() is QApplication.instance().thread()
        self.heard.append((name, *said))

    @property
    def ends(self):
        return [said for said in self.heard if said[0] in ("done", "failed", "cancelled")]


@pytest.fixture
def run(qtbot):
    """Start a job; its ears."""

    def start(work, parent=None):
        job = Job(work, parent=parent)
        ear = Ear(job)
        job.start()
        return job, ear

    return start


def gone(job):
    return lambda: not job.working


def test_a_frame_tells_of_all_steps_so_far(run, qtbot):
    seen = threading.Event()

    def work(report):
        for number in range(100):
            report.step(STEP)
            report.progress(number + 1, 100)
        seen.wait(10)
        return "answer"

    job, ear = run(work)
    qtbot.waitUntil(lambda: ("progressed", 100, 100) in ear.heard)
    frames = [said[1] for said in ear.heard if said[0] == "framed"]
    assert len(frames[-1]) == 100
    seen.set()
    qtbot.waitUntil(lambda: bool(ear.ends))
    assert ear.heard[-1] == ("done", "answer")
    assert not job.running
    qtbot.wait(300)
    assert len(ear.ends) == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MedrlError("the scan is blank"), "the scan is blank"),
        (MemoryError(), "does not fit in memory"),
        (KeyError("x"), "unexpected KeyError"),
    ],
)
def test_a_failure_is_one_line(run, qtbot, error, line):
    def work(report):
        raise error

    _, ear = run(work)
    qtbot.waitUntil(lambda: bool(ear.ends))
    ((kind, said),) = ear.ends
    assert kind == "failed"
    assert said.startswith(line)
    assert "\n" not in said


def test_cancel_ends_at_once_and_stops_the_work(run, qtbot):
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work(report):
        begun.set()
        go_on.wait(10)
        report.progress(1, 2)
        done.append(True)

    job, ear = run(work)
    qtbot.waitUntil(begun.is_set)
    job.cancel()
    assert ear.ends == [("cancelled",)]
    assert not job.running
    go_on.set()
    qtbot.waitUntil(gone(job))
    assert not done
    job.cancel()
    assert len(ear.ends) == 1


def test_a_result_that_comes_after_cancel_is_dropped(run, qtbot):
    begun, go_on = threading.Event(), threading.Event()

    def work(report):
        begun.set()
        go_on.wait(10)
        return "late"

    job, ear = run(work)
    qtbot.waitUntil(begun.is_set)
    job.cancel()
    go_on.set()
    qtbot.waitUntil(gone(job))
    qtbot.wait(300)
    assert ear.ends == [("cancelled",)]


def test_the_end_of_the_widget_ends_the_work(run, qtbot):
    begun, over = threading.Event(), threading.Event()

    def work(report):
        begun.set()
        try:
            while True:
                report.progress(0, 1)
                over.wait(0.001)
        except Cancelled:
            over.set()
            raise

    parent = QObject()
    run(work, parent)
    qtbot.waitUntil(begun.is_set)
    parent.deleteLater()
    qtbot.waitUntil(over.is_set)


@pytest.mark.parametrize("frame_s", [0.02, 0.3, 1.0])
def test_a_result_never_waits_for_slow_drawing(run, qtbot, frame_s):
    ready = []

    def work(report):
        until = time.monotonic() + 7
        while time.monotonic() < until:
            for _ in range(100):
                report.step(STEP)
            report.progress(1, 2)
            time.sleep(0.001)
        ready.append(time.monotonic())
        return "answer"

    job, _ = run(work)
    drawn, told = [], []

    def draw(steps):
        drawn.append(len(steps))
        time.sleep(frame_s)

    job.framed.connect(draw)
    job.done.connect(lambda _: told.append(time.monotonic()))
    qtbot.waitUntil(lambda: bool(told), timeout=20_000)
    assert told[0] - ready[0] < 0.5
    # Thousands of steps are no longer drawing than a few.
    assert max(drawn) <= 256
    # Where drawing is quick it is smooth, and where it is too slow it ends.
    assert len(drawn) > 20 if frame_s < 0.1 else len(drawn) <= 7


def test_a_worker_does_things_in_order_and_idles_when_asked(qtbot):
    class Slow(Worker):
        def idle(self):
            did.append("idle")

    did = []
    worker = Slow("medrl-test")
    worker.start()
    for number in range(3):
        worker.put(lambda number=number: did.append(number), idle=True)
    qtbot.waitUntil(lambda: "idle" in did)
    worker.wake()
    qtbot.waitUntil(lambda: did.count("idle") == 2)
    assert did[:4] == [0, 1, 2, "idle"]
    with qtbot.waitSignal(worker.ended):
        worker.stop()
    qtbot.waitUntil(gone(worker))
