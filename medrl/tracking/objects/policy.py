"""How the agents of a scene decide together: an assignment on what each expects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from medrl.agents.policy import Decision
from medrl.tracking.objects.dynamics import TrackDynamics, TrackState, View

#: From what agents see to the values of their actions, (N, A).
Values = Callable[[Mapping[str, Tensor]], Tensor]

_SHUT = -1e6


class Together:
    """Chooses the actions of a scene's agents with the largest sum of values.

    Every detection goes to one track, or to the agent at it, or to nobody; whoever gets none does
    what is worth most without one. That is a linear assignment problem (Kuhn 1955) whose gains are
    the values of actions with a detection less the best one without. Conflicts can not arise.

    Attributes:
        margin: (N,) float64, of the last decision: by how much the value of each agent's action
            exceeds that of the best other one.
    """

    def __init__(
        self, values: Values, *, epsilon: float = 0.0, generator: Generator | None = None
    ) -> None:
        """Decide by values.

        Args:
            values: Of all actions.
            epsilon: Share of the agents whose values are replaced by random ones.
            generator: Source of these.
        """
        self._values = values
        self.epsilon = epsilon
        self.generator = generator
        self.margin = torch.zeros(0, dtype=torch.float64)

    def __call__(
        self, dynamics: TrackDynamics, state: TrackState, memory: Tensor | None = None
    ) -> Decision:
        """Decide, see :class:`medrl.agents.policy.Policy`."""
        with torch.no_grad():
            values = self._values(dynamics.observe(state)).double()
        if self.epsilon > 0:
            drawn = torch.rand(len(values), generator=self.generator) < self.epsilon
            noise = torch.randn(values.shape, generator=self.generator, dtype=torch.float64)
            values = torch.where(drawn[:, None], values.mean() + values.std() * noise, values)
        action = together(dynamics, state, values)
        value = values.gather(1, action[:, None])
        others = values.masked_fill(~dynamics.allowed(state), _SHUT)
        self.margin = (value - others.scatter(1, action[:, None], _SHUT).amax(1, True))[:, 0]
        return Decision(action, value[:, 0])


def together(dynamics: TrackDynamics, state: TrackState, values: Tensor) -> Tensor:
    """The actions (N,) with the largest sum of values (N, A), no detection chosen twice."""
    v, sight = dynamics.view, dynamics.sight(state)
    values = values.masked_fill(~dynamics.allowed(state), _SHUT)
    alone = values[:, [v.coast, v.end]].max(dim=1)
    action = torch.tensor([v.coast, v.end])[alone.indices]
    begin = values[:, [v.start, v.divide]].max(dim=1)
    if not len(sight.births):
        return action
    columns = len(sight.births)
    gains = np.zeros((len(state), columns))
    open_ = (sight.open & ~state.birth[:, None]).numpy()
    gain = (values[:, : v.candidates] - alone.values[:, None]).numpy()
    agent, choice = np.nonzero(open_)
    gains[agent, sight.near.numpy()[agent, choice]] = gain[agent, choice]
    births = sight.births.numpy()
    gains[births, np.arange(columns)] = (begin.values - alone.values).numpy()[births]
    gains = gains.clip(min=0)
    scene = state.scene.numpy()
    for one in np.unique(scene[births]):
        rows = np.flatnonzero(scene == one)
        mine = np.flatnonzero(scene[births] == one)
        row, column = linear_sum_assignment(gains[np.ix_(rows, mine)], maximize=True)
        row, column = rows[row], mine[column]
        taken = gains[row, column] > 0
        row, column = torch.from_numpy(row[taken]), torch.from_numpy(column[taken])
        begins = state.birth[row]
        which = (sight.near[row] == column[:, None]) & sight.open[row]
        starts = torch.tensor([v.start, v.divide])[begin.indices[row]]
        action[row] = torch.where(begins, starts, which.long().argmax(dim=1))
    return action


@dataclass(frozen=True)
class HandMade:
    """Values by hand, without any learning: what a trained network is compared with.

    Attributes:
        view: What the agents see.
    """

    view: View

    def __call__(self, seen: Mapping[str, Tensor]) -> Tensor:
        """Values (N, A): overlap and nearness of candidates, similar looks; patience."""
        pairs, own = seen["pairs"], seen["own"]
        v = self.view
        overlap, distance, growth, alike = (pairs[..., n] for n in (0, 1, 5, 8))
        match = 2 + overlap - distance - growth + 0.5 * alike
        values = torch.zeros((len(own), v.actions))
        values[:, : v.candidates] = match
        values[:, v.end] = -0.5
        values[:, v.start] = 0.2
        values[:, v.divide] = 0.0
        return values
