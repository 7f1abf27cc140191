"""Deep Q-learning around TorchRL's loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        self.loss = _q_loss(_Values(network, values), ["window"], gamma=gamma, double=double)
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


class ActionDQN:
    """(Double) DQN on transitions whose state has several parts; the loss is TorchRL's."""

    def __init__(
        self,
        network: nn.Module,
        *,
        inputs: Sequence[str],
        gamma: float,
        double: bool = True,
        target_rate: float = 0.01,
    ) -> None:
        """Wrap a network.

        Args:
            network: Takes the parts of N states in order, returns action values (N, A).
            inputs: Names of the parts in a transition.
            gamma: Discount between a state and the one after it.
            double: Choose the next action by the online network.
            target_rate: Share of the online weights mixed into the target network a step.
        """
        self.loss = _q_loss(network, inputs, gamma=gamma, double=double)
        self._target = SoftUpdate(self.loss, tau=target_rate)

    def __call__(self, transitions: TensorDict) -> Tensor:
        """Temporal-difference loss (N,).

        Args:
            transitions: N of them: the parts of the state, ``action`` (N,) int64, and under
                ``next`` the parts of the state after, ``reward``, ``done`` and ``terminated``
                (N, 1).
        """
        loss: Tensor = self.loss(transitions)["loss"]
        return loss

    def update_target(self) -> None:
        """Let the target network follow by one step."""
        self._target.step()


def _q_loss(network: nn.Module, inputs: Sequence[str], *, gamma: float, double: bool) -> DQNLoss:
    """TorchRL's loss around a network that returns action values."""
    values = TensorDictModule(network, in_keys=list(inputs), out_keys=["action_value"])
    greedy = TensorDictModule(
        _greedy, in_keys=["action_value"], out_keys=["action", "chosen_action_value"]
    )
    loss = DQNLoss(
        TensorDictSequential(values, greedy),
        loss_function="smooth_l1",
        double_dqn=double,
        delay_value=True,
        action_space="categorical",
        reduction="none",
    )
    loss.make_value_estimator(ValueEstimators.TD0, gamma=gamma)
    return loss


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
