"""Reinforcement learning of whole episodes: recurrent advantage actor-critic.

Sun et al. (MedIA 2021) train a ConvLSTM core with asynchronous advantage actor-critic; here a gated
recurrent unit is trained with its synchronous form, many agents side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Generator, Tensor

from medrl.registration.dynamics import RegistrationState, Rules
from medrl.registration.imitation import error_loss, policy_loss
from medrl.registration.network import RegistrationNetwork
from medrl.registration.pairs import PairSampler
from medrl.registration.task import AlignTask
from medrl.rl.a2c import RecurrentA2C, sample
from medrl.rl.checkpoint import State
from medrl.rl.env import AgentsEnv
from medrl.rl.learner import Learner
from medrl.rl.schedule import one_cycle

#: Parameters that these agents change: shifts and turns.
_RIGID = 6


@dataclass(frozen=True)
class ActorCriticSettings:
    """Reinforcement learning after imitation.

    Attributes:
        steps: Batches.
        agents: Side by side in each.
        horizon: Steps of an episode.
        learning_rate: At its highest.
        gamma: Discount.
        lmbda: Of generalised advantage estimation.
        entropy_weight: Of the entropy bonus.
        critic_weight: Of the critic's loss.
        actor_weight: Of the actor's loss; with 0 the recurrent core learns by imitation alone.
        imitation_weight: Of the expert's steps at the states that are met.
        error_weight: Of the predicted error.
        pairs: Pairs of scans at hand at a time.
        renew: New pairs a batch.
    """

    steps: int = 160
    agents: int = 32
    horizon: int = 6
    learning_rate: float = 3e-4
    gamma: float = 0.95
    lmbda: float = 0.9
    entropy_weight: float = 1e-3
    critic_weight: float = 0.5
    actor_weight: float = 0.1
    imitation_weight: float = 1.0
    error_weight: float = 1.0
    pairs: int = 64
    renew: int = 2


class ActorCriticLearner(Learner):
    """Agents that walk, and the network that learns from what comes of it.

    A step is worth how much it shrinks log(1 + D / mm).
    """

    settings: ActorCriticSettings

    def __init__(
        self,
        network: RegistrationNetwork,
        sampler: PairSampler,
        settings: ActorCriticSettings,
        *,
        generator: Generator,
        device: str | torch.device = "cpu",
        mixed_precision: bool | None = None,
    ) -> None:
        """Learn from reward, starting from a network that imitates.

        Args:
            network: What learns, on the device; it should imitate well already.
            sampler: Where agents begin.
            settings: Steps, batch size, learning rates and discount of the training.
            generator: What the sampler draws from, and the agents.
            device: Torch device.
            mixed_precision: See :class:`medrl.rl.learner.Learner`.
        """
        super().__init__(
            modules={"network": network},
            optimizers={
                "network": torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
            },
            generator=generator,
            total_steps=settings.steps,
            settings=settings,
            device=device,
            mixed_precision=mixed_precision,
        )
        self.network = network
        self._sampler = sampler
        self._loss = RecurrentA2C(
            gamma=settings.gamma,
            lmbda=settings.lmbda,
            entropy_weight=settings.entropy_weight,
            critic_weight=settings.critic_weight,
        )

    def train_step(self) -> dict[str, float]:
        """Walk with every agent, and learn from it; figures by name."""
        s = self.settings
        self._sampler.renew(s.renew)
        env, task = self._sampler.begin(
            s.agents,
            seed=int(torch.randint(2**62, (), generator=self.generator)),
            rules=Rules(action="factored", max_steps=s.horizon),
        )
        # Statistics of the normalisation are those of imitation: walks are too alike.
        self.network.eval()
        episodes = self._walk(env, task)
        going = torch.ones_like(episodes.rewards, dtype=torch.bool)
        losses = self._loss(
            episodes.logits, episodes.values, episodes.actions, episodes.rewards, ~going, going
        )
        loss = (
            s.actor_weight * (losses["loss_objective"] + losses["loss_entropy"])
            + losses["loss_critic"]
            + s.imitation_weight * episodes.imitation
            + s.error_weight * episodes.error
        )
        rate = s.learning_rate * one_cycle(self.step, s.steps, warmup=0.03)
        self.optimize(loss, learning_rate=rate, clip=1.0)
        self.step += 1
        return {
            "return": float(episodes.rewards.sum(dim=1).mean()),
            "critic": float(losses["loss_critic"].detach()),
            "imitation": float(episodes.imitation.detach()),
            "error": float(episodes.error.detach()),
        }

    def extra_state(self) -> State:
        """Which pairs there are."""
        return {"sampler": self._sampler.state_dict()}

    def load_extra_state(self, state: State) -> None:
        """Take up the pairs."""
        self._sampler.load_state_dict(state["sampler"])

    def _walk(self, env: AgentsEnv[RegistrationState], task: AlignTask) -> _Episodes:
        s, spacing = self.settings, self._sampler.level.spacing
        memory = self.network.blank(s.agents)
        windows = env.dynamics.observe(env.state)["windows"]
        logits, values, actions, rewards = [], [], [], []
        imitation, error = memory.new_zeros(()), memory.new_zeros(())
        for _ in range(s.horizon):
            with self.autocast():
                outputs = self.network(windows, memory)
            memory = outputs.memory
            imitation = imitation + policy_loss(outputs, task.left(env.state), spacing)
            error = error + error_loss(outputs, task.distance(env.state))
            logits.append(outputs.logits[:, :_RIGID])
            values.append(outputs.value)
            actions.append(sample(logits[-1], self.generator))
            acted = env.step(TensorDict({"action": actions[-1]}, batch_size=[s.agents]))["next"]
            windows = acted["windows"]
            rewards.append(acted["reward"][:, 0])
        with self.autocast():
            values.append(self.network(windows, memory).value)
        return _Episodes(
            torch.stack(logits, dim=1),
            torch.stack(values, dim=1),
            torch.stack(actions, dim=1),
            torch.stack(rewards, dim=1),
            imitation / s.horizon,
            error / s.horizon,
        )


@dataclass(frozen=True, eq=False)
class _Episodes:
    """What N agents did in T steps; see :class:`medrl.rl.a2c.RecurrentA2C`."""

    logits: Tensor
    values: Tensor
    actions: Tensor
    rewards: Tensor
    imitation: Tensor
    error: Tensor
