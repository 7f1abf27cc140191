"""Rewards and the values that follow from them, against closed forms and brute force."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medrl.landmark.dynamics import MOVES
from medrl.landmark.rewards import (
    RewardForm,
    nearest_reached,
    optimal_values,
    potential,
    step_rewards,
)

FORMS: list[RewardForm] = ["distance", "squared"]


def offsets(count: int, spread: float, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-spread, spread, (count, 3))


def value_of(offset: NDArray[np.float64], form: RewardForm) -> NDArray[np.float64]:
    distance = np.linalg.norm(offset, axis=-1)
    return -(distance**2) if form == "squared" else -distance


@pytest.mark.parametrize("form", FORMS)
def test_potential(form: RewardForm) -> None:
    offset = offsets(50, 20)
    np.testing.assert_allclose(
        potential(torch.from_numpy(offset), form).numpy(), value_of(offset, form)
    )


def test_squared_rewards_are_linear_in_the_offset() -> None:
    # |d|^2 - |d -+ e|^2 = +-2 d - 1
    offset = torch.from_numpy(offsets(50, 20))
    rewards = step_rewards(offset, "squared")
    torch.testing.assert_close(rewards[:, ::2], 2 * offset - 1)
    torch.testing.assert_close(rewards[:, 1::2], -2 * offset - 1)


def test_distance_rewards() -> None:
    # 3-4-5 and 5-12-13 triangles.
    rewards = step_rewards(torch.tensor([[4.0, 3.0, 0.0], [0.0, 12.0, 4.0]], dtype=torch.float64))
    assert float(rewards[0, 0]) == pytest.approx(5 - np.sqrt(18))
    assert float(rewards[0, 1]) == pytest.approx(5 - np.sqrt(34))
    assert float(rewards[1, 5]) == pytest.approx(np.sqrt(160) - 13)
    # On an axis every step is worth one.
    straight = step_rewards(torch.tensor([7.0, 0.0, 0.0]))
    assert straight[:2].tolist() == pytest.approx([1.0, -1.0])
    assert (straight[2:] < 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_opposite_moves_tell_the_sub_voxel_offset(form: RewardForm) -> None:
    """Near the landmark the rewards of opposite moves differ by twice the offset (or four times).

    This is exact for squared distances, and along an axis for distances.
    """
    offset = torch.tensor([[0.3, 0.0, 0.0], [-0.45, 0.0, 0.0]], dtype=torch.float64)
    rewards = step_rewards(offset, form)
    factor = 4 if form == "squared" else 2
    torch.testing.assert_close(rewards[:, 0] - rewards[:, 1], factor * offset[:, 0])


@pytest.mark.parametrize("form", FORMS)
def test_without_discount_values_are_rewards(form: RewardForm) -> None:
    offset = torch.from_numpy(offsets(20, 6))
    torch.testing.assert_close(
        optimal_values(offset, gamma=0.0, form=form), step_rewards(offset, form)
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gamma", [0.3, 0.7, 0.95])
def test_values_are_those_of_the_best_of_all_walks(form: RewardForm, gamma: float) -> None:
    """All 6^5 walks of five moves, from places near and far."""
    walks = np.array(list(itertools.product(range(6), repeat=5)))
    places = MOVES.numpy()[walks].cumsum(axis=1)
    for offset in np.concatenate([offsets(6, 1.2), offsets(6, 5.0, seed=1)]):
        values = value_of(offset - places, form)
        before = np.concatenate(
            [np.full((len(walks), 1), value_of(offset, form)), values[:, :-1]], axis=1
        )
        returns = ((values - before) * gamma ** np.arange(5)).sum(axis=1)
        best = [returns[walks[:, 0] == action].max() for action in range(6)]
        found = optimal_values(torch.from_numpy(offset), gamma=gamma, form=form, horizon=4)
        np.testing.assert_allclose(found.numpy(), best, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gamma", [0.3, 0.6, 0.9])
def test_values_are_those_of_value_iteration(form: RewardForm, gamma: float) -> None:
    size = 11
    goal = np.array([5.2, 4.7, 5.4])
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1)
    worth = value_of(goal - grid, form)
    inner = slice(1, -1)

    def neighbours(field: NDArray[np.float64]) -> NDArray[np.float64]:
        shifted = [np.roll(field, tuple(-move), axis=(0, 1, 2)) for move in MOVES.numpy()]
        return np.stack(shifted, axis=-1)

    # Moves out of the grid wrap around to its far side and lose; no best move leads there.
    reward = neighbours(worth) - worth[..., None]
    values = np.zeros(grid.shape[:3])
    for _ in range(400):
        action_values = reward + gamma * neighbours(values)
        values = action_values.max(axis=-1)
    offset = torch.from_numpy(goal - grid[inner, inner, inner])
    horizon = int(np.ceil(np.log(1e-7) / np.log(gamma)))
    found = optimal_values(offset, gamma=gamma, form=form, horizon=horizon).numpy()
    np.testing.assert_allclose(found, action_values[inner, inner, inner], atol=1e-4)


def test_nearest_reached_is_what_brute_force_says() -> None:
    neighbourhood = np.array(list(itertools.product((-2, -1, 0, 1, 2), repeat=3)))
    offset = offsets(2000, 1.0)
    distances = np.linalg.norm(offset[:, None] - neighbourhood, axis=-1)
    here = np.linalg.norm(offset, axis=-1)
    expected = here <= distances.min(axis=1)
    assert 0 < expected.sum() < len(expected)
    assert (nearest_reached(torch.from_numpy(offset)).numpy() == expected).all()
    assert bool(nearest_reached(torch.tensor([0.5, -0.5, 0.0])))
