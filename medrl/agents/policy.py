"""Who chooses: greedily, by chance, by looking ahead, with or without memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from medrl.agents.dynamics import Dynamics
from medrl.agents.rows import Rows

#: From observations by name to numbers for each choice (N, A) or (N, P, A).
Scores = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, eq=False)
class Decision(Rows):
    """What N agents have decided.

    Attributes:
        action: (N, ...) what they do.
        value: (N,) what they think it is worth, or None.
        score: (N,) how good the place is that it leads to, by which a beam chooses, or None.
        extras: What else the dynamics take note of, by name, (N, ...).
        memory: (N, ...) what they remember, or None.
    """

    action: Tensor
    value: Tensor | None = None
    score: Tensor | None = None
    extras: Mapping[str, Tensor] | None = None
    memory: Tensor | None = None


class Policy(Protocol):
    """Chooses actions for agents, all of them active.

    It asks the dynamics what they see, and may ask what would come of an action.
    """

    def __call__(self, dynamics: Any, state: Any, memory: Tensor | None) -> Decision:
        """Decide.

        Args:
            dynamics: What the agents live in.
            state: N of them.
            memory: (N, ...) what they remember; None where they do not.
        """


@runtime_checkable
class Remembering(Policy, Protocol):
    """A policy whose agents have a memory."""

    def blank(self, count: int) -> Tensor:
        """The memory (N, ...) of agents that have seen nothing."""


def masked(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Scores (N, A) with those of choices that are not open out of reach."""
    return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)


class Greedy:
    """Takes the choice of the highest value."""

    def __init__(self, values: Scores) -> None:
        """Choose by these values (N, A)."""
        self._values = values

    def __call__(self, dynamics: Any, state: Any, memory: Tensor | None) -> Decision:
        """Decide, see :class:`Policy`."""
        values = masked(self._values(dynamics.observe(state)), dynamics.allowed(state))
        value, action = values.max(dim=-1)
        return Decision(action, value)


class EpsilonGreedy:
    """Takes the choice of the highest value, or now and then any that is open."""

    def __init__(self, values: Scores, *, epsilon: float, generator: Generator) -> None:
        """Choose by these values (N, A), a share `epsilon` of the choices by chance."""
        self._greedy = Greedy(values)
        self.epsilon = epsilon
        self.generator = generator

    def __call__(self, dynamics: Any, state: Any, memory: Tensor | None) -> Decision:
        """Decide, see :class:`Policy`."""
        decision = self._greedy(dynamics, state, memory)
        count, allowed = len(state), dynamics.allowed(state)
        if allowed is None:
            allowed = torch.ones((count, dynamics.action_space.options), dtype=torch.bool)
        other = torch.multinomial(allowed.float().cpu(), 1, generator=self.generator)[:, 0]
        explores = torch.rand(count, generator=self.generator) < self.epsilon
        chosen = torch.where(
            explores.to(decision.action.device), other.to(decision.action), decision.action
        )
        return replace(decision, action=chosen)


class Sampled:
    """Draws from a distribution, or several independent ones."""

    def __init__(self, logits: Scores, *, generator: Generator) -> None:
        """Draw by these logits, (N, A) or (N, P, A)."""
        self._logits = logits
        self.generator = generator

    def __call__(self, dynamics: Any, state: Any, memory: Tensor | None) -> Decision:
        """Decide, see :class:`Policy`."""
        logits = masked(self._logits(dynamics.observe(state)), dynamics.allowed(state))
        return Decision(sample(logits, self.generator))


def sample(logits: Tensor, generator: Generator) -> Tensor:
    """Draw choices (...) from logits (..., A)."""
    chances = logits.detach().softmax(dim=-1)
    drawn = torch.multinomial(chances.flatten(0, -2).cpu(), 1, generator=generator)
    return drawn.view(logits.shape[:-1]).to(logits.device)


class LookAhead:
    """Tries some actions in the dynamics, and takes the one that leads to the best place.

    Staying is one of them where the candidates contain it. The score is that of the place (Sun et
    al., MedIA 2021, look ahead with a value function; any judgement of a state will do).
    """

    def __init__(
        self,
        candidates: Callable[[Dynamics[Any], Any], Tensor],
        score: Callable[[Dynamics[Any], Any], Tensor],
    ) -> None:
        """Look ahead.

        Args:
            candidates: From dynamics and N agents to the actions tried, (O, N, ...).
            score: From dynamics and agents to how good their places are, (N,).
        """
        self._candidates = candidates
        self._score = score

    def __call__(self, dynamics: Any, state: Any, memory: Tensor | None) -> Decision:
        """Decide, see :class:`Policy`."""
        actions = self._candidates(dynamics, state)
        tried = [self._score(dynamics, dynamics.step(state, action)) for action in actions]
        score, best = torch.stack(tried).max(dim=0)
        row = torch.arange(len(best), device=best.device)
        return Decision(actions[best, row], value=score, score=score)
