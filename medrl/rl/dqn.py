"""Deep Q-learning around TorchRL's loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.objectives import DQNLoss, SoftUpdate, ValueEstimators

#: Value of actions that are not allowed.
MASKED = -1e4


class DQN:
    """(Double) DQN for one goal or K goals at a time, with returns of one or several steps.

    The loss is TorchRL's ``DQNLoss``: smooth L1 between ``Q(s, a)`` and
    ``r + gamma^n Q'(s', argmax Q(s'))`` (van Hasselt et al. 2016, eq. 4) with a slowly following
    target network Q'. Where an agent went does not depend on what it was looking for, and the
    reward for any goal is known at any place, so one transition can teach the values of all K
    goals (hindsight relabelling over the whole goal set, Andrychowicz et al. 2017).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        inputs: Sequence[str],
        gamma: float,
        values: Callable[[Any], Tensor] = lambda values: values,
        masked: bool = False,
        double: bool = True,
        target_rate: float = 0.01,
    ) -> None:
        """Wrap a network, which stays whoever's it is; the target network begins as its copy.

        Args:
            network: Its parameters are trained. Whether it is dueling is its own affair.
            inputs: Names of the fields of a state that it takes, in order.
            gamma: Discount of one step.
            values: Takes the action values, (N, A) or (N, K, A), out of what the network returns.
            masked: States have a field ``allowed`` (N, A) bool; other actions are not chosen.
            double: Choose the next action by the online network, not by the target network.
            target_rate: Share of the online weights mixed into the target network a step.
        """
        self._inputs = (*inputs, "allowed") if masked else tuple(inputs)
        action_values = TensorDictModule(
            _ActionValues(network, values, masked=masked),
            in_keys=list(self._inputs),
            out_keys=["action_value"],
        )
        greedy = TensorDictModule(
            _greedy, in_keys=["action_value"], out_keys=["action", "chosen_action_value"]
        )
        self._loss = DQNLoss(
            TensorDictSequential(action_values, greedy),
            loss_function="smooth_l1",
            double_dqn=double,
            delay_value=True,
            action_space="categorical",
            reduction="none",
        )
        self._loss.make_value_estimator(ValueEstimators.TD0, gamma=gamma)
        self._follow = SoftUpdate(self._loss, tau=target_rate)

    def __call__(
        self,
        state: Mapping[str, Tensor],
        action: Tensor,
        reward: Tensor,
        after: Mapping[str, Tensor],
        terminated: Tensor,
        *,
        steps: Tensor | None = None,
    ) -> Tensor:
        """Temporal-difference loss of N transitions.

        Args:
            state: Fields of the state, (N, ...) each.
            action: (N,) int64, what was done.
            reward: (N,), or (N, K) for K goals; of several steps: their discounted sum.
            after: Fields of the state that followed, or of the one ``steps`` later.
            terminated: Bool, the shape of ``reward``: nothing is to come after that. An episode
                that was cut short has not terminated.
            steps: (N,) how many steps lie between the states; one if left out.

        Returns:
            The shape of ``reward``.
        """
        count = len(action)
        if reward.dim() == 2:
            action = action[:, None].expand_as(reward)
        following = {name: after[name] for name in self._inputs}
        following |= {
            "reward": reward[..., None],
            "done": terminated[..., None],
            "terminated": terminated[..., None],
        }
        content: dict[str, Any] = {name: state[name] for name in self._inputs}
        content |= {"action": action, "next": TensorDict(following, batch_size=[count])}
        if steps is not None:
            between = steps if reward.dim() == 1 else steps[:, None].expand_as(reward)
            content["steps_to_next_obs"] = between[..., None]
        loss: Tensor = self._loss(TensorDict(content, batch_size=[count]))["loss"]
        return loss

    def update_target(self) -> None:
        """Let the target network's parameters follow by one step; its buffers stay."""
        self._follow.step()

    def copy_to_target(self) -> None:
        """Make the target network a copy of the online network, buffers and all."""
        online = self._loss.value_network_params.flatten_keys(".")
        for name, weights in self._target().items():
            weights.copy_(online[name].data)

    def state_dict(self) -> dict[str, Tensor]:
        """The target network; the online network is its owner's."""
        return self._target()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the target network back."""
        for name, weights in self._target().items():
            weights.copy_(state[name])

    def _target(self) -> dict[str, Tensor]:
        target = self._loss.target_value_network_params.flatten_keys(".")
        return {name: weights.data for name, weights in target.items()}


class _ActionValues(nn.Module):
    """The action values alone of a network that may return more, of the actions allowed."""

    def __init__(
        self, network: nn.Module, values: Callable[[Any], Tensor], *, masked: bool
    ) -> None:
        super().__init__()
        self.network = network
        self._values = values
        self._masked = masked

    def forward(self, *inputs: Tensor) -> Tensor:
        if not self._masked:
            return self._values(self.network(*inputs))
        *parts, allowed = inputs
        return self._values(self.network(*parts)).masked_fill(~allowed, MASKED)


def _greedy(values: Tensor) -> tuple[Tensor, Tensor]:
    best, action = values.max(dim=-1, keepdim=True)
    return action[..., 0], best


def n_step_returns(rewards: Tensor, mask: Tensor, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Discounted sums of the rewards of sequences, and over how many steps.

    Args:
        rewards: (N, L), from each sequence's first step on.
        mask: (N, L) bool, steps of the same episode from :class:`medrl.rl.replay.SequenceReplay`.
        gamma: Discount of one step.

    Returns:
        Sums (N,) and numbers of steps (N,) int64.
    """
    discounts = gamma ** torch.arange(rewards.shape[1], device=rewards.device)
    return (rewards * discounts * mask).sum(dim=1), mask.sum(dim=1)
