"""Advantage actor-critic on walks that a recurrent network has been unrolled over."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.distributions import Categorical, Independent
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import A2CLoss
from torchrl.objectives.value.functional import generalized_advantage_estimate


class FactoredCategorical(Independent[Categorical]):
    """Several independent choices at a time, from logits (..., P, A); samples are (..., P)."""

    def __init__(self, logits: Tensor) -> None:
        """From the logits of each choice."""
        super().__init__(Categorical(logits=logits), 1)


class RecurrentA2C:
    """TorchRL's A2C loss for outputs that are there already.

    A recurrent network is unrolled by whoever walks; this takes what it said on the way, with its
    graph, and what came of it.
    """

    def __init__(
        self, *, gamma: float, lmbda: float, entropy_weight: float, critic_weight: float
    ) -> None:
        """Set up.

        Args:
            gamma: Discount.
            lmbda: Of generalised advantage estimation (Schulman et al. 2016).
            entropy_weight: Of the entropy bonus.
            critic_weight: Of the critic's loss.
        """
        self.gamma = gamma
        self.lmbda = lmbda
        actor = ProbabilisticActor(
            TensorDictModule(_Said(), in_keys=["said_logits"], out_keys=["logits"]),
            in_keys=["logits"],
            distribution_class=FactoredCategorical,
            return_log_prob=True,
        )
        critic = TensorDictModule(_Said(), in_keys=["said_value"], out_keys=["state_value"])
        self._loss = A2CLoss(
            actor,
            critic,
            entropy_coeff=entropy_weight,
            critic_coeff=critic_weight,
            functional=False,
        )

    def __call__(
        self,
        logits: Tensor,
        values: Tensor,
        actions: Tensor,
        rewards: Tensor,
        done: Tensor,
        ended: Tensor,
    ) -> dict[str, Tensor]:
        """Losses of N walks of T steps.

        Args:
            logits: (N, T, P, A) preferences, with graph.
            values: (N, T + 1) expected sums of rewards to come, with graph; the last is of the
                place where the walk was left.
            actions: (N, T, P) what was done.
            rewards: (N, T).
            done: (N, T) bool, the agent stopped with this step.
            ended: (N, T) bool, the agent had stopped before this step; such steps do not count.

        Returns:
            ``loss_objective``, ``loss_critic``, ``loss_entropy``.
        """
        settled = values.detach()
        advantage, target = generalized_advantage_estimate(
            self.gamma,
            self.lmbda,
            settled[:, :-1, None],
            settled[:, 1:, None],
            rewards[..., None],
            done[..., None],
        )
        counts = ~ended
        advantage = advantage[counts]
        data = TensorDict(
            {
                "said_logits": logits[counts],
                "said_value": values[:, :-1][counts][:, None],
                "action": actions[counts],
                "advantage": (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-6),
                "value_target": target[counts],
            },
            batch_size=[int(counts.sum())],
        )
        losses: Any = self._loss(data)
        # TorchRL leaves out an entropy bonus of no weight.
        nothing = torch.zeros(())
        return {
            key: losses.get(key, nothing)
            for key in ("loss_objective", "loss_critic", "loss_entropy")
        }


class _Said(nn.Module):
    """Passes on what a network has said."""

    def forward(self, said: Tensor) -> Tensor:
        return said


def sample(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw choices (..., P) from logits (..., P, A)."""
    flat = logits.detach().softmax(dim=-1).flatten(0, -2)
    drawn = torch.multinomial(flat, 1, generator=generator)
    return drawn.view(logits.shape[:-1])
