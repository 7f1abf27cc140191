"""Advantage actor-critic on episodes that a recurrent network has been unrolled over."""

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
    """TorchRL's A2C loss on outputs that are there already.

    A recurrent network is unrolled by whoever runs the episodes; this takes its outputs on the
    way, with their graph, and the rewards.
    """

    def __init__(
        self, *, gamma: float, lmbda: float, entropy_weight: float, critic_weight: float
    ) -> None:
        """Set the weights of the loss.

        Args:
            gamma: Discount.
            lmbda: Of generalised advantage estimation (Schulman et al. 2016).
            entropy_weight: Of the entropy bonus.
            critic_weight: Of the critic's loss.
        """
        self.gamma = gamma
        self.lmbda = lmbda
        # A2CLoss wants networks to ask; theirs are asked already, so these pass the answers on.
        actor = ProbabilisticActor(
            TensorDictModule(nn.Identity(), in_keys=["policy_logits"], out_keys=["logits"]),
            in_keys=["logits"],
            distribution_class=FactoredCategorical,
            return_log_prob=True,
        )
        critic = TensorDictModule(nn.Identity(), in_keys=["value"], out_keys=["state_value"])
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
        terminated: Tensor,
        mask: Tensor,
    ) -> dict[str, Tensor]:
        """Losses of N episodes of up to T steps.

        Args:
            logits: (N, T, P, A) of P choices among A, with graph.
            values: (N, T + 1) expected sums of rewards to come, with graph; the last is of the
                state after the last step.
            actions: (N, T, P) int64, what was chosen.
            rewards: (N, T).
            terminated: (N, T) bool, the episode ended with this step; an episode that goes on
                beyond T is worth its last value.
            mask: (N, T) bool, steps that count: those until the end of the episode.

        Returns:
            ``loss_objective``, ``loss_critic``, ``loss_entropy``.
        """
        fixed = values.detach()
        advantage, target = generalized_advantage_estimate(
            self.gamma,
            self.lmbda,
            fixed[:, :-1, None],
            fixed[:, 1:, None],
            rewards[..., None],
            terminated[..., None],
        )
        advantage = advantage[mask]
        data = TensorDict(
            {
                "policy_logits": logits[mask],
                "value": values[:, :-1][mask][:, None],
                "action": actions[mask],
                "advantage": (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-6),
                "value_target": target[mask],
            },
            batch_size=[int(mask.sum())],
        )
        losses: Any = self._loss(data)
        # TorchRL leaves out an entropy bonus of no weight.
        nothing = torch.zeros((), device=logits.device)
        return {
            key: losses.get(key, nothing)
            for key in ("loss_objective", "loss_critic", "loss_entropy")
        }


def sample(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw choices (..., P) from logits (..., P, A); the generator is the CPU's."""
    flat = logits.detach().float().softmax(dim=-1).flatten(0, -2).cpu()
    drawn = torch.multinomial(flat, 1, generator=generator)
    return drawn.view(logits.shape[:-1]).to(logits.device)
