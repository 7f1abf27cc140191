"""How tracking agents learn: the right decisions first, then what decisions lead to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from medrl.agents.policy import Decision
from medrl.agents.rollout import advance
from medrl.rl.checkpoint import State
from medrl.rl.dqn import DQN
from medrl.rl.learner import Learner
from medrl.rl.replay import Replay
from medrl.rl.schedule import one_cycle
from medrl.tracking.objects.dynamics import TrackDynamics, TrackState
from medrl.tracking.objects.model import ModelSettings
from medrl.tracking.objects.network import TrackNetwork
from medrl.tracking.objects.policy import Together
from medrl.tracking.objects.scene import Scene
from medrl.tracking.objects.simulated import (
    Film,
    Flaws,
    detected,
    drawn_world,
    faster,
    flipped,
    simulate,
)
from medrl.tracking.objects.task import Rewards, TrackTask, Truth

INPUTS = ("own", "pairs", "rivals")


@dataclass(frozen=True)
class LearnerSettings:
    """How the network is trained.

    Attributes:
        rewards: What actions are worth.
        films: Films walked through in a step, side by side.
        pool: Films at hand, one of which is replaced in every step.
        real: Share of the films that are not simulated.
        updates: Batches in a step.
        batch: Agents in a batch.
        replay: Agents and frames remembered.
        learning_rate: Peak of the one-cycle schedule.
        gamma: Discount of a frame.
        guided: Share of the steps in which agents do what is right.
        epsilon: Share of agents with random values.
        imitation: Weight of the cross-entropy next to the temporal-difference loss (deep Q-learning
            from demonstrations, Hester et al. 2018).
        missed: Largest share of missed detections.
        false: Largest share of false ones.
        blind: Share of the films without images.
    """

    rewards: Rewards = field(default_factory=Rewards)
    films: int = 6
    pool: int = 24
    real: float = 0.3
    updates: int = 40
    batch: int = 256
    replay: int = 60_000
    learning_rate: float = 2e-3
    gamma: float = 0.8
    guided: float = 0.3
    epsilon: float = 0.02
    imitation: float = 0.3
    missed: float = 0.3
    false: float = 0.1
    blind: float = 0.15


class TrackLearner(Learner):
    """Owns the network, and the films that agents walk through."""

    settings: LearnerSettings

    def __init__(
        self,
        films: Sequence[Film],
        *,
        model: ModelSettings,
        settings: LearnerSettings,
        steps: int,
        seed: int,
        network: TrackNetwork | None = None,
        q_learning: bool = False,
    ) -> None:
        """Build the network, or go on with one.

        Args:
            films: Real films with the truth about them; there may be none.
            model: What is trained.
            settings: How to train.
            steps: Rounds through films.
            seed: Fixes every random choice.
            network: What an earlier stage has trained.
            q_learning: Learn values by temporal differences; else what is right alone.
        """
        torch.manual_seed(seed)
        self.network = network or model.build_network()
        super().__init__(
            modules={"network": self.network},
            optimizers={"network": torch.optim.AdamW(self.network.parameters(), weight_decay=1e-4)},
            generator=Generator().manual_seed(seed),
            total_steps=steps,
            settings=settings,
            mixed_precision=False,
        )
        self.view, self.q_learning = model.view, q_learning
        self._films = list(films)
        self._pool: list[Film] = []
        self._seeds: list[int] = []
        self.replay = Replay(settings.replay, generator=self.generator)
        self.dqn = (
            DQN(self.network, inputs=INPUTS, gamma=settings.gamma, masked=True)
            if q_learning
            else None
        )

    def extra_state(self) -> State:
        """What is remembered, the target network, and the films by their seeds."""
        target = {} if self.dqn is None else self.dqn.state_dict()
        return {"replay": self.replay.state_dict(), "target": target, "films": self._seeds}

    def load_extra_state(self, state: State) -> None:
        """Take it back."""
        self.replay.load_state_dict(state["replay"])
        if self.dqn is not None:
            self.dqn.load_state_dict(state["target"])
        self._seeds = list(state["films"])
        self._pool = [simulate(drawn_world(seed), seed) for seed in self._seeds]

    def train_step(self) -> dict[str, float]:
        """Walk through some films, then learn from what is remembered."""
        s = self.settings
        figures = self._collect()
        for _ in range(s.updates):
            drawn = self.replay.sample(s.batch)
            state = {name: drawn[name] for name in (*INPUTS, "allowed")}
            values = self.network(*(state[name] for name in INPUTS))
            values = values.masked_fill(~state["allowed"], -1e4)
            imitation = F.cross_entropy(values, drawn["right"])
            loss = imitation
            figures["imitation"] = float(imitation.detach())
            figures["right"] = float((values.argmax(dim=1) == drawn["right"]).float().mean())
            if self.dqn is not None:
                after = {name: drawn[f"next_{name}"] for name in (*INPUTS, "allowed")}
                error = self.dqn(
                    state, drawn["action"], drawn["reward"], after, drawn["terminated"]
                ).mean()
                figures["difference"] = float(error.detach())
                loss = error + s.imitation * imitation
            rate = s.learning_rate * one_cycle(self.step, self.total_steps)
            self.optimize(loss, learning_rate=rate, clip=5.0)
            if self.dqn is not None:
                self.dqn.update_target()
        self.step += 1
        return figures

    def _number(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self.generator))

    def _chance(self) -> float:
        return float(torch.rand(1, generator=self.generator))

    def _refresh(self) -> None:
        """One new film, or all of them at the start."""
        missing = self.settings.pool - len(self._pool)
        for _ in range(max(1, missing)):
            seed = self._number(2**31)
            film = simulate(drawn_world(seed), seed)
            if missing > 0:
                self._pool.append(film)
                self._seeds.append(seed)
            else:
                place = self._number(len(self._pool))
                self._pool[place], self._seeds[place] = film, seed

    def _draw(self, deep: bool) -> Film:
        """A film, flat or not, perhaps with fewer frames, and mirrored."""
        s = self.settings
        if self._films and not deep and self._chance() < s.real:
            film = self._films[self._number(len(self._films))]
            film = faster(film, 1 + self._number(4))
            return flipped(film, self._number(4))
        alike = [film for film in self._pool if (film.shape[3] > 1) == deep] or self._pool
        film = alike[self._number(len(alike))]
        return faster(film, 2) if self._chance() < 0.2 else film

    def scenes(self) -> tuple[TrackDynamics, TrackTask]:
        """Films drawn at random, with what a detector finds in them, and the truth."""
        s, scenes, truths = self.settings, [], []
        deep = self._chance() < 0.4
        blind = self._chance() < s.blind
        for _ in range(s.films):
            film = self._draw(deep)
            flaws = Flaws(
                missed=s.missed * self._chance(),
                jitter=0.12 * self._chance(),
                false=s.false * self._chance() if self._chance() < 0.5 else 0.0,
                doubt=0.6 * self._chance() if self._chance() < 0.5 else 0.0,
            )
            found = detected(film.truth, flaws, self._number(2**31), film.shape)
            if not len(found):
                continue
            frames = None if blind else film.frames
            scenes.append(
                Scene.of(found, frames=frames, spacing=film.spacing, length=film.shape[0])
            )
            truths.append(Truth(found.track, film.parent))
        divides = self._chance() < 0.7 or any(truth.parent for truth in truths)
        dynamics = TrackDynamics(scenes, view=replace(self.view, divides=divides))
        return dynamics, TrackTask(dynamics, truths, rewards=s.rewards)

    def fresh_scenes(self) -> tuple[TrackDynamics, TrackTask]:
        """As :meth:`scenes`, after a film at hand was replaced."""
        self._refresh()
        return self.scenes()

    def _collect(self) -> dict[str, float]:
        """Walk, and remember every decision together with the next one of the same agent."""
        dynamics, task = self.fresh_scenes()
        guided = self._chance() < self.settings.guided
        policy = Together(self._values, epsilon=self.settings.epsilon, generator=self.generator)
        state: TrackState | None = None
        waiting: dict[str, Tensor] | None = None
        returns, agents = 0.0, 0
        for frame in range(int(dynamics.length.max())):
            state = dynamics.arrivals(state, frame)
            if not len(state):
                waiting = None
                continue
            right = task.expert(state)
            decision = Decision(right) if guided else policy(dynamics, state)
            fields = {**dynamics.observe(state), "allowed": dynamics.allowed(state)}
            if waiting is not None:
                self._remember(waiting, fields, decision.action)
            after, reward = advance(dynamics, task, state, decision.action, {})
            assert reward is not None
            waiting = {
                **fields,
                "right": right,
                "action": decision.action,
                "reward": reward,
                "goes_on": after.active,
            }
            returns, agents = returns + float(reward.sum()), agents + int((~state.birth).sum())
            state = after
        if waiting is not None:
            self._remember(waiting, None, None)
        return {} if guided else {"reward": returns / max(1, agents)}

    def _values(self, seen: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            values: Tensor = self.network(*(seen[name] for name in INPUTS))
        return values

    def _remember(
        self,
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor] | None,
        action: Tensor | None,
    ) -> None:
        """Decisions of a frame; those that go on are the first rows of the next.

        What agents will do next is settled by the assignment, not by each alone: that action is the
        only one whose value counts for what comes next.
        """
        rows = {name: field for name, field in before.items() if name != "goes_on"}
        goes_on = before["goes_on"] if after is not None else torch.zeros_like(before["goes_on"])
        rows["terminated"] = ~goes_on
        if self.dqn is not None:
            count = int(goes_on.sum())
            for name in (*INPUTS, "allowed"):
                blank = torch.zeros_like(before[name])
                if name == "allowed":
                    blank[:, -1] = True
                if after is not None and action is not None and count:
                    following = after[name][:count]
                    if name == "allowed":
                        following = F.one_hot(action[:count], following.shape[1]).bool()
                    blank[goes_on] = following
                rows[f"next_{name}"] = blank
        self.replay.extend(rows)


def confidence_of(margins: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Slope and offset of a logistic regression of being right on the margin (Platt 1999).

    Args:
        margins: (N,), at least 0.
        right: (N,) bool.
    """
    x, y = torch.from_numpy(margins).double(), torch.from_numpy(right).double()
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(weights[0] * x + weights[1], y)
        value = value + 1e-6 * (weights**2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return float(weights[0].detach()), float(weights[1].detach())
