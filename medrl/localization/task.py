"""The truth about boxes: where an episode begins, and what each action is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from medrl.agents import Space, Task
from medrl.localization.dynamics import TRIGGER, BoxDynamics, BoxState
from medrl.localization.kinds import nearest

RewardForm = Literal["sign", "dense"]


@dataclass(frozen=True)
class Rewards:
    """What actions are worth.

    Attributes:
        form: ``sign`` of the change of the overlap, +1 or -1, no change being -1 (Caicedo and
            Lazebnik 2015, eq. 2); or ``dense``, the change of the generalised overlap times
            :attr:`scale`, which also tells boxes apart that do not touch.
        scale: Of the dense form.
        trigger: For a trigger on a box that fits, and the same taken away on one that does not
            (eq. 3).
        fits: Overlap (intersection over union) from which a box fits.
        gamma: Discount of a step.
    """

    form: RewardForm = "dense"
    scale: float = 10.0
    trigger: float = 3.0
    fits: float = 0.8
    gamma: float = 0.5


def overlap(box: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 2, 3), (...)."""
    return _both(box, truth)[0]


def generalised_overlap(box: Tensor, truth: Tensor) -> Tensor:
    """Overlap less the share of their hull that neither covers (Rezatofighi et al. 2019), (...)."""
    iou, union = _both(box, truth)
    low = torch.minimum(box[..., 0, :], truth[..., 0, :])
    high = torch.maximum(box[..., 1, :], truth[..., 1, :])
    hull = (high - low).prod(dim=-1)
    return iou - (hull - union) / hull


def action_rewards(
    dynamics: BoxDynamics, box: Tensor, share: Tensor, truth: Tensor, rewards: Rewards
) -> tuple[Tensor, Tensor]:
    """What every action is worth, and where it leads.

    Args:
        dynamics: How boxes move.
        box: (N, 2, 3).
        share: (N,) int64, step sizes.
        truth: (N, 2, 3), the box of the target; NaN where there is none: then moves are worth
            nothing, and a trigger is wrong.
        rewards: Their form.

    Returns:
        Rewards (N, A) and boxes (N, A, 2, 3).
    """
    tried = dynamics.destinations(box, share)
    goal = truth[:, None]
    if rewards.form == "sign":
        better = overlap(tried, goal) > overlap(box, truth)[:, None] + 1e-9
        worth = torch.where(better, 1.0, -1.0)
    else:
        gain = generalised_overlap(tried, goal) - generalised_overlap(box, truth)[:, None]
        worth = (gain * rewards.scale).float()
    worth = torch.where(truth.isnan().any(dim=(1, 2))[:, None], 0.0, worth)
    fits = overlap(box, truth) >= rewards.fits
    worth[:, TRIGGER] = torch.where(fits, rewards.trigger, -rewards.trigger)
    return worth, tried


def optimal_values(
    dynamics: BoxDynamics,
    box: Tensor,
    share: Tensor,
    truth: Tensor,
    rewards: Rewards,
    *,
    horizon: int = 5,
) -> Tensor:
    """Action values Q(s, a) of the agent that always takes the best reward, without a network.

    With the box known, the return of every move is summed up by walking on greedily. This is what
    imitation regresses on.

    Args:
        dynamics: How boxes move.
        box: (N, 2, 3).
        share: (N,) int64.
        truth: (N, 2, 3), NaN where there is nothing to find.
        rewards: Their form.
        horizon: Actions summed up after the first.

    Returns:
        (N, A) float32.
    """
    values, ahead = action_rewards(dynamics, box, share, truth, rewards)
    count, choices = values.shape
    ahead = ahead.reshape(-1, 2, 3)
    steps = share[:, None].expand(-1, choices).reshape(-1)
    goal = truth[:, None].expand(-1, choices, -1, -1).reshape(-1, 2, 3)
    goes_on = torch.ones((count, choices), dtype=torch.bool, device=box.device)
    goes_on[:, TRIGGER] = False
    discount = rewards.gamma
    for _ in range(horizon):
        worth, tried = action_rewards(dynamics, ahead, steps, goal, rewards)
        best, action = worth.max(dim=1)
        values = values + discount * torch.where(goes_on, best.view(count, choices), 0.0)
        goes_on = goes_on & (action != TRIGGER).view(count, choices)
        ahead = tried[torch.arange(len(action), device=box.device), action]
        discount *= rewards.gamma
    return values


