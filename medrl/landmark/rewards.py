"""Rewards of the landmark method, and the action values that follow from them in closed form."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from medrl.landmark.dynamics import MOVES

RewardForm = Literal["distance", "squared"]


def potential(offset: Tensor, form: RewardForm) -> Tensor:
    """Negative distance, or negative squared distance, to the landmark.

    Args:
        offset: (..., 3), landmark minus position, in steps of the current scale.
        form: ``distance`` (Ghesu 2016) or ``squared`` (Ghesu 2019).

    Returns:
        (...), in steps or squared steps.
    """
    squared = offset.square().sum(dim=-1)
    return -squared if form == "squared" else -squared.sqrt()


def step_rewards(offset: Tensor, form: RewardForm = "distance") -> Tensor:
    """Rewards of all six moves.

    The reward is a potential difference, ``R = |p_t - g| - |p_t+1 - g|`` (Ghesu 2016) or
    ``R = |p_t - g|^2 - |p_t+1 - g|^2`` (Ghesu 2019), so it is known for every move at every
    position of a labelled scan.

    Args:
        offset: (..., 3), landmark minus position, in steps of the current scale.
        form: Which of the two.

    Returns:
        (..., 6), in the order of :data:`medrl.landmark.dynamics.MOVES`.
    """
    moves = MOVES.to(offset)
    return potential(offset[..., None, :] - moves, form) - potential(offset, form)[..., None]


def optimal_values(
    offset: Tensor, *, gamma: float, form: RewardForm = "distance", horizon: int = 8
) -> Tensor:
    """Action values Q(s, a) of the agent that always takes the best reward, without a network.

    With the landmark known, the return of every move can be summed up by walking on greedily:
    ``Q(s, a) = r(s, a) + gamma max_a' r(s', a') + ...``. This is what imitation regresses on.

    Args:
        offset: (..., 3), landmark minus position, in steps of the current scale.
        gamma: Discount; with 0 the values are the rewards themselves.
        form: Form of the reward.
        horizon: Moves summed up; gamma ** horizon is what is neglected.

    Returns:
        (..., 6).
    """
    moves = MOVES.to(offset)
    values = step_rewards(offset, form)
    if gamma == 0:
        return values
    ahead = offset[..., None, :] - moves
    discount = gamma
    for _ in range(horizon):
        best, action = step_rewards(ahead, form).max(dim=-1)
        values = values + discount * best
        ahead = ahead - moves[action]
        discount *= gamma
    return values


def nearest_reached(offset: Tensor) -> Tensor:
    """Tell whether no lattice point is nearer to the landmark: |offset| <= 1/2 on every axis.

    Args:
        offset: (..., 3), landmark minus position, in steps of the current scale.

    Returns:
        (...) bool.
    """
    return (offset.abs() <= 0.5 + 1e-6).all(dim=-1)


__all__ = ["RewardForm", "nearest_reached", "optimal_values", "potential", "step_rewards"]
