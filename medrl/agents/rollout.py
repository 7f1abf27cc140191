"""The one loop: policies decide, dynamics move, until every agent has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic

import torch
from torch import Tensor

from medrl.agents.dynamics import DROPPED, Dynamics, S
from medrl.agents.policy import Decision, Policy, Remembering
from medrl.agents.task import Task

#: From the number of a step and how many agents go on after it to how many may.
Beam = Callable[[int, int], int]


@dataclass(frozen=True, eq=False)
class Transition(Generic[S]):
    """One step of the R agents that were active.

    Attributes:
        index: Number of the step, from 0.
        rows: (R,) int64, which of the N agents.
        before: Where they were.
        decision: What they decided.
        after: What came of it.
        reward: (R,) what it was worth, if a task was given.
    """

    index: int
    rows: Tensor
    before: S
    decision: Decision
    after: S
    reward: Tensor | None


@dataclass(frozen=True, eq=False)
class Rollout(Generic[S]):
    """How N agents ended.

    Attributes:
        state: Of all of them, at the end.
        steps: (N,) int64, how many each made.
        score: (N,) of the place where each ended, where the policy scores; else NaN.
        returns: (N,) sum of each one's rewards, if a task was given.
        memory: (N, ...) what they remember, or None.
    """

    state: S
    steps: Tensor
    score: Tensor
    returns: Tensor | None
    memory: Tensor | None


def rollout(
    dynamics: Dynamics[S],
    policy: Policy,
    state: S,
    *,
    task: Task[S] | None = None,
    beam: Beam | None = None,
    max_steps: int | None = None,
    on_step: Callable[[Transition[S]], None] | None = None,
    memory: Tensor | None = None,
) -> Rollout[S]:
    """Walk agents until each has ended.

    Training, evaluation, inference, recording and live viewing go through here; the environment of
    :mod:`medrl.rl.env` advances the same dynamics and task one step at a time.

    Args:
        dynamics: What the agents live in.
        policy: What decides; only agents that are active are asked.
        state: N agents at their starts.
        task: Where the truth is known: rewards, and stopping rules that need it.
        beam: How many agents may go on after each step; the others, of lower score, are dropped.
        max_steps: Stop after so many steps, whoever is still active.
        on_step: Called after every step; what it raises ends the rollout and comes out of it.
        memory: (N, ...) what agents remember at the start; blank if left out.

    Returns:
        How they ended.
    """
    count, device = len(state), state.device
    if memory is None and isinstance(policy, Remembering):
        memory = policy.blank(count)
    steps = torch.zeros(count, dtype=torch.int64, device=device)
    score = torch.full((count,), torch.nan, dtype=torch.float64, device=device)
    returns = None if task is None else torch.zeros(count, device=device)
    index = 0
    while index != max_steps:
        rows = torch.nonzero(state.active)[:, 0]
        if len(rows) == 0:
            break
        every = len(rows) == count
        before = state if every else state.select(rows)
        decision = policy(dynamics, before, None if memory is None else memory[rows])
        after, reward = advance(dynamics, task, before, decision.action, decision.extras or {})
        if reward is not None and returns is not None:
            returns = returns.index_add(0, rows, reward)
        if decision.score is not None:
            score = score.index_copy(0, rows, decision.score.double())
        if memory is not None and decision.memory is not None:
            memory = memory.index_copy(0, rows, decision.memory)
        if beam is not None:
            after = _narrowed(after, score[rows], beam(index, int(after.active.sum())))
        state = after if every else state.put(rows, after)
        steps = steps.index_add(0, rows, torch.ones_like(rows))
        if on_step is not None:
            on_step(Transition(index, rows, before, decision, after, reward))
        index += 1
    return Rollout(state, steps, score, returns, memory)


def advance(
    dynamics: Dynamics[S],
    task: Task[S] | None,
    state: S,
    action: Tensor,
    extras: Mapping[str, Tensor],
) -> tuple[S, Tensor | None]:
    """One step of agents that are all active.

    Args:
        dynamics: What they live in.
        task: Where the truth is known.
        state: N agents.
        action: (N, ...) what they do.
        extras: What else they decided.

    Returns:
        The new state, and what the step was worth (N,) where there is a task.
    """
    after = dynamics.step(state, action, **extras)
    if task is None:
        return after, None
    reward = task.reward(state, action, after)
    return task.ended(after), reward


def _narrowed(state: S, score: Tensor, count: int) -> S:
    """Agents of whom only the best `count` of those that are active go on."""
    rank = torch.where(state.active, score, -torch.inf).argsort(descending=True, stable=True)
    goes_on = torch.zeros_like(state.active)
    goes_on[rank[:count]] = True
    dropped = state.active & ~goes_on
    return replace(state, status=torch.where(dropped, DROPPED, state.status))