class BoxTask(Task[BoxState]):
    """Agents begin at boxes drawn around the true one, near and far."""

    info_spaces = {"overlap": Space()}  # noqa: RUF012 - read only, as declared above

    def __init__(
        self,
        dynamics: BoxDynamics,
        truth: Tensor,
        *,
        target: Tensor | None = None,
        rewards: Rewards | None = None,
    ) -> None:
        """Know the boxes.

        Args:
            dynamics: What the agents live in.
            truth: (M, R, 2, 3) boxes of every object in every scan, voxels of the finest levels;
                NaN of what is not there.
            target: (R,) int64, which target each object is; each its own if left out.
            rewards: Their form.
        """
        self.dynamics, self.truth, self.rewards = dynamics, truth, rewards or Rewards()
        own = torch.arange(truth.shape[1]) if target is None else target
        self.target = own.to(truth.device)

    def begin(self, count: int, generator: Generator, **given: Tensor) -> BoxState:
        """Put agents at random starts, each for a target that is in its scan."""
        known = torch.nonzero(~self.truth.isnan().any(dim=(2, 3)))
        drawn = known[torch.randint(len(known), (count,), generator=generator).to(known.device)]
        scan, row = drawn.T
        start = disturbed(self.truth[scan, row], generator)
        return self.dynamics.reset(scan, self.target[row], start)

    def goal(self, state: BoxState) -> Tensor:
        """The boxes that agents are to find, (N, 2, 3); NaN where there is none."""
        return nearest(self.truth[state.scan], self.target, state.target, state.box)

    def worth(self, state: BoxState) -> Tensor:
        """What every action would be worth, (N, A) float32."""
        truth = self.goal(state)
        return action_rewards(self.dynamics, state.box, state.share, truth, self.rewards)[0].float()

    def reward(self, before: BoxState, action: Tensor, after: BoxState) -> Tensor:
        """What the step was worth."""
        return self.worth(before).gather(1, action[:, None])[:, 0]

    def info(self, state: BoxState) -> dict[str, Tensor]:
        """The overlap with the true box."""
        return {"overlap": overlap(state.box, self.goal(state)).float()}


def disturbed(box: Tensor, generator: Generator, *, widest: float = 0.6) -> Tensor:
    """Boxes (N, 2, 3) moved and stretched at random, most of them a little, some a lot.

    Args:
        box: (N, 2, 3).
        generator: Source of randomness, on the CPU.
        widest: Largest standard deviation of the shift, as a share of the size.
    """
    count = len(box)
    draw = torch.rand((count, 1), generator=generator, dtype=torch.float64)
    spread = (0.02 * (widest / 0.02) ** draw).to(box.device)
    normal = torch.randn((2, count, 3), generator=generator, dtype=torch.float64).to(box.device)
    size = (box[:, 1] - box[:, 0]).double()
    center = box.double().mean(dim=1) + size * spread * normal[0]
    half = size * (spread * normal[1]).clamp(-1.0, 1.0).exp() / 2
    return torch.stack([center - half, center + half], dim=1)


def _both(box: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and the union."""
    low = torch.maximum(box[..., 0, :], truth[..., 0, :])
    high = torch.minimum(box[..., 1, :], truth[..., 1, :])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    volumes = [(one[..., 1, :] - one[..., 0, :]).prod(dim=-1) for one in (box, truth)]
    union = volumes[0] + volumes[1] - shared
    return shared / union.clamp(min=1e-9), union
