"""Agents in groups: they share a reward, or tell each other what they see."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_of_others(messages: Tensor, group: Tensor) -> Tensor:
    """What each agent hears: the mean of the others' messages in its group.

    CommNet (Sukhbaatar et al. 2016, eq. 2); an agent that is alone hears zeros.

    Args:
        messages: (N, F).
        group: (N,) int64, which group each agent belongs to.

    Returns:
        (N, F).
    """
    groups = int(group.max()) + 1 if len(group) else 0
    sums = messages.new_zeros((groups, messages.shape[1])).index_add(0, group, messages)
    members = group.bincount(minlength=groups).to(messages)
    others = (members[group] - 1)[:, None]
    return (sums[group] - messages) / others.clamp(min=1)


def shared_reward(reward: Tensor, group: Tensor) -> Tensor:
    """The mean reward of each agent's group, (N,).

    Args:
        reward: (N,).
        group: (N,) int64.
    """
    groups = int(group.max()) + 1 if len(group) else 0
    sums = reward.new_zeros(groups).index_add(0, group, reward)
    members = group.bincount(minlength=groups).to(reward)
    return sums[group] / members[group]


def all_ended(ended: Tensor, group: Tensor) -> Tensor:
    """(N,) bool, whether every agent of each one's group has ended.

    Args:
        ended: (N,) bool.
        group: (N,) int64.
    """
    groups = int(group.max()) + 1 if len(group) else 0
    left = torch.zeros(groups, dtype=torch.int64, device=group.device)
    left = left.index_add(0, group, (~ended).long())
    return left[group] == 0
