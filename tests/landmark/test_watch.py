"""Watching the landmark agents walk: whoever watches sees what the record will say."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.model import LandmarkModel, ModelSettings
from medrl.landmark.shape import ShapeAssessment
from medrl.trajectory.live import Recording

NAMES = tuple("abcdefgh")
WINDOW = 9


@pytest.fixture(scope="module")
def detector():
    """Untrained agents: they walk somewhere, the same way every time."""
    torch.manual_seed(3)
    settings = ModelSettings(window=WINDOW, channels=(4, 4, 4), features=16, max_steps=12)
    networks = tuple(settings.build_network(len(NAMES)).eval() for _ in settings.spacings)
    return LandmarkDetector(LandmarkModel(NAMES, settings, networks))


@pytest.fixture(scope="module")
def scan():
    torch.manual_seed(5)
    affine = torch.tensor([[0, -1.7, 0, 40], [1.5, 0, 0, -9], [0, 0, 2.0, 7], [0, 0, 0, 1]])
    return MetaTensor(torch.rand(1, 44, 40, 48), affine=affine.double())


def watched(detector, scan, **options):
    steps = []
    return detector.detect(scan, watch=steps.append, **options), steps


def test_what_was_seen_is_what_is_recorded(detector, scan):
    detection, steps = watched(detector, scan)
    recording = Recording()
    for step in steps:
        recording.add(step)
    seen = {path.name: path for path in recording.trajectory().agents}
    assert set(seen) == set(NAMES)
    for path in detection.trajectory.agents:
        assert len(path) > 3
        for field in ("positions_world", "scales_mm", "actions", "values"):
            np.testing.assert_array_equal(getattr(seen[path.name], field), getattr(path, field))


def test_steps_are_in_the_scans_world_and_in_millimetres(detector, scan):
    _, steps = watched(detector, scan)
    center = scan.affine.numpy() @ [*(np.array(scan.shape[1:]) / 2), 1]
    np.testing.assert_allclose(steps[0].positions_world, [center[:3]] * len(NAMES), atol=8.0)
    moves = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    checked = 0
    for now, then in pairwise(steps):
        for row, name in enumerate(now.names):
            if name in then.names:
                other = then.names.index(name)
                if then.scales_mm[other] == now.scales_mm[row]:
                    moved = then.positions_world[other] - now.positions_world[row]
                    wanted = moves[now.actions[row, 0]] * now.scales_mm[row]
                    np.testing.assert_allclose(moved, wanted, atol=1e-9)
                    checked += 1
    assert checked > 20


def test_only_the_landmarks_asked_for_are_seen(detector, scan):
    detection, steps = watched(detector, scan, landmarks=["d", "b"])
    assert {name for step in steps for name in step.names} == {"b", "d"}
    assert all(len(step.names) == len(step.positions_world) > 0 for step in steps)
    whole = detector.detect(scan)
    for name in ("b", "d"):
        np.testing.assert_array_equal(detection[name].position_world, whole[name].position_world)


def test_watching_changes_nothing_and_the_windows_are_in_the_provenance(detector, scan):
    watched_one, _ = watched(detector, scan)
    alone = detector.detect(scan)
    for name in NAMES:
        np.testing.assert_array_equal(watched_one[name].position_world, alone[name].position_world)
    assert alone.trajectory.provenance["window_voxels"] == WINDOW


#: Somewhere in the scan, RAS mm.
ELSEWHERE = np.array([10.0, 20.0, 60.0])


class Doubter:
    """A shape prior that rejects one landmark and expects it elsewhere."""

    def assess(self, points):
        count = len(NAMES)
        outlier = np.array([name == "c" for name in NAMES])
        expected = np.tile(ELSEWHERE, (count, 1))
        return ShapeAssessment(expected, np.full(count, 40.0), np.full(count, 9.0), outlier)


def test_a_second_search_is_seen_as_another_start(detector, scan):
    model = detector.model
    doubted = LandmarkDetector(LandmarkModel(NAMES, model.settings, model.networks, Doubter()))
    detection, steps = watched(doubted, scan)
    assert "where the others expect it" in detection["c"].note
    second = [step for step in steps if step.starts.max() == 1]
    assert {name for step in second for name in step.names} == {"c"}
    first = next(path for path in detection.trajectory.agents if path.name == "c")
    np.testing.assert_allclose(second[0].positions_world[0], ELSEWHERE, atol=4.0)
    assert len(steps) > len(second) + len(first) - 1
    _, others = watched(doubted, scan, landmarks=["a", "h"])
    assert {name for step in others for name in step.names} == {"a", "h"}


def test_what_a_watcher_raises_ends_the_search_and_comes_out(detector, scan):
    class EnoughError(Exception):
        pass

    seen = []

    def watch(step):
        seen.append(step)
        if len(seen) == 3:
            raise EnoughError

    with pytest.raises(EnoughError):
        detector.detect(scan, watch=watch)
    assert len(seen) == 3


def test_a_search_can_be_watched_from_another_thread(detector, scan):
    done = []
    worker = threading.Thread(target=lambda: done.append(watched(detector, scan)))
    worker.start()
    worker.join()
    here = detector.detect(scan)
    detection, steps = done[0]
    assert steps
    np.testing.assert_array_equal(detection["a"].position_world, here["a"].position_world)
