"""Imitation of the best next step, which is known because the misalignment was made.

Agents learn on their own walks (DAgger, Ross et al. 2011): where they end up when they are wrong is
where the judge must not be fooled, and no random misalignment looks like that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.registration.network import (
    Decision,
    LevelSettings,
    RegistrationNetwork,
    expected_steps,
    target_distribution,
)
from medrl.registration.pairs import Batch, PairBank
from medrl.rl.checkpoint import State
from medrl.rl.learner import Learner
from medrl.rl.schedule import one_cycle

#: Weight of shift, turn, scale and shear in the loss: most scans differ by a rigid motion.
_WEIGHTS = (1.0, 2.0, 0.2, 0.2)
#: From here on to the next agents hear less and less of the expert: nobody could know, degrees.
_LOST = (70.0, 130.0)
_STOP_WEIGHT = 0.1


@dataclass(frozen=True)
class ImitationSettings:
    """Supervised learning, each window on its own.

    Attributes:
        steps: Batches.
        batch: Situations in each.
        learning_rate: At its highest; rises for the first 3 % and falls to zero as a cosine.
        weight_decay: Of AdamW.
        bank: Pairs of scans at hand at a time.
        renew: New pairs for each new batch of situations.
        walk: A batch of situations is walked through for 1 to so many batches.
        error_weight: Of the predicted error next to the steps.
    """

    steps: int = 3800
    batch: int = 96
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    bank: int = 64
    renew: int = 3
    walk: int = 3
    error_weight: float = 1.0


class ImitationLearner(Learner):
    """One optimizer over everything; the recurrent core gets no gradient."""

    settings: ImitationSettings

    def __init__(
        self,
        network: RegistrationNetwork,
        bank: PairBank,
        settings: ImitationSettings,
        *,
        generator: Generator,
    ) -> None:
        """Wire up.

        Args:
            network: What learns.
            bank: Where situations come from.
            settings: How.
            generator: What the bank draws from; kept in checkpoints.
        """
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=settings.weight_decay)
        super().__init__(
            modules={"network": network},
            optimizers={"network": optimizer},
            generator=generator,
            total_steps=settings.steps,
            settings=settings,
        )
        self.network = network
        self._bank = bank
        self._batch: Batch | None = None
        self._seed = 0
        self._left = 0

    def train_step(self) -> dict[str, float]:
        """Learn from one batch; figures by name."""
        s = self.settings
        batch = self._next()
        self.network.train()
        with self.autocast():
            decision = self.network(batch.windows())
            policy = policy_loss(decision, batch, self.network.settings)
            error = error_loss(decision, batch)
            loss = policy + s.error_weight * error
        # The recurrent core and the value have no part in this.
        rate = s.learning_rate * one_cycle(self.step, s.steps, warmup=0.03)
        self.optimize(loss, learning_rate=rate, clip=2.0)
        self.step += 1
        steps = expected_steps(decision.logits.detach(), self.network.settings.steps)
        self._batch = batch.after(steps)
        return {"steps": float(policy.detach()), "error": float(error.detach())}

    def extra_state(self) -> State:
        """Pairs at hand, and where agents have walked to."""
        batch = self._batch if self._left > 0 else None
        return {
            "bank": self._bank.state_dict(),
            "seed": self._seed,
            "left": self._left,
            "transforms": None if batch is None else batch.transforms,
        }

    def load_extra_state(self, state: State) -> None:
        """Take them back."""
        self._bank.load_state_dict(state["bank"])
        self._seed, self._left = state["seed"], state["left"]
        self._batch = None
        if state["transforms"] is not None:
            batch = self._bank.draw(self.settings.batch, seed=self._seed)
            self._batch = replace(batch, transforms=state["transforms"])

    def _next(self) -> Batch:
        """Situations where the agents have walked to, or new ones."""
        if self._left == 0 or self._batch is None:
            self._left = 1 + int(torch.randint(self.settings.walk, (), generator=self.generator))
            self._bank.renew(self.settings.renew)
            self._seed = int(torch.randint(2**62, (), generator=self.generator))
            self._batch = self._bank.draw(self.settings.batch, seed=self._seed)
        self._left -= 1
        return self._batch


def policy_loss(decision: Decision, batch: Batch, level: LevelSettings) -> Tensor:
    """Cross-entropy with what the expert does: the best steps, and to stop when there.

    Steps count less where the scans are all but reversed: nobody could know.

    Args:
        decision: What the network would do.
        batch: Situations it was decided in.
        level: Gives the sizes of the steps, and how near is there: a quarter of a voxel.
    """
    logits, wanted = decision.logits, batch.wanted()
    target = target_distribution(wanted, level.steps).to(logits.dtype)
    entropy = -(target * logits.log_softmax(dim=-1)).sum(dim=-1)
    known = (_LOST[1] - wanted[:, 3:6].norm(dim=1)) / (_LOST[1] - _LOST[0])
    weights = logits.new_tensor(_WEIGHTS).repeat_interleave(3)
    steps = (entropy * weights).mean(dim=1).mul(known.clamp(0.1, 1).to(logits.dtype)).mean()
    there = (batch.error() < level.spacing / 4).to(logits.dtype)
    return steps + _STOP_WEIGHT * F.binary_cross_entropy_with_logits(decision.stop, there)


def error_loss(decision: Decision, batch: Batch) -> Tensor:
    """How far the predicted errors are from the true ones, on their logarithmic scale."""
    return F.smooth_l1_loss(
        decision.error, batch.error().log1p().to(decision.error.dtype), beta=0.3
    )
