"""Imitation of the best next step, which is known because the misalignment was made.

Agents learn on their own walks (DAgger, Ross et al. 2011): where they end up when they are wrong is
where a score must not be fooled, and no random misalignment looks like that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.registration.dynamics import RegistrationState, Rules, step_sizes
from medrl.registration.network import (
    Outputs,
    RegistrationNetwork,
    expected_steps,
    target_distribution,
)
from medrl.registration.pairs import PairSampler
from medrl.registration.task import AlignTask
from medrl.rl.checkpoint import State
from medrl.rl.env import AgentsEnv
from medrl.rl.learner import Learner
from medrl.rl.schedule import one_cycle

#: Weight of shift, turn, scale and shear in the loss: most scans differ by a rigid motion.
_WEIGHTS = (1.0, 2.0, 0.2, 0.2)
#: From here on to the next agents hear less and less of the expert: nobody could know, degrees.
_LOST = (70.0, 130.0)


@dataclass(frozen=True)
class ImitationSettings:
    """Supervised learning, each window on its own.

    Attributes:
        steps: Batches.
        batch: Agents in each.
        learning_rate: At its highest; rises for the first 3 % and falls to zero as a cosine.
        weight_decay: Of AdamW.
        pairs: Pairs of scans at hand at a time.
        renew: New pairs for each new episode.
        walk: Batches of an episode: 1 to so many.
        error_weight: Of the predicted error next to the steps.
    """

    steps: int = 3800
    batch: int = 96
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    pairs: int = 64
    renew: int = 3
    walk: int = 3
    error_weight: float = 1.0


class ImitationLearner(Learner):
    """One optimizer over everything but the recurrent core and the value."""

    settings: ImitationSettings

    def __init__(
        self,
        network: RegistrationNetwork,
        sampler: PairSampler,
        settings: ImitationSettings,
        *,
        generator: Generator,
        device: str | torch.device = "cpu",
        mixed_precision: bool | None = None,
    ) -> None:
        """Learn by copying the expert's steps.

        Args:
            network: What learns, on the device.
            sampler: Where agents begin.
            settings: Steps, batch size, learning rate and decay of the training.
            generator: What the sampler draws from, too.
            device: Torch device.
            mixed_precision: See :class:`medrl.rl.learner.Learner`.
        """
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        super().__init__(
            modules={"network": network},
            optimizers={"network": optimizer},
            generator=generator,
            total_steps=settings.steps,
            settings=settings,
            device=device,
            mixed_precision=mixed_precision,
        )
        self.network = network
        self._sampler = sampler
        self._episode: _Episode | None = None

    def train_step(self) -> dict[str, float]:
        """Learn from one batch, and go on where the network leads; figures by name."""
        s = self.settings
        episode = self._episode or self._begin()
        state = episode.env.state
        self.network.train()
        with self.autocast():
            outputs = self.network(episode.windows)
        spacing = self._sampler.level.spacing
        policy = policy_loss(outputs, episode.task.left(state), spacing)
        error = error_loss(outputs, episode.task.distance(state))
        # The recurrent core and the value have no part in this.
        self.optimize(
            policy + s.error_weight * error,
            learning_rate=s.learning_rate * one_cycle(self.step, s.steps, warmup=0.03),
            clip=2.0,
        )
        self.step += 1
        episode.left -= 1
        self._episode = episode if episode.left else None
        if episode.left:
            sizes = step_sizes(spacing).to(outputs.logits.device)
            steps = expected_steps(outputs.logits.detach(), sizes)
            acted = episode.env.step(TensorDict({"action": steps}, batch_size=[s.batch]))
            episode.windows = acted["next", "windows"]
        return {"steps": float(policy.detach()), "error": float(error.detach())}

    def extra_state(self) -> State:
        """Which pairs there are, and where the agents are."""
        state: State = {"sampler": self._sampler.state_dict()}
        if self._episode is not None:
            episode = self._episode
            agents = episode.env.state.state_dict()
            state["episode"] = {"seed": episode.seed, "left": episode.left, "agents": agents}
        return state

    def load_extra_state(self, state: State) -> None:
        """Take up pairs and agents."""
        self._sampler.load_state_dict(state["sampler"])
        self._episode = None
        if "episode" in state:
            kept = state["episode"]
            agents = RegistrationState.from_state_dict(kept["agents"])
            self._episode = self._enter(kept["seed"], kept["left"], agents)

    def _begin(self) -> _Episode:
        left = 1 + int(torch.randint(self.settings.walk, (), generator=self.generator))
        self._sampler.renew(self.settings.renew)
        return self._enter(int(torch.randint(2**62, (), generator=self.generator)), left)

    def _enter(self, seed: int, left: int, state: RegistrationState | None = None) -> _Episode:
        rules = Rules(kind="affine", max_steps=self.settings.walk)
        env, task = self._sampler.begin(self.settings.batch, seed=seed, rules=rules, state=state)
        return _Episode(env, task, seed, left, env.dynamics.observe(env.state)["windows"])


@dataclass
class _Episode:
    """Agents that learn where they go: what they see now, and for how many batches yet."""

    env: AgentsEnv[RegistrationState]
    task: AlignTask
    seed: int
    left: int
    windows: Tensor


def policy_loss(outputs: Outputs, wanted: Tensor, spacing: float) -> Tensor:
    """Cross-entropy with the best steps, which an expert would take.

    Steps count less where the scans are all but reversed: nobody could know.

    Args:
        outputs: What the network would do.
        wanted: (N, 12) what is left to be done, in mm, degrees and per cent.
        spacing: Voxel size of the level, mm.
    """
    logits = outputs.logits
    target = target_distribution(wanted, step_sizes(spacing).to(wanted)).to(logits.dtype)
    entropy = -(target * logits.log_softmax(dim=-1)).sum(dim=-1)
    known = (_LOST[1] - wanted[:, 3:6].norm(dim=1)) / (_LOST[1] - _LOST[0])
    weights = logits.new_tensor(_WEIGHTS).repeat_interleave(3)
    return (entropy * weights).mean(dim=1).mul(known.clamp(0.1, 1).to(logits.dtype)).mean()


def error_loss(outputs: Outputs, distance: Tensor) -> Tensor:
    """How far the predicted errors are from the true ones (N,) in mm, on a logarithmic scale."""
    return F.smooth_l1_loss(outputs.error, distance.log1p().to(outputs.error.dtype), beta=0.3)
