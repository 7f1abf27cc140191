"""How a team decides without learning: likeness against what neighbours say, ever more of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medrl.agents import Decision
from medrl.tracking.visits.dynamics import MOVES, STAY, VisitDynamics, VisitState


@dataclass(frozen=True)
class Coupling:
    """How much a step away from where its neighbours expect it costs an agent.

    Attributes:
        first: Of a squared step, in the unit of what agents see, in the first round.
        last: In the last, and after.
    """

    first: float = 3e-4
    last: float = 1e-2


class JointDescent:
    """Each agent walks to where likeness and neighbours together are best.

    Coupled convex optimisation (Heinrich, Papiez, Schnabel and Handels, WBIR 2014, eq. 3-5; the
    message is its auxiliary field): an agent weighs how unlike the scans are at an offset against
    the squared distance to where its neighbours expect it. The weight grows from round to round.
    """

    def __init__(self, coupling: Coupling | None = None) -> None:
        """Decide with this coupling."""
        self.coupling = coupling or Coupling()

    def __call__(
        self, dynamics: VisitDynamics, state: VisitState, memory: Tensor | None
    ) -> Decision:
        """Decide, see :class:`medrl.agents.Policy`; the value is the cost, negative."""
        cost = self.cost(dynamics, state)
        best = offsets_of(dynamics.view.search)[cost.flatten(1).argmin(dim=1)]
        sub = best.double() + subvoxel(cost, best)
        message = state.origin + dynamics.to_mm(state, sub)
        apart = best - state.offset
        axis = apart.abs().argmax(dim=1)
        signed = apart.gather(1, axis[:, None])[:, 0]
        action = torch.where(signed == 0, STAY, 2 * axis + (signed < 0).long())
        here = at_offset(cost, state.offset + MOVES[action])
        return Decision(action, -here, extras={"message": message})

    def cost(self, dynamics: VisitDynamics, state: VisitState) -> Tensor:
        """What every offset costs each agent, (N, S, S, S)."""
        share = (state.steps / max(1, dynamics.view.rounds - 1)).clamp(max=1.0)
        ratio = self.coupling.last / self.coupling.first
        weight = self.coupling.first * ratio**share
        expected = dynamics.to_steps(state, state.heard)
        grid = offsets_of(dynamics.view.search).double()
        apart = (grid[None] - expected[:, None]).square().sum(dim=2)
        return state.sees + (weight[:, None] * apart).float().view_as(state.sees)


def at_offset(values: Tensor, offset: Tensor) -> Tensor:
    """Entries (N,) of maps (N, S, S, S) at offsets (N, 3) from their middle."""
    middle = values.shape[1] // 2
    i, j, k = (offset + middle).clamp(0, values.shape[1] - 1).unbind(dim=1)
    return values[torch.arange(len(values)), i, j, k]


def subvoxel(values: Tensor, offset: Tensor) -> Tensor:
    """Where the parabola through an entry and its two neighbours has its lowest point, per axis.

    Args:
        values: Maps (N, S, S, S).
        offset: (N, 3) entries, offsets from the middle; on the rim of a map the answer is 0.

    Returns:
        (N, 3) float64, -0.5 to 0.5 steps.
    """
    radius = values.shape[1] // 2
    here = at_offset(values, offset).double()
    parts = []
    for axis in range(3):
        shift = torch.zeros_like(offset)
        shift[:, axis] = 1
        up, down = (at_offset(values, offset + sign * shift).double() for sign in (1, -1))
        bend = up + down - 2 * here
        part = ((down - up) / (2 * bend.clamp(min=1e-9))).clamp(-0.5, 0.5)
        parts.append(torch.where((bend > 1e-9) & (offset[:, axis].abs() < radius), part, 0.0))
    return torch.stack(parts, dim=1)


def offsets_of(radius: int) -> Tensor:
    """All offsets ((2 r + 1)^3, 3) of a map, in the order of its entries."""
    axis = torch.arange(-radius, radius + 1)
    return torch.cartesian_prod(axis, axis, axis)
