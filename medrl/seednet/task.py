"""Segmentation of windows whose truth is known: the first click, and the reward of a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from medrl.agents import Space, Task
from medrl.agents.task import whole_rows
from medrl.errors import MedrlError
from medrl.seednet.dynamics import SeedDynamics, SeedState
from medrl.seednet.geometry import dilate
from medrl.seednet.rewards import RewardKind, RewardSettings, dice, seed_rewards
from medrl.walker.segmenter import FOREGROUND, NONE

#: Names of what :meth:`SeedTask.info` gives.
INFO = ("window", "click_voxel", "dice")


@dataclass(frozen=True)
class ClickSettings:
    """The simulated user's click, with which an episode begins.

    Attributes:
        radius: Of the ball that a click paints, in voxels.
        error_share: Share of the episodes in which the user slips.
        error: How far the click then is from where it was meant to be, at most, in voxels on each
            axis; it may miss the object.
    """

    radius: float = 0.0
    error_share: float = 0.0
    error: int = 3

    def __post_init__(self) -> None:
        """Refuse what is not an option."""
        if self.radius < 0 or self.error < 0 or not 0 <= self.error_share <= 1:
            raise MedrlError("a click's radius and error must be at least 0, its share in 0..1")


class SeedTask(Task[SeedState]):
    """Windows with their truths, M of them; an episode begins with one click of a user.

    To be given: ``window``, which one, and ``click_voxel`` (3,), where in it.
    """

    def __init__(
        self,
        dynamics: SeedDynamics,
        truth: Tensor,
        *,
        reward: RewardSettings | RewardKind = "dice",
        click: ClickSettings | None = None,
    ) -> None:
        """Take the truth.

        Args:
            dynamics: On M windows.
            truth: (M, I, J, K) bool, none of them empty.
            reward: Its settings, or only its kind.
            click: The simulated user.
        """
        self.dynamics = dynamics
        self.truth = truth
        self.rewards = RewardSettings(kind=reward) if isinstance(reward, str) else reward
        self.click = click or ClickSettings()
        self.info_spaces = {
            "window": Space.choice(len(truth)),
            "click_voxel": Space((3,), torch.int64),
            "dice": Space(low=0.0, high=1.0),
        }

    def given(self, count: int, **given: Any) -> dict[str, Tensor]:
        """Check ``window`` and ``click_voxel``; see :meth:`medrl.agents.Task.given`."""
        shape = tuple(self.truth.shape)
        known = {"window": (shape[:1], True), "click_voxel": (shape[1:], False)}
        if unknown := sorted(set(given) - set(known)):
            raise MedrlError(f"{unknown[0]} cannot be given: there are {', '.join(known)}")
        rows = {}
        for name, value in given.items():
            limits, single = known[name]
            rows[name] = whole_rows(name, value, count, limits, single=single)
            rows[name] = rows[name].to(self.truth.device)
        return rows

    def begin(self, count: int, generator: Generator, **given: Tensor) -> SeedState:
        """Let a user click into windows; see :meth:`medrl.agents.Task.begin`."""
        device = self.truth.device
        window = given.get("window")
        if window is None:
            window = torch.randint(len(self.truth), (count,), generator=generator).to(device)
        voxel = given.get("click_voxel")
        if voxel is None:
            voxel = self._random_click(self.truth[window], generator)
        clicked = torch.zeros((count, *self.truth.shape[1:]), dtype=torch.bool, device=device)
        clicked[torch.arange(count, device=device), *voxel.unbind(dim=1)] = True
        painted = dilate(clicked, self.click.radius)
        seeds = torch.where(painted, FOREGROUND, NONE).to(torch.int8)
        return self.dynamics.reset(seeds, window=window)

    def reward(self, before: SeedState, action: Tensor, after: SeedState) -> Tensor:
        """Rewards of seeds: :func:`medrl.seednet.rewards.seed_rewards`."""
        place, label = self.dynamics.place(before, action)
        truth = self.truth[before.window]
        return seed_rewards(before.mask, after.mask, truth, place, label, self.rewards)

    def info(self, state: SeedState) -> dict[str, Tensor]:
        """Which window, the middle of the user's seeds, and the overlap of mask and truth."""
        return {
            "window": state.window,
            "click_voxel": _middle(state.user),
            "dice": dice(state.mask, self.truth[state.window]),
        }

    def _random_click(self, truth: Tensor, generator: Generator) -> Tensor:
        """A voxel of each truth, (N, 3) int64, now and then missed by a little."""
        settings, count, device = self.click, len(truth), truth.device
        share = torch.rand((count, 1), generator=generator, dtype=torch.float64)
        inside = truth.flatten(1).cumsum(dim=1)
        nth = (share.to(device) * inside[:, -1:]).long() + 1
        index = torch.searchsorted(inside, nth)[:, 0]
        voxel = torch.stack(torch.unravel_index(index, truth.shape[1:]), dim=-1)
        slips = torch.rand(count, generator=generator) < settings.error_share
        way = torch.randint(-settings.error, settings.error + 1, (count, 3), generator=generator)
        last = torch.tensor(truth.shape[1:], device=device) - 1
        return torch.minimum((voxel + (way * slips[:, None]).to(device)).clamp(min=0), last)


def _middle(mask: Tensor) -> Tensor:
    """The voxel (N, 3) nearest to the middle of each of N masks (N, I, J, K)."""
    count = mask.flatten(1).sum(dim=1).clamp(min=1)
    sums = [
        (mask.flatten(1) * index.flatten()).sum(dim=1)
        for index in torch.meshgrid(
            *(torch.arange(side, device=mask.device) for side in mask.shape[1:]), indexing="ij"
        )
    ]
    return torch.stack([(total / count).round().long() for total in sums], dim=1)
