"""Reinforcement learning of whole walks: recurrent advantage actor-critic.

Sun et al. (MedIA 2021) train a ConvLSTM core with asynchronous advantage actor-critic; here a gated
recurrent unit is trained with its synchronous form, many agents side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.registration.imitation import error_loss, policy_loss
from medrl.registration.network import ACTIONS, Decision, RegistrationNetwork
from medrl.registration.pairs import PairBank
from medrl.registration.rewards import RewardSettings, step_rewards
from medrl.rl.a2c import RecurrentA2C, sample
from medrl.rl.checkpoint import State
from medrl.rl.learner import Learner
from medrl.rl.schedule import one_cycle

#: Parameters that these agents change: shifts and turns.
_RIGID = 6
#: Logit of choices that are not there.
_NEVER = -30.0


@dataclass(frozen=True)
class ActorCriticSettings:
    """Reinforcement learning after imitation.

    Attributes:
        steps: Batches.
        agents: Side by side in each.
        horizon: Steps of a walk; shorter ones end where the agent stops.
        learning_rate: At its highest.
        gamma: Discount.
        lmbda: Of generalised advantage estimation.
        entropy_weight: Of the entropy bonus.
        critic_weight: Of the critic's loss.
        actor_weight: Of the actor's loss; with 0 the recurrent core learns by imitation alone.
        imitation_weight: Of the expert's steps at the states that are met.
        error_weight: Of the predicted error.
        bank: Pairs of scans at hand at a time.
        renew: New pairs a batch.
        reward: What a step is worth.
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
    bank: int = 64
    renew: int = 2
    reward: RewardSettings = field(default_factory=RewardSettings)


class ActorCriticLearner(Learner):
    """Agents that walk, and the network that learns from what comes of it."""

    settings: ActorCriticSettings

    def __init__(
        self,
        network: RegistrationNetwork,
        bank: PairBank,
        settings: ActorCriticSettings,
        *,
        generator: Generator,
    ) -> None:
        """Wire up.

        Args:
            network: What learns; it should imitate well already.
            bank: Where walks begin.
            settings: How.
            generator: What the bank draws from, and the agents.
        """
        super().__init__(
            modules={"network": network},
            optimizers={"network": torch.optim.AdamW(network.parameters())},
            generator=generator,
            total_steps=settings.steps,
            settings=settings,
        )
        self.network = network
        self._bank = bank
        self._loss = RecurrentA2C(
            gamma=settings.gamma,
            lmbda=settings.lmbda,
            entropy_weight=settings.entropy_weight,
            critic_weight=settings.critic_weight,
        )

    def train_step(self) -> dict[str, float]:
        """Walk with every agent, and learn from it; figures by name."""
        s = self.settings
        self._bank.renew(s.renew)
        # Statistics of the normalisation are those of imitation: walks are too alike.
        self.network.eval()
        with self.autocast():
            walk = self._walk()
            losses = self._loss(
                walk.logits, walk.values, walk.actions, walk.rewards, walk.done, ~walk.ended
            )
            actor = losses["loss_objective"] + losses["loss_entropy"]
            loss = (
                s.actor_weight * actor
                + losses["loss_critic"]
                + s.imitation_weight * walk.imitation
                + s.error_weight * walk.error
            )
        rate = s.learning_rate * one_cycle(self.step, s.steps, warmup=0.03)
        self.optimize(loss, learning_rate=rate, clip=1.0)
        self.step += 1
        return {
            "return": float(walk.rewards.sum(dim=1).mean()),
            "critic": float(losses["loss_critic"].detach()),
            "imitation": float(walk.imitation.detach()),
            "error": float(walk.error.detach()),
        }

    def extra_state(self) -> State:
        """Pairs at hand."""
        return {"bank": self._bank.state_dict()}

    def load_extra_state(self, state: State) -> None:
        """Take them back."""
        self._bank.load_state_dict(state["bank"])

    def _walk(self) -> _Walk:
        s = self.settings
        steps = self.network.settings.steps
        batch = self._bank.draw(s.agents)
        memory = self.network.blank(s.agents)
        stopped = torch.zeros(s.agents, dtype=torch.bool)
        told: dict[str, list[Tensor]] = {
            key: [] for key in ("logits", "values", "actions", "rewards", "done", "ended")
        }
        imitation, error = torch.zeros(()), torch.zeros(())
        for _ in range(s.horizon):
            decision = self.network(batch.windows(), memory)
            memory = decision.memory
            imitation = imitation + policy_loss(decision, batch, self.network.settings)
            error = error + error_loss(decision, batch)
            logits = choices(decision)
            action = sample(logits, self.generator)
            stops = action[:, -1] == 1
            ending = stops & ~stopped
            move = torch.zeros((s.agents, 12), dtype=torch.float64)
            move[:, :_RIGID] = steps[action[:, :_RIGID]]
            before = batch.error()
            batch = batch.after(move * ~(stopped | stops)[:, None])
            reward = step_rewards(before, batch.error(), ending, s.reward).float()
            for key, value in (
                ("logits", logits),
                ("values", decision.value),
                ("actions", action),
                ("rewards", reward * ~stopped),
                ("done", ending),
                ("ended", stopped),
            ):
                told[key].append(value)
            stopped = stopped | stops
        last = self.network(batch.windows(), memory)
        told["values"].append(last.value)
        seen = {key: torch.stack(values, dim=1) for key, values in told.items()}
        return _Walk(**seen, imitation=imitation / s.horizon, error=error / s.horizon)


@dataclass(frozen=True, eq=False)
class _Walk:
    """What N agents did in T steps; see :class:`medrl.rl.a2c.RecurrentA2C`."""

    logits: Tensor
    values: Tensor
    actions: Tensor
    rewards: Tensor
    done: Tensor
    ended: Tensor
    imitation: Tensor
    error: Tensor


def choices(decision: Decision) -> Tensor:
    """Logits (N, 7, 9) of six steps, and of going on (0) or stopping (1)."""
    stop = F.pad(decision.stop[:, None], (1, ACTIONS - 2))
    stop[:, 2:] = _NEVER
    return torch.cat([decision.logits[:, :_RIGID], stop[:, None]], dim=1)
