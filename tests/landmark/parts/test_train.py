"""A part detector on scans made for it: it learns, resumes, and is used like agents."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medrl.errors import MedrlError
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.judging import load_model
from medrl.landmark.parts.learner import FineLearner, MapLearner, PartSteps
from medrl.landmark.train import TrainSettings, train
from medrl.volume.points import read_points
from tests.landmark.blobs import SMALL, some_scans, write_datalist
from tests.rl.resume import assert_resumes

SCALES = replace(SMALL, spacings=(2.0, 4.0, 8.0), window=15, learning_rate=3e-3)
STEPS = PartSteps(detector=90, spatial=10, joint=10, fine=80, windows=12)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The datalist and the bundle."""
    folder = tmp_path_factory.mktemp("parts")
    data = write_datalist(folder)
    settings = TrainSettings(name="blobs", detector="parts", parts=STEPS, learner=SCALES, seed=1)
    return data, train(settings, data=data, out=folder / "out")


def test_it_finds_points_in_unseen_scans(trained):
    data, bundle = trained
    detector = LandmarkDetector.load(bundle)
    errors, middle = [], []
    for case in json.loads(data.read_text())["test"]:
        truth = read_points(data.parent / case["landmarks"])
        found = detector.detect(data.parent / case["image"])
        assert all(0 <= landmark.confidence <= 1 for landmark in found.landmarks)
        for name, point in truth.items():
            errors.append(np.linalg.norm(found[name].position_world - point))
            middle.append(np.linalg.norm(np.array([32.0, 36.0, 30.0]) - point))
        # Two looks of each, the last of which is the answer.
        for path in found.trajectory.agents:
            assert path.scales_mm.tolist() == [8.0, 2.0]
            np.testing.assert_allclose(path.positions_world[-1], path.answer_world)
    assert np.median(errors) < 4.0
    assert np.median(errors) < 0.25 * np.median(middle)


def test_agents_learn_its_fine_map_too(trained, tmp_path):
    data, bundle = trained
    parts, _ = load_model(bundle)
    settings = TrainSettings(
        imitation_steps=(1, 1, 1), dqn_steps=(1, 1, 1), parts=STEPS, learner=SCALES, seed=1
    )
    agents, _ = load_model(train(replace(settings, fine_map=True), data=data, out=tmp_path))
    for name, weights in parts.fine.state_dict().items():
        torch.testing.assert_close(agents.fine.state_dict()[name], weights)


def maps():
    steps = PartSteps(detector=3, spatial=2, joint=3, fine=5)
    return MapLearner(some_scans(), settings=replace(SCALES, slots=3), steps=steps, seed=0)


def fine():
    steps = PartSteps(fine=5, windows=4)
    return FineLearner(some_scans(), settings=replace(SCALES, slots=3), steps=steps, seed=0)


@pytest.mark.parametrize(("make", "at"), [(maps, 2), (maps, 4), (maps, 6), (fine, 2)])
def test_it_resumes_to_the_same_bits(tmp_path, make, at):
    assert_resumes(make, tmp_path, interrupt_at=at)


def test_only_the_spatial_model_learns_in_its_stage():
    torch.set_num_threads(1)
    one = maps()
    for _ in range(3):
        one.train_step()
    before = {name: [p.clone() for p in m.parameters()] for name, m in one.modules.items()}
    one.train_step()
    after = {name: list(m.parameters()) for name, m in one.modules.items()}
    assert all(map(torch.equal, before["network"], after["network"]))
    assert not all(map(torch.equal, before["spatial"], after["spatial"]))


def test_scales_that_do_not_fit_are_refused(tmp_path):
    settings = TrainSettings(detector="parts", learner=SMALL)
    with pytest.raises(MedrlError, match="coarsest scale must be twice"):
        train(settings, data=write_datalist(tmp_path), out=tmp_path / "out")
