"""Independent jobs: here, in processes, killed, interrupted, and on Ray."""

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from medrl.engines.local import LocalEngine
from medrl.errors import MedrlError
from medrl.rl.checkpoint import load_checkpoint
from medrl.rl.jobs import Job, run_jobs
from medrl.rl.stage import Progress
from tests.rl.resume import assert_same, assert_survives_kill, train_alone
from tests.rl.toy import make_toy


def shout(folder: Path, report: Progress, *, word: str, times: int = 1) -> str:
    report(word, 1, times, {"threads": float(torch.get_num_threads())})
    if word == "bad":
        raise MedrlError("a bad word")
    (folder / "word").write_text(word)
    return word.upper() * times


def jobs(*words: str) -> list[Job]:
    return [Job(f"job-{word}", shout, {"word": word, "times": 2}) for word in words]


@pytest.mark.parametrize("engine", [None, LocalEngine(2)], ids=["here", "processes"])
def test_results_progress_and_threads(tmp_path: Path, engine: LocalEngine | None) -> None:
    before = torch.get_num_threads()
    told: list[tuple[object, ...]] = []
    found = run_jobs(
        jobs("b", "a", "c"),
        tmp_path,
        engine,
        threads=2,
        report=lambda what, done, total, figures: told.append((what, done, total, figures)),
    )
    assert list(found.items()) == [("job-b", "BB"), ("job-a", "AA"), ("job-c", "CC")]
    assert (tmp_path / "job-a" / "word").read_text() == "a"
    assert {what: rest for what, *rest in told} == {w: [1, 2, {"threads": 2.0}] for w in "abc"}
    assert torch.get_num_threads() == before


def test_one_that_fails_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    with pytest.raises(MedrlError, match=r"^job-bad: a bad word$"):
        run_jobs(jobs("bad", "a", "b"), tmp_path, LocalEngine(1))
    assert {path.parent.name for path in tmp_path.glob("*/word")} == {"job-a", "job-b"}


def test_a_killed_worker_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    kill_at = random.randrange(1, 28)
    assert_survives_kill(make_toy, tmp_path, kill_at=kill_at, checkpoint_every=2)


def test_a_stage_in_a_process_or_on_ray_is_the_stage_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from medrl.engines.ray import RayEngine

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=":")
    make = partial(make_toy, steps=20, mixed_precision=True)
    job = Job("toy", train_alone, {"make_learner": make, "checkpoint_every": 7})
    states = []
    for name, engine in (("here", None), ("local", LocalEngine(1)), ("ray", RayEngine(1))):
        run_jobs([job], tmp_path / name, engine)
        path = tmp_path / name / "toy" / "stage.safetensors"
        states.append(load_checkpoint(path, signature=make().signature()))
    assert_same(states[1], states[0])
    assert_same(states[2], states[0])

    unknown = Job("unknown", shout, {"word": _Elsewhere()})
    with pytest.raises(MedrlError, match=r"^unknown: .*invalid literal"):
        run_jobs([unknown], tmp_path / "ray", RayEngine(1))


class _Elsewhere:
    """Can be sent, but not received."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)


_LONG = """
import sys, time
from pathlib import Path
from medrl.engines.local import LocalEngine
from medrl.rl.jobs import Job, run_jobs

def wait(folder, report):
    import os
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    names = ["a", "b"]
    run_jobs([Job(name, wait) for name in names], Path(sys.argv[1]), LocalEngine(2))
"""


def test_an_interruption_ends_all_of_them(tmp_path: Path) -> None:
    script = tmp_path / "long.py"
    script.write_text(_LONG)
    out = tmp_path / "out"
    run = subprocess.Popen([sys.executable, str(script), str(out)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(pids := list(out.glob("*/pid"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in run.communicate(timeout=60)[1]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)
