"""Imitation: the network learns to say where points are, in the states that teams get into."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.agents import Policy, rollout
from medrl.agents.rollout import Transition
from medrl.rl.learner import Learner
from medrl.tracking.visits.calibrate import Case
from medrl.tracking.visits.dynamics import VisitDynamics, VisitState
from medrl.tracking.visits.model import VisitSettings
from medrl.tracking.visits.neighbours import nearest
from medrl.tracking.visits.network import BeliefNetwork, observed
from medrl.tracking.visits.policy import offsets_of


@dataclass(frozen=True)
class ImitationSettings:
    """How the network learns.

    Attributes:
        steps: Batches.
        batch: States in each.
        learning_rate: Of AdamW, falling to zero as a cosine.
        clip: Norm of the gradient at most.
    """

    steps: int = 1500
    batch: int = 192
    learning_rate: float = 3e-3
    clip: float = 1.0


class Imitation(Learner):
    """Cross-entropy between the network's distribution and a narrow one around the truth."""

    def __init__(
        self,
        network: BeliefNetwork,
        states: dict[str, Tensor],
        settings: ImitationSettings,
        *,
        generator: Generator,
    ) -> None:
        """Learn from these states, see :func:`states_of`."""
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
        super().__init__(
            modules={"network": network},
            optimizers={"network": optimizer},
            generator=generator,
            total_steps=settings.steps,
            settings=settings,
        )
        self.network, self.states, self.options = network, states, settings

    def train_step(self) -> dict[str, float]:
        """One batch."""
        count = len(self.states["level"])
        rows = torch.randint(count, (self.options.batch,), generator=self.generator)
        batch = {name: values[rows] for name, values in self.states.items()}
        belief = self.network(batch)
        grid = offsets_of(batch["sees"].shape[1] // 2).float()
        apart = (grid[None] - batch["truth"][:, None]).square().sum(dim=2)
        aim = (-apart / (2 * 0.5**2)).softmax(dim=1)
        loss = F.kl_div(belief, aim, reduction="batchmean")
        share = self.step / self.total_steps
        rate = self.options.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
        self.optimize(loss, learning_rate=rate, clip=self.options.clip)
        self.step += 1
        off = (grid[belief.argmax(dim=1)] - batch["truth"]).norm(dim=1)
        return {"loss": float(loss.detach()), "off by steps": float(off.mean())}


def states_of(
    cases: Iterable[Case],
    policies: Iterable[Policy],
    settings: VisitSettings,
    *,
    each: int,
    generator: Generator,
) -> dict[str, Tensor]:
    """States that teams get into, with where the points truly are.

    Args:
        cases: Pairs of training scans.
        policies: What walks in each.
        settings: Of the agents.
        each: States kept of a case.
        generator: Which.

    Returns:
        Observations by name, and ``truth`` (N, 3) in steps from the middle of what is seen; those
        of agents that can see their point.
    """
    parts: list[dict[str, Tensor]] = []
    for case, policy in zip(cases, policies, strict=False):
        dynamics = VisitDynamics([case.pair], view=settings.view)
        aim = torch.from_numpy(case.displacement)
        kept: list[dict[str, Tensor]] = []

        def note(
            transition: Transition[VisitState],
            dynamics: VisitDynamics = dynamics,
            aim: Tensor = aim,
            kept: list[dict[str, Tensor]] = kept,
        ) -> None:
            before = transition.before
            truth = dynamics.to_steps(before, aim[before.agent]).float()
            chosen = torch.rand(len(truth), generator=generator) < 0.15
            chosen &= truth.abs().amax(dim=1) <= dynamics.view.search
            seen = observed(dynamics, before)
            kept.append({**{n: v[chosen] for n, v in seen.items()}, "truth": truth[chosen]})

        state = dynamics.reset(
            torch.zeros(len(aim), dtype=torch.int64),
            torch.from_numpy(case.points_world),
            torch.from_numpy(nearest(case.points_world, settings.neighbours)),
        )
        rollout(dynamics, policy, state, on_step=note)
        whole = {name: torch.cat([part[name] for part in kept]) for name in kept[0]}
        rows = torch.randperm(len(whole["level"]), generator=generator)[:each]
        parts.append({name: values[rows] for name, values in whole.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
