"""Imitation of the best next step, which is known because the misalignment was made.

Agents learn on their own walks (DAgger, Ross et al. 2011): where they end up when they are wrong is
where the judge must not be fooled, and no random misalignment looks like that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


class ImitationLearner:
    """One optimizer over everything but the recurrent core."""

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
        self.network = network
        self.settings = settings
        self.generator = generator
        self.step = 0
        self._bank = bank
        self._batch: Batch | None = None
        self._left = 0
        self._parameters = list(network.parameters())
        self.optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    @property
    def total_steps(self) -> int:
        """Batches in all."""
        return self.settings.steps

    def train_step(self) -> dict[str, float]:
        """Learn from one batch; figures by name."""
        s = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * schedule(self.step, s.steps)
        batch = self._next()
        self.network.train()
        decision = self.network(batch.windows())
        policy = policy_loss(decision, batch, self.network.settings)
        error = error_loss(decision, batch)
        loss = policy + s.error_weight * error
        self.optimizer.zero_grad(set_to_none=True)
        # The recurrent core, the value and the stop have no part in this.
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 2.0)
        self.optimizer.step()
        self.step += 1
        steps = expected_steps(decision.logits.detach(), self.network.settings.steps)
        self._batch = batch.after(steps)
        return {"steps": float(policy.detach()), "error": float(error.detach())}

    def _next(self) -> Batch:
        """Situations where the agents have walked to, or new ones."""
        if self._left == 0 or self._batch is None:
            self._left = 1 + int(torch.randint(self.settings.walk, (), generator=self.generator))
            self._bank.renew(self.settings.renew)
            self._batch = self._bank.draw(self.settings.batch)
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


def schedule(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then a cosine to zero."""
    rise = 0.03 * steps
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))
