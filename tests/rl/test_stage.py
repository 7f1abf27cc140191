"""A stage: checkpoints, logs whose means are right, and what happens when it is run again."""

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medrl.errors import MedrlError
from medrl.rl.learner import Learner
from medrl.rl.stage import run_stage
from tests.rl.resume import assert_same, count_steps, stop_at
from tests.rl.toy import make_toy


def stage(
    learner: Learner, folder: Path, *, resume: bool = False, every: int = 100
) -> list[tuple[int, float]]:
    """Steps reported, and the mean step since the last report."""
    told: list[tuple[int, float]] = []

    def report(name: str, done: int, total: int, figures: dict[str, float]) -> None:
        assert (name, total) == ("toy", learner.total_steps)
        told.append((done, figures.get("step", np.nan)))

    path = folder / "checkpoints" / "toy.safetensors"
    run_stage(
        learner, path, logs=folder / "logs", resume=resume, report=report, checkpoint_every=every
    )
    return told


def logged(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "logs" / "toy")).Reload()
    return [(event.step, event.value) for event in events.Scalars("step")]


MEANS = [(20, 10.5), (40, 30.5), (60, 50.5), (70, 65.5)]


def test_means_and_the_end(tmp_path: Path) -> None:
    assert stage(make_toy(steps=70), tmp_path) == MEANS
    assert logged(tmp_path) == MEANS


@pytest.mark.parametrize(("every", "stop"), [(25, 27), (25, 49), (25, 69), (13, 41), (20, 20)])
def test_an_interrupted_stage_goes_on_from_its_checkpoint(
    tmp_path: Path, every: int, stop: int
) -> None:
    whole = make_toy(steps=70)
    stage(whole, tmp_path / "whole")
    first = make_toy(steps=70)
    stop_at(first, stop)
    with pytest.raises(InterruptedError):
        stage(first, tmp_path, every=every)
    again = make_toy(steps=70)
    counted = count_steps(again)
    saved = stop // every * every
    assert stage(again, tmp_path, resume=True, every=every) == [m for m in MEANS if m[0] > saved]
    assert counted[0] == saved
    assert logged(tmp_path) == MEANS
    assert_same(again.state_dict(), whole.state_dict())


def test_a_complete_stage_is_not_run_again(tmp_path: Path) -> None:
    whole, again, anew = (make_toy() for _ in range(3))
    stage(whole, tmp_path)
    counted = count_steps(again)
    ((done, _),) = stage(again, tmp_path, resume=True)
    assert done == 30
    assert counted == []
    assert_same(again.state_dict(), whole.state_dict())
    counted = count_steps(anew)
    stage(anew, tmp_path)
    assert len(counted) == 30


def test_a_stage_needs_neither_logs_nor_report(tmp_path: Path) -> None:
    learner = make_toy()
    run_stage(learner, tmp_path / "toy.safetensors")
    assert learner.step == 30
    assert [path.name for path in tmp_path.iterdir()] == ["toy.safetensors"]


def test_other_settings_and_damaged_files_are_refused(tmp_path: Path) -> None:
    stage(make_toy(), tmp_path)
    with pytest.raises(MedrlError, match=r"toy\.safetensors was written .* \(batch: 8, now 4\)"):
        stage(make_toy(batch=4), tmp_path, resume=True)
    path = tmp_path / "checkpoints" / "toy.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MedrlError, match=r"toy\.safetensors is damaged"):
        stage(make_toy(), tmp_path, resume=True)


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    stage(make_toy(), tmp_path)
    other = make_toy()
    other.modules["another"] = other.network
    with pytest.raises(MedrlError, match="does not fit these settings and data"):
        stage(other, tmp_path, resume=True)
