"""Rewards of the seed-placing method, from the masks before and after a seed and the truth.

Masks and truths are (N, I, J, K) bool, one for each of N agents; figures are (N,) float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from medrl.errors import MedrlError
from medrl.seednet.geometry import ball
from medrl.walker.segmenter import FOREGROUND, NONE

RewardKind = Literal["dice", "iou", "exp_iou", "regions"]

#: Where a seed lies: well inside the truth, inside near its border, outside near it, far outside.
STRONG_FOREGROUND, WEAK_FOREGROUND, WEAK_BACKGROUND, STRONG_BACKGROUND = range(4)


@dataclass(frozen=True)
class RewardSettings:
    """Options of the reward.

    Attributes:
        kind: ``dice`` or ``iou``: how much the overlap grew; ``exp_iou``: exponential IoU of the
            new mask; ``regions``: SeedNet's four-region reward.
        step_cost: Subtracted for every seed.
        wrong_seed: Subtracted for a seed whose label is not the truth's there; ``regions`` has
            its own punishment.
        k: Steepness of the exponential IoU.
        erosion: The foreground is weak up to this distance from the background, in voxels.
        dilation: The background is weak up to this distance from the foreground, in voxels.
    """

    kind: RewardKind = "dice"
    step_cost: float = 0.0
    wrong_seed: float = 0.0
    k: float = 10.0
    erosion: float = 2.0
    dilation: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what is not an option."""
        if self.kind not in get_args(RewardKind):
            raise MedrlError(
                f"reward kind must be dice, iou, exp_iou or regions, not {self.kind!r}"
            )
        if not self.k > 0 or self.erosion < 0 or self.dilation < 0:
            raise MedrlError("k must be more than 0, erosion and dilation at least 0")


def dice(mask: Tensor, truth: Tensor) -> Tensor:
    """Dice overlap of each pair of masks; 1 where both are empty."""
    total = _count(mask) + _count(truth)
    return torch.where(total > 0, 2 * _count(mask & truth) / total.clamp(min=1), 1.0)


def iou(mask: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of each pair of masks; 1 where both are empty."""
    either = _count(mask | truth)
    return torch.where(either > 0, _count(mask & truth) / either.clamp(min=1), 1.0)


def exponential_iou(mask: Tensor, truth: Tensor, *, k: float = 10.0) -> Tensor:
    """SeedNet's R_exp = (exp(k IoU) - 1) / (exp(k) - 1), the last few per cent count most."""
    return torch.expm1(k * iou(mask, truth)) / math.expm1(k)


def _count(mask: Tensor) -> Tensor:
    return mask.flatten(1).count_nonzero(dim=1)


def seed_regions(truth: Tensor, place: Tensor, *, erosion: float, dilation: float) -> Tensor:
    """In which of the four regions seeds lie.

    The strong foreground is the truth eroded by a ball, the strong background what lies outside
    the truth dilated by a ball. What is outside the window is unknown and does not erode.

    Args:
        truth: Of the agents' windows.
        place: (N, 3) int64, inside the window.
        erosion: Radius in voxels.
        dilation: Radius in voxels.

    Returns:
        (N,) int64, STRONG_FOREGROUND, WEAK_FOREGROUND, WEAK_BACKGROUND or STRONG_BACKGROUND.
    """
    n = torch.arange(len(place), device=place.device)
    here = truth[n, place[:, 0], place[:, 1], place[:, 2]]
    near_background = _other_nearby(truth, place, here, erosion)
    near_foreground = _other_nearby(truth, place, here, dilation)
    inside = torch.where(near_background, WEAK_FOREGROUND, STRONG_FOREGROUND)
    outside = torch.where(near_foreground, WEAK_BACKGROUND, STRONG_BACKGROUND)
    return torch.where(here, inside, outside)


def seed_rewards(
    before: Tensor,
    after: Tensor,
    truth: Tensor,
    place: Tensor,
    label: Tensor,
    settings: RewardSettings,
) -> Tensor:
    """The reward of each agent's action.

    ``regions`` is R_exp in the strong region of the seed's own label, R_exp - 1 in the weak one
    and -1 elsewhere (Song et al. 2018). STOP is rewarded with 0 in every form.

    Args:
        before: Masks before the action.
        after: Masks after it.
        truth: What they should be.
        place: (N, 3) int64, where the seeds went; -1 where nothing was placed.
        label: (N,) int64, BACKGROUND or FOREGROUND, NONE for STOP.
        settings: Which reward.

    Returns:
        The rewards. A seed that found no place counts as one in the wrong place.
    """
    n = torch.arange(len(place), device=place.device)
    lies = (place >= 0).all(dim=1)
    inside = place.clamp(min=0)
    there = truth[n, inside[:, 0], inside[:, 1], inside[:, 2]]
    right = lies & (there == (label == FOREGROUND))
    if settings.kind == "regions":
        reward = exponential_iou(after, truth, k=settings.k)
        region = seed_regions(truth, inside, erosion=settings.erosion, dilation=settings.dilation)
        strong = (region == STRONG_FOREGROUND) | (region == STRONG_BACKGROUND)
        reward = torch.where(right, reward - (~strong).float(), -1.0)
    else:
        if settings.kind == "exp_iou":
            reward = exponential_iou(after, truth, k=settings.k)
        else:
            overlap = dice if settings.kind == "dice" else iou
            reward = overlap(after, truth) - overlap(before, truth)
        reward = reward - settings.wrong_seed * (~right).float()
    return torch.where(label == NONE, 0.0, reward - settings.step_cost)


def _other_nearby(truth: Tensor, place: Tensor, here: Tensor, radius: float) -> Tensor:
    """(N,) bool, whether a ball around each place holds a voxel unlike its centre."""
    around = place[:, None] + ball(radius).to(place.device)
    # Drawn into the window, voxels of the ball come nearer to its centre: they stay in the ball.
    last = torch.tensor(truth.shape[1:], device=place.device) - 1
    i, j, k = torch.minimum(around.clamp(min=0), last).unbind(dim=-1)
    n = torch.arange(len(place), device=place.device)[:, None]
    return (truth[n, i, j, k] != here[:, None]).any(dim=1)
