"""Rewards of registration agents, worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from medrl.registration.rewards import RewardSettings, mean_distance, step_rewards

BEFORE = torch.tensor([10.0, 10.0, 1.0, 5.0], dtype=torch.float64)
AFTER = torch.tensor([4.0, 12.0, 1.0, 5.0], dtype=torch.float64)
STOPPED = torch.tensor([False, False, True, True])


def test_distance_is_the_negative_landmark_distance_in_millimetres() -> None:
    settings = RewardSettings("distance", bonus=10.0, threshold=2.0, penalty=3.0)
    found = step_rewards(BEFORE, AFTER, STOPPED, settings)
    assert found.tolist() == pytest.approx([-4.0, -12.0, -1.0 + 10.0, -5.0 - 3.0])


def test_progress_is_how_much_the_logarithm_shrinks() -> None:
    settings = RewardSettings("progress", bonus=0.5, threshold=2.0)
    found = step_rewards(BEFORE, AFTER, STOPPED, settings)
    expected = [math.log(11 / 5), math.log(11 / 13), 0.5, 0.0]
    assert found.tolist() == pytest.approx(expected)


def test_progress_of_a_walk_does_not_depend_on_the_way() -> None:
    path = torch.tensor([40.0, 55.0, 12.0, 30.0, 3.0], dtype=torch.float64)
    going = torch.zeros(4, dtype=torch.bool)
    found = step_rewards(path[:-1], path[1:], going, RewardSettings("progress", bonus=9.0))
    assert float(found.sum()) == pytest.approx(math.log(41 / 4))


def test_no_bonus_without_stopping_nor_at_the_threshold() -> None:
    near = torch.tensor([1.0, 2.0, 1.999], dtype=torch.float64)
    settings = RewardSettings("progress", bonus=1.0, threshold=2.0, penalty=0.25)
    found = step_rewards(near, near, torch.tensor([False, True, True]), settings)
    assert found.tolist() == pytest.approx([0.0, -0.25, 1.0])


def test_mean_distance_of_a_shift_and_of_a_turn() -> None:
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.normal(0, 50, (2, 30, 3)))
    transforms = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    transforms[0, :3, 3] = torch.tensor([3.0, -4.0, 12.0])
    turn = Rotation.from_rotvec([0, 0, 50], degrees=True).as_matrix()
    transforms[1, :3, :3] = torch.from_numpy(turn)
    found = mean_distance(transforms, points, points)
    # A turn moves a point by the chord at its distance from the axis.
    chords = 2 * math.sin(math.radians(25)) * points[1, :, :2].norm(dim=1)
    assert found.tolist() == pytest.approx([13.0, float(chords.mean())])
    targets = points + torch.tensor([3.0, -4.0, 12.0])
    assert float(mean_distance(transforms[0], points[0], targets[0])) == pytest.approx(0, abs=1e-12)
