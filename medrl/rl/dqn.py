"""Deep Q-learning around TorchRL's loss, for networks that value every goal at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.objectives import DQNLoss, SoftUpdate, ValueEstimators


class GoalDQN:
    """(Double) DQN on transitions that count for K goals at a time.

    Where an agent went does not depend on what it was looking for, and the reward of any landmark
    is known at any place, so one transition teaches the heads of all K landmarks (hindsight
    relabelling over the whole goal set, Andrychowicz et al. 2017). The loss is TorchRL's
    ``DQNLoss``: ``r + gamma Q'(s', argmax Q(s'))`` (van Hasselt et al. 2016, eq. 4) with a slowly
    following target network.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        values: Callable[[Any], Tensor],
        gamma: float,
        double: bool = True,
        target_rate: float = 0.01,
    ) -> None:
        """Wrap a network.

        Args:
            network: The module whose parameters are trained.
            values: Takes the action values (N, K, A) out of what the network returns.
            gamma: Discount.
            double: Choose the next action by the online network.
            target_rate: Share of the online weights mixed into the target network a step.
        """
        actor = TensorDictSequential(
            TensorDictModule(
                _Values(network, values), in_keys=["window"], out_keys=["action_value"]
            ),
            TensorDictModule(
                _greedy, in_keys=["action_value"], out_keys=["action", "chosen_action_value"]
            ),
        )
        self.loss = DQNLoss(
            actor,
            loss_function="smooth_l1",
            double_dqn=double,
            delay_value=True,
            action_space="categorical",
            reduction="none",
        )
        self.loss.make_value_estimator(ValueEstimators.TD0, gamma=gamma)
        self._target = SoftUpdate(self.loss, tau=target_rate)

    def __call__(self, window: Tensor, action: Tensor, reward: Tensor, after: Tensor) -> Tensor:
        """Temporal-difference loss.

        Episodes end because an agent goes round in circles, not because the task is done, so the
        value of the next state always counts.

        Args:
            window: (N, 1, s, s, s), what agents saw.
            action: (N,) int64, what they did.
            reward: (N, K), what it was worth for each landmark.
            after: (N, 1, s, s, s), what they saw then.

        Returns:
            (N, K).
        """
        count, goals = reward.shape
        done = torch.zeros((count, goals, 1), dtype=torch.bool, device=reward.device)
        following = {"window": after, "reward": reward[..., None], "done": done, "terminated": done}
        transitions = TensorDict(
            {
                "window": window,
                "action": action[:, None].expand(count, goals),
                "next": TensorDict(following, batch_size=[count]),
            },
            batch_size=[count],
        )
        loss: Tensor = self.loss(transitions)["loss"]
        return loss

    def update_target(self) -> None:
        """Let the target network follow by one step."""
        self._target.step()


class _Values(nn.Module):
    """The action values of a network that says more than that."""

    def __init__(self, network: nn.Module, values: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.network = network
        self._values = values

    def forward(self, window: Tensor) -> Tensor:
        """Action values (N, K, A)."""
        return self._values(self.network(window))


def _greedy(values: Tensor) -> tuple[Tensor, Tensor]:
    best, action = values.max(dim=-1, keepdim=True)
    return action[..., 0], best
