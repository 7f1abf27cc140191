"""Rewards of registration agents, from points whose right places are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from medrl.errors import MedrlError
from medrl.registration.transforms import move

RewardKind = Literal["distance", "progress"]


@dataclass(frozen=True)
class RewardSettings:
    """What a step is worth.

    Attributes:
        kind: ``distance``: the negative mean landmark distance D after the step, in mm, r = -D
            (Sun et al., MedIA 2021). ``progress``: how much the step shrinks log(1 + D / mm), the
            same at every scale.
        bonus: Added when an agent stops with D below the threshold.
        threshold: Of D, mm.
        penalty: Taken away when it stops with D above the threshold.
    """

    kind: RewardKind = "progress"
    bonus: float = 1.0
    threshold: float = 2.0
    penalty: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is not an option.

        Raises:
            MedrlError: If the kind is unknown.
        """
        if self.kind not in get_args(RewardKind):
            raise MedrlError(
                f"there is no reward {self.kind!r}: {' or '.join(get_args(RewardKind))}"
            )


def mean_distance(transforms: Tensor, points: Tensor, targets: Tensor) -> Tensor:
    """Mean landmark distance D of Sun et al. (MedIA 2021).

    Args:
        transforms: (..., 4, 4).
        points: (..., P, 3) in fixed space, mm.
        targets: (..., P, 3), where they belong in moving space, mm.

    Returns:
        (...) in mm.
    """
    return (move(transforms, points) - targets).norm(dim=-1).mean(dim=-1)


def step_rewards(
    before: Tensor, after: Tensor, stopped: Tensor, settings: RewardSettings
) -> Tensor:
    """Rewards (N,) of steps.

    Args:
        before: (N,) D before the step, mm.
        after: (N,) D after it; the same where the agent stopped.
        stopped: (N,) bool, agents that chose to end their walk in this step.
        settings: What counts.
    """
    progress = before.log1p() - after.log1p()
    reward = -after if settings.kind == "distance" else progress
    there = after < settings.threshold
    end = torch.where(there, settings.bonus, -settings.penalty).to(reward)
    return reward + end * stopped
