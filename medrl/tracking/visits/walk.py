"""One walk of a team: from points and a registration to places in the later scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from medrl.agents import Policy, rollout
from medrl.agents.rollout import Transition
from medrl.tracking.visits.dynamics import Pair, View, VisitDynamics, VisitState, certainty
from medrl.tracking.visits.neighbours import nearest
from medrl.tracking.visits.policy import at_offset

Array = NDArray[np.float64]

#: What the confidence is judged by, see :func:`features`.
FEATURES = ("unlike", "stands out", "apart from neighbours", "neighbours' spread", "back again")


@dataclass(frozen=True, eq=False)
class Walked:
    """How a team of N agents ended.

    Attributes:
        points_world: (N, 3) where the points were, RAS mm.
        displacement: (N, 3) mm, see :mod:`medrl.tracking.visits.dynamics`.
        heard: (N, 3) mm, what neighbours expect.
        unlike: (N,) how unlike the scans are there, 0 to 1.
        stands_out: (N,) how far that lies below what is around.
        spread: (N,) mm, how far the neighbours are from what theirs expect.
        start_world: (4, 4).
    """

    points_world: Array
    displacement: Array
    heard: Array
    unlike: Array
    stands_out: Array
    spread: Array
    start_world: Array

    @property
    def later_world(self) -> Array:
        """(N, 3) where the points are in the later scan, RAS mm."""
        turn, shift = self.start_world[:3, :3], self.start_world[:3, 3]
        return (self.points_world + self.displacement) @ turn.T + shift

    def choose(self, other: Walked) -> Walked:
        """Of two walks of the same points, for each the one that ended where scans are more alike.

        What neighbours expect counts as well: a step of 1.5 mm away from it as much as 0.01.
        """
        costs = [
            w.unlike + 0.005 * np.linalg.norm(w.displacement - w.heard, axis=1)
            for w in (self, other)
        ]
        better = costs[0] <= costs[1]

        def pick(one: Array, two: Array) -> Array:
            return np.where(better.reshape(-1, *[1] * (one.ndim - 1)), one, two)

        names = ("displacement", "heard", "unlike", "stands_out", "spread")
        return replace(self, **{n: pick(getattr(self, n), getattr(other, n)) for n in names})


def walk(
    pair: Pair,
    points_world: Array,
    *,
    view: View,
    policy: Policy,
    neighbours: int,
    displacement: Array | None = None,
    on_step: Callable[[Transition[VisitState], VisitDynamics], None] | None = None,
) -> Walked:
    """Let a team walk to its end.

    Args:
        pair: The scans.
        points_world: (N, 3) RAS mm of the earlier scan.
        view: What agents see.
        policy: What decides.
        neighbours: How many each hears.
        displacement: (N, 3) mm where they begin; zero if left out.
        on_step: Told of every step.
    """
    dynamics = VisitDynamics([pair], view=view)
    begin = None if displacement is None else torch.from_numpy(displacement)
    state = dynamics.reset(
        torch.zeros(len(points_world), dtype=torch.int64),
        torch.from_numpy(points_world),
        torch.from_numpy(nearest(points_world, neighbours)),
        begin,
    )
    told = None if on_step is None else lambda transition: on_step(transition, dynamics)
    end = rollout(dynamics, policy, state, on_step=told).state
    found, heard = end.message, dynamics.hear(end)
    hood = dynamics.neighbourhood(end)
    apart = (found - heard).norm(dim=1)
    count = hood.there.sum(dim=1).clamp(min=1)
    spread = (apart[hood.row] * hood.there).sum(dim=1) / count
    place = dynamics.to_steps(end, found).round().long()
    return Walked(
        points_world,
        found.numpy(),
        heard.numpy(),
        at_offset(end.sees, place).double().numpy(),
        certainty(end.sees).numpy(),
        spread.numpy(),
        pair.start_world,
    )


def walk_back(pair: Pair, walked: Walked, *, view: View, policy: Policy, neighbours: int) -> Array:
    """How far from its point each agent ends that walks back from where it was found, (N,) mm."""
    swapped = Pair(pair.later, pair.earlier, np.asarray(np.linalg.inv(pair.start_world)))
    found = walked.later_world
    # Agents begin at the registration again, not where they would only have to stay.
    back = walk(swapped, found, view=view, policy=policy, neighbours=neighbours)
    return np.asarray(np.linalg.norm(back.later_world - walked.points_world, axis=1))


def features(walked: Walked, back: Array) -> Array:
    """What the confidence is judged by, (N, F) as :data:`FEATURES` names it; mm as log(1 + mm)."""
    apart = np.linalg.norm(walked.displacement - walked.heard, axis=1)
    return np.column_stack(
        [walked.unlike, walked.stands_out, np.log1p(apart), np.log1p(walked.spread), np.log1p(back)]
    )


def first_rows(transition: Transition[VisitState], count: int) -> Transition[VisitState]:
    """What the first agents of a team did: the points that were asked come before the support."""
    keep = transition.rows < count
    return replace(
        transition,
        rows=transition.rows[keep],
        before=transition.before.select(keep),
        decision=transition.decision.select(keep),
        after=transition.after.select(keep),
        reward=None if transition.reward is None else transition.reward[keep],
    )
