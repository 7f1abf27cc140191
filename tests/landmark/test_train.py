"""The whole recipe on scans made for it: it learns, resumes and reproduces."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medrl.engines.local import LocalEngine
from medrl.errors import MedrlError
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.learner import ScaleLearner
from medrl.landmark.train import TrainSettings, train
from medrl.volume.read import read
from tests.landmark.blobs import SMALL, some_scans, write_datalist
from tests.rl.resume import assert_resumes, assert_survives_kill


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    return write_datalist(tmp_path_factory.mktemp("blobs"))


def test_training_learns_and_the_bundle_finds_points_in_unseen_scans(datalist, tmp_path):
    settings = TrainSettings(
        name="blobs", imitation_steps=(400, 400), dqn_steps=(30, 30), learner=SMALL, seed=1
    )
    seen = []
    bundle = train(
        settings,
        data=datalist,
        out=tmp_path,
        report=lambda *event: seen.append(event[:3]),
        engine=LocalEngine(2),
    )
    assert {"2mm", "8mm", "calibration"} <= {what for what, _, _ in seen}
    assert list((tmp_path / "logs").glob("2mm/events*"))
    detector = LandmarkDetector.load(str(bundle))
    assert detector.landmark_names == ("bright", "dark")
    errors, baseline = [], []
    for case in json.loads(datalist.read_text())["test"]:
        rows = (datalist.parent / case["landmarks"]).read_text().splitlines()[1:]
        truth = {r.split(",")[0]: np.array(r.split(",")[1:], float) for r in rows}
        detection = detector.detect(read(datalist.parent / case["image"]))
        for name, point in truth.items():
            errors.append(np.linalg.norm(detection[name].position_world - point))
            baseline.append(np.linalg.norm(np.array([32.0, 36.0, 30.0]) - point))
    assert np.median(errors) < 0.25 * np.median(baseline)
    assert np.median(errors) < 4.0


def learner(seed, **changes):
    return ScaleLearner(
        some_scans(),
        level=0,
        settings=replace(SMALL, **changes),
        imitation_steps=4,
        dqn_steps=4,
        seed=seed,
    )


@pytest.mark.parametrize("changes", [{}, {"dueling": False, "double": False, "reward": "squared"}])
def test_a_seed_reproduces_both_phases(changes):
    torch.set_num_threads(1)
    runs = []
    for seed in (3, 3, 4):
        one = learner(seed, **changes)
        runs.append([one.train_step() for _ in range(one.total_steps)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert set(runs[0][-1]) == {"td", "values", "finish"}


def some_learner():
    """As the process that is killed makes it, and the one after it."""
    return learner(0, slots=3, refresh_every=3, agents=8, batch=16)


def test_a_scale_survives_a_killed_process(tmp_path):
    assert_survives_kill(some_learner, tmp_path, kill_at=5)


@pytest.mark.parametrize("interrupt_at", [2, 4, 6])
def test_a_scale_resumes_to_the_same_bits(tmp_path, interrupt_at):
    assert_resumes(some_learner, tmp_path, interrupt_at=interrupt_at)


def test_an_interrupted_training_ends_with_the_same_model(datalist, tmp_path):
    settings = TrainSettings(
        name="b", imitation_steps=(120, 20), dqn_steps=(5, 0), learner=SMALL, seed=1
    )
    train(settings, data=datalist, out=tmp_path / "whole")
    with pytest.raises(MedrlError, match="holds checkpoints already"):
        train(settings, data=datalist, out=tmp_path / "whole")

    def interrupt(what, done, *_):
        if what == "2mm" and done == 120:
            raise KeyboardInterrupt

    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        train(settings, data=datalist, out=parts, report=interrupt)
    seen = []
    bundle = train(
        replace(settings, resume=True),
        data=datalist,
        out=parts,
        report=lambda what, done, *_: seen.append((what, done)),
    )
    assert ("2mm", 100) not in seen
    assert ("2mm", 125) in seen
    same = (tmp_path / "whole" / "b" / "model.safetensors").read_bytes()
    assert (bundle / "model.safetensors").read_bytes() == same
    other = replace(settings, resume=True, learner=replace(SMALL, batch=32))
    with pytest.raises(MedrlError, match=r"other settings \(batch: 64, now 32\)"):
        train(other, data=datalist, out=parts)


def test_steps_for_a_missing_scale_are_refused(datalist, tmp_path):
    with pytest.raises(MedrlError, match="one number for each of 2 scales"):
        train(TrainSettings(learner=SMALL), data=datalist, out=tmp_path)
