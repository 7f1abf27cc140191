"""From many orientations to one answer: agents walk side by side and the judge picks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import NamedTuple

import torch
from torch import Tensor

from medrl.registration.dynamics import RegistrationDynamics
from medrl.registration.network import Decision, RegistrationNetwork, expected_steps
from medrl.registration.transforms import Kind, constrain

#: Steps an agent may weigh against each other: shares of the step it would make.
_LOOKAHEAD = (1.0, 0.5, 1.5)


@dataclass(frozen=True)
class SearchSettings:
    """How agents go about it.

    Attributes:
        steps: On each level, coarsest first.
        keep: Agents that go on after a third of the first level's steps, and into each later
            level.
        memory: Whether agents of each level remember their walk (the recurrent core).
        lookahead: Agents try several lengths of each step and take what the judge says is best
            (Sun et al., MedIA 2021, look ahead with the value function).
    """

    steps: tuple[int, ...] = (12, 6)
    keep: tuple[int, ...] = (8, 3)
    memory: tuple[bool, ...] = (True, True)
    lookahead: bool = False


class Walk(NamedTuple):
    """What one agent did.

    Attributes:
        start: Number of its starting point.
        transforms: (T, 4, 4), the last being its answer.
        errors: (T,) predicted mean error of each, mm.
        spacings: (T,) voxel size it looked at, mm.
    """

    start: int
    transforms: Tensor
    errors: Tensor
    spacings: Tensor


@torch.no_grad()
def search(
    levels: Sequence[tuple[RegistrationNetwork, RegistrationDynamics]],
    starts: Tensor,
    *,
    kind: Kind,
    settings: SearchSettings,
) -> list[Walk]:
    """Let agents walk from many starts, and fewer and fewer of them go on.

    Args:
        levels: Network and dynamics of each, coarsest first.
        starts: (N, 4, 4) float64.
        kind: What agents may change.
        settings: How.

    Returns:
        Walks of the agents that reached the end, the most promising first. Each ends where its
        agent's predicted error was lowest on the finest level.
    """
    crowd = _Crowd(starts)
    first = settings.steps[0]
    for index, (network, dynamics) in enumerate(levels):
        if index:
            crowd.keep(settings.keep[min(index, len(settings.keep) - 1)])
        crowd.enter(dynamics.level.spacing, network.blank(crowd.count))
        for step in range(settings.steps[index] + 1):
            if index == 0 and step == max(1, first // 3):
                crowd.keep(settings.keep[0])
            memory = crowd.memory if settings.memory[index] else None
            decision = network(dynamics.look(crowd.transforms), memory)
            crowd.judge(decision)
            if step == settings.steps[index]:
                break
            steps = constrain(expected_steps(decision.logits, dynamics.level.steps), kind)
            options = _options(dynamics, crowd.transforms, steps, kind, settings.lookahead)
            if len(options) == 1:
                crowd.go(options[0])
                continue
            memory = crowd.memory if settings.memory[index] else None
            judged = [network(dynamics.look(option), memory).error for option in options]
            crowd.go(options[torch.stack(judged).argmin(dim=0), torch.arange(crowd.count)])
        crowd.back_to_best()
    return crowd.walks()


def _options(
    dynamics: RegistrationDynamics, transforms: Tensor, steps: Tensor, kind: Kind, ahead: bool
) -> Tensor:
    """Where agents could go, (O, N, 4, 4): the step itself, or several lengths of it."""
    shares = _LOOKAHEAD if ahead else (1.0,)
    return torch.stack([dynamics.step(transforms, steps * share, kind=kind) for share in shares])


class _Crowd:
    """Agents side by side, and what each of them has seen so far."""

    def __init__(self, starts: Tensor) -> None:
        self.transforms = starts
        self.memory = starts.new_zeros(0)
        self._numbers = torch.arange(len(starts))
        self._spacing = 0.0
        self._seen: list[tuple[Tensor, Tensor, float]] = []
        self._best_error = starts.new_zeros(0)
        self._best = starts

    @property
    def count(self) -> int:
        return len(self.transforms)

    def enter(self, spacing: float, memory: Tensor) -> None:
        """Begin on a level, without memory of the one before."""
        self._spacing = spacing
        self.memory = memory
        self._best_error = torch.full((self.count,), torch.inf, dtype=torch.float64)
        self._best = self.transforms

    def judge(self, decision: Decision) -> None:
        """Take note of what agents think of where they are."""
        error = decision.error.double().cpu().clamp(0, 6).expm1()
        self.memory = decision.memory
        self._seen.append((self.transforms, error, self._spacing))
        better = error < self._best_error
        self._best_error = torch.where(better, error, self._best_error)
        self._best = torch.where(better[:, None, None], self.transforms, self._best)

    def go(self, transforms: Tensor) -> None:
        self.transforms = transforms

    def back_to_best(self) -> None:
        """Put every agent where it thought best of itself, and those first who think so most."""
        self.transforms = self._best
        self._order(self._best_error.argsort())

    def keep(self, count: int) -> None:
        """Send home all but the most promising agents."""
        self._order(self._best_error.argsort()[:count])

    def walks(self) -> list[Walk]:
        transforms = torch.stack([*(t for t, _, _ in self._seen), self.transforms], dim=1)
        errors = torch.stack([*(e for _, e, _ in self._seen), self._best_error], dim=1)
        spacings = torch.tensor([*(s for _, _, s in self._seen), self._spacing])
        return [
            Walk(int(n), transforms[row], errors[row], spacings)
            for row, n in enumerate(self._numbers)
        ]

    def _order(self, rows: Tensor) -> None:
        self._numbers = self._numbers[rows]
        self.transforms, self._best = self.transforms[rows], self._best[rows]
        self.memory, self._best_error = self.memory[rows], self._best_error[rows]
        self._seen = [(t[rows], e[rows], s) for t, e, s in self._seen]


def orientations() -> Tensor:
    """The 24 rotations that bring a cube's axes onto its axes, the identity first, (24, 3, 3).

    No rotation is further than 63 degrees from one of them.
    """
    found = []
    for axes in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = torch.zeros((3, 3), dtype=torch.float64)
            matrix[torch.arange(3), list(axes)] = torch.tensor(signs, dtype=torch.float64)
            if torch.linalg.det(matrix) > 0:
                found.append(matrix)
    found.sort(key=lambda m: -float(m.trace()))
    return torch.stack(found)


def starting_points(fixed_center: Tensor, moving_center: Tensor) -> Tensor:
    """Transforms (24, 4, 4) that bring the centers (3,) together in every orientation."""
    turns = orientations()
    starts = torch.eye(4, dtype=torch.float64).repeat(len(turns), 1, 1)
    starts[:, :3, :3] = turns
    starts[:, :3, 3] = moving_center - turns @ fixed_center
    return starts
