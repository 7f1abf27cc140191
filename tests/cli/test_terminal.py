"""The line of progress: what it says, and to whom."""

import os
import subprocess
import sys

import pytest

from medrl.cli.terminal import Pace, duration

SCRIPT = """
from medrl.cli.terminal import scan_progress
with scan_progress(3) as ended:
    ended(False)
    ended(True)
"""


class Clock:
    """Tells the time that it is set to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_pace_is_that_of_the_latest_scans():
    clock = Clock()
    pace = Pace(100, clock=clock)
    assert (pace.per_minute, pace.seconds_left, str(pace)) == (None, None, "starting")
    for _ in range(10):
        clock.now += 20
        pace.ended()
    assert pace.per_minute == pytest.approx(3)
    assert pace.seconds_left == pytest.approx(90 * 20)
    clock.now += 5
    assert pace.seconds_left == pytest.approx(90 * 20 - 5)
    assert str(pace) == "3.0 scans/min, 30 min left"
    # The first ones were slow; these count no more after a while.
    for _ in range(60):
        clock.now += 2
        pace.ended()
    assert pace.per_minute == pytest.approx(30)
    assert str(pace) == "30 scans/min, 60 s left"
    clock.now += 1000
    assert pace.seconds_left == 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (89, "89 s"), (95, "2 min"), (5300, "88 min"), (12_000, "3 h 20 min")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_a_terminal_shows_progress():
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert process.wait() == 0
    for part in (b"2/3", b"1 failed", b"scans/min", b"left"):
        assert part in shown


def test_a_pipe_shows_nothing():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def _read(descriptor):
    """What a terminal shows next; nothing when its program has ended."""
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so this way
        return b""
