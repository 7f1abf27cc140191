"""The truth about cuts: where an episode begins, and what each action is worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor

from medrl.agents import ACTIVE, Space, Task
from medrl.cutting.dynamics import CUT, GONE, CutDynamics, CutState
from medrl.cutting.windows import in_box, put_back

RewardForm = Literal["steps", "sign", "power"]

#: An outlined picture shows at least this share of the object's largest area.
_WELL_SEEN = 0.3


@dataclass(frozen=True)
class Rewards:
    """What actions are worth, by D, the change of the overlap of the mask that would be cut.

    Attributes:
        form: ``steps``: +a if D > 0.1, 10 a D if |D| <= 0.1, -a below (Han et al. 2018, eq. 4);
            ``sign`` of the change, +a or -a; ``power``: its sign times a (10 |D|)^exponent.
        a: For a move.
        exponent: Of the form ``power``.
        stop: For a cut that fits, or a "gone" that is true; taken away otherwise.
        fits: Overlap from which a cut fits.
        gamma: Discount of a step.
    """

    form: RewardForm = "steps"
    a: float = 1.0
    exponent: float = 0.5
    stop: float = 3.0
    fits: float = 0.7
    gamma: float = 0.7

    def of_change(self, change: Tensor) -> Tensor:
        """What a move is worth, of changes of the overlap (N,)."""
        if self.form == "sign":
            return self.a * torch.where(change > 0, 1.0, -1.0)
        if self.form == "power":
            return change.sign() * self.a * (10 * change.abs()) ** self.exponent
        return self.a * (10 * change).clamp(-1, 1)


def overlap(mask: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of masks (N, H, W) above one half; 1 where both are empty."""
    ours, theirs = mask > 0.5, truth > 0.5
    union = (ours | theirs).flatten(1).sum(dim=1)
    shared = (ours & theirs).flatten(1).sum(dim=1)
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)


class CutTask(Task[CutState]):
    """Agents begin next to a picture that is outlined, and know where the object truly is.

    What a step is worth depends on the masks that would be cut before and after it, which whoever
    walks the agents hands over: :meth:`reward_of`. :meth:`reward` judges where an agent cuts.
    """

    info_spaces = {"overlap": Space()}  # noqa: RUF012 - read only, as declared above

    def __init__(
        self, dynamics: CutDynamics, truth: Tensor, *, rewards: Rewards | None = None
    ) -> None:
        """Know the masks.

        Args:
            dynamics: What the agents live in.
            truth: (sum of T, H, W), 0 to 1, of all pictures.
            rewards: Their form.
        """
        self.dynamics, self.truth, self.rewards = dynamics, truth, rewards or Rewards()

    @property
    def present(self) -> Tensor:
        """(sum of T,) bool, the pictures in which the object is."""
        return (self.truth > 0.5).flatten(1).any(dim=1)

    def begin(self, count: int, generator: Generator, **given: Tensor) -> CutState:
        """Put agents next to pictures that show the objects well."""
        stack = torch.randint(len(self.dynamics.stacks), (count,), generator=generator)
        return self.begin_in(stack.to(self.dynamics.device), generator)

    def begin_in(self, stack: Tensor, generator: Generator) -> CutState:
        """Put agents into stacks (N,), next to pictures that show the objects well."""
        dynamics = self.dynamics
        area = (self.truth > 0.5).flatten(1).sum(dim=1).float()
        first, counts = dynamics.first[stack], dynamics.counts[stack]
        index = torch.arange(int(counts.max()), device=first.device)
        rows = (first[:, None] + index).clamp(max=len(area) - 1)
        own = torch.where(index < counts[:, None], area[rows], 0.0)
        well = (own >= _WELL_SEEN * own.amax(dim=1, keepdim=True)) & (own > 0)
        # A stack may have to begin somewhere even if its object is nowhere.
        weight = well.float() + 1e-9 * (index < counts[:, None])
        drawn = torch.multinomial(weight.cpu(), 1, generator=generator)[:, 0].to(first.device)
        picture = first + drawn
        ahead = drawn < counts - 1
        back = drawn > 0
        forward = (torch.rand(len(stack), generator=generator) < 0.5).to(first.device)
        direction = torch.where((forward & ahead) | ~back, 1, -1)
        outlined = dynamics.outlined(picture, self.truth[picture])
        following = picture + direction
        return dynamics.reset(stack, following, direction, last=outlined, reference=outlined)

    def truth_in(self, state: CutState) -> Tensor:
        """The true masks in the agents' contexts, (N, s, s)."""
        masks = self.truth[state.picture][:, None]
        return in_box(masks, state.context, self.dynamics.view.side)[:, 0]

    def overlap_of(self, state: CutState, mask: Tensor) -> Tensor:
        """Overlap (N,) of the masks (N, s, s) that would be cut, with the truth of the picture."""
        whole = put_back(mask, state.context, self.dynamics.shape)
        return overlap(whole, self.truth[state.picture])

    def reward_of(self, before: CutState, action: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """What steps are worth, (N,).

        Args:
            before: N agents, all active.
            action: (N,) what they do.
            first: (N,) overlap of the mask that each would cut before.
            second: (N,) after a move.
        """
        r = self.rewards
        present = self.present[before.picture]
        worth = r.of_change(second - first)
        fits = present & (first >= r.fits)
        worth = torch.where(action == CUT, torch.where(fits, r.stop, -r.stop), worth)
        # A cut that is as good as it gets is better than none.
        worth = torch.where(
            (action == CUT) & present & ~fits, r.stop * (2 * first / r.fits - 1), worth
        )
        return torch.where(action == GONE, torch.where(present, -r.stop, r.stop), worth)

    def reward(self, before: CutState, action: Tensor, after: CutState) -> Tensor:
        """What cuts and goodbyes are worth; moves alone are worth nothing here."""
        first = torch.zeros(len(action), device=action.device)
        rows = torch.nonzero(action == CUT)[:, 0]
        if len(rows):
            first[rows] = self.overlap_of(before.select(rows), after.last.mask[rows])
        return self.reward_of(before, action, first, first)

    def ended(self, after: CutState) -> CutState:
        """Nobody is stopped by the truth."""
        return after

    def info(self, state: CutState) -> dict[str, Tensor]:
        """The overlap of the last mask with the truth."""
        last = state.last
        whole = put_back(last.mask, last.context, self.dynamics.shape)
        return {"overlap": overlap(whole, self.truth[last.picture])}


def revived(state: CutState) -> CutState:
    """Agents that have ended, going on where they are."""
    return replace(state, status=torch.full_like(state.status, ACTIVE))
