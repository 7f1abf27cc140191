"""Training what cuts: agents carry masks through stacks, and cuts are compared with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.cutting.dynamics import CUT, CutState, context_of
from medrl.cutting.model import ModelSettings, detached
from medrl.cutting.network import Cut
from medrl.cutting.samples import Changes, Source
from medrl.cutting.task import Rewards, revived
from medrl.cutting.training_stacks import TrainingStacks
from medrl.cutting.windows import at_least, box_of_mask, grown
from medrl.rl.checkpoint import State
from medrl.rl.learner import Learner
from medrl.rl.schedule import one_cycle

#: Share of agents whose boxes are drawn around the true one; the others have their own.
_DRAWN = 0.5
#: Share of cuts that are replaced by the truth before the next picture.
_TAUGHT = 0.1
#: Pictures beyond the object in which agents still learn that it is not there.
_BEYOND = 2
#: An agent whose cut overlaps less than this begins anew.
_LOST = 0.15


@dataclass(frozen=True)
class LearnerSettings:
    """How the networks are trained.

    Attributes:
        rewards: What actions are worth.
        batch: Agents at a time.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        slots: Stacks at hand.
        refresh: Stacks replaced every step.
        changes: How stacks differ from scans.
        policy_learning_rate: Peak in the training of the policy.
        policy_batch: Transitions in a batch of the policy's.
        replay: Transitions remembered.
        epsilon: Share of random moves.
        guided: Random moves are drawn from those that bring the box nearer to the true one.
        mixed_precision: Compute in bfloat16 (float16 on CUDA).
    """

    rewards: Rewards = field(default_factory=Rewards)
    batch: int = 48
    learning_rate: float = 2e-3
    slots: int = 64
    refresh: int = 3
    changes: Changes = field(default_factory=Changes)
    policy_learning_rate: float = 1e-3
    policy_batch: int = 256
    replay: int = 12288
    epsilon: float = 0.3
    guided: bool = True
    mixed_precision: bool = False


class CutLearner(Learner):
    """Owns the execution network, the stacks it learns on, and the agents in them."""

    settings: LearnerSettings

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        model: ModelSettings,
        settings: LearnerSettings,
        steps: int,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Build the network.

        Args:
            sources: Labelled scans and films.
            model: What is trained.
            settings: How to train.
            steps: Batches.
            seed: Fixes every random choice.
            device: Torch device.
        """
        torch.manual_seed(seed)
        self.network = model.build_network().to(device)
        super().__init__(
            modules={"network": self.network},
            optimizers={"network": torch.optim.AdamW(self.network.parameters(), weight_decay=1e-4)},
            generator=Generator().manual_seed(seed),
            total_steps=steps,
            settings=settings,
            device=device,
            mixed_precision=settings.mixed_precision,
        )
        self.stacks = TrainingStacks(
            sources,
            view=model.view,
            slots=settings.slots,
            changes=settings.changes,
            rewards=settings.rewards,
            generator=self.generator,
            device=device,
        )
        self._state: CutState | None = None

    def extra_state(self) -> State:
        """Stacks at hand, and where agents are."""
        agents = None if self._state is None else self._state.state_dict()
        return {"pool": self.stacks.state_dict(), "agents": agents}

    def load_extra_state(self, state: State) -> None:
        """Take them back."""
        self.stacks.load_state_dict(state["pool"])
        self._state = None
        if state["agents"] is not None:
            self._state = CutState.from_state_dict(state["agents"]).to(self.device)

    def train_step(self) -> dict[str, float]:
        """Every agent cuts, in its own boxes or in some around the true one."""
        s, task = self.settings, self.stacks.task
        if self._state is None:
            self._state = task.begin(s.batch, self.generator)
        elif s.refresh:
            slots = torch.tensor(self.stacks.refresh(s.refresh), device=self.device)
            again = torch.nonzero(torch.isin(self._state.stack, slots))[:, 0]
            self._restart(again)
        state = self._boxed(self._state)
        truth = task.truth_in(state)
        present = task.present[state.picture]
        self.network.train()
        seen = task.dynamics.observe(state)
        window = seen["window"].to(memory_format=torch.channels_last)
        with self.autocast():
            cut = self.network(window, seen["told"])
        losses = cut_losses(Cut(*(one.float() for one in cut)), truth, present)
        self.optimize(
            torch.stack(list(losses.values())).sum(),
            learning_rate=s.learning_rate * one_cycle(self.step, self.total_steps),
            clip=5.0,
        )
        self.step += 1
        mask = detached(cut.logits)
        good = task.overlap_of(state, mask)
        figures = {name: float(value.detach()) for name, value in losses.items()}
        figures["overlap"] = float(good[present].mean()) if present.any() else 0.0
        self._advance(state, mask, truth, present, good)
        return figures

    def _boxed(self, state: CutState) -> CutState:
        """Some of the agents with boxes around the true one."""
        g, task = self.generator, self.stacks.task
        box, there = box_of_mask(task.truth[state.picture])
        count = len(box)
        spread = 0.25 * torch.rand((count, 1), generator=g).to(box)
        normal = torch.randn((2, count, 2), generator=g).to(box)
        size = box[:, 1] - box[:, 0]
        middle = box.mean(dim=1) + size * spread * normal[0].clamp(-2, 2)
        half = size / 2 * (spread * normal[1]).clamp(-0.5, 0.5).exp()
        box = at_least(torch.stack([middle - half, middle + half], dim=1), 3.0)
        drawn = (torch.rand(count, generator=g).to(box) < _DRAWN) & there
        moves = torch.randint(task.dynamics.view.moves + 1, (count,), generator=g).to(state.moves)
        own = drawn[:, None, None]
        factor = (torch.rand((count, 1, 1), generator=g) * 0.7 + 0.8).to(box)
        new = torch.where(own, box, state.object)
        wide = context_of(new)
        wide = wide.mean(1, keepdim=True) + (wide - wide.mean(1, keepdim=True)) * factor
        inner = grown(new, 1.05)
        low = torch.minimum(wide[:, 0], inner[:, 0])
        high = torch.maximum(wide[:, 1], inner[:, 1])
        moved = torch.where(drawn, moves, state.moves)
        return replace(state, object=new, context=torch.stack([low, high], 1), moves=moved)

    def _advance(
        self, state: CutState, mask: Tensor, truth: Tensor, present: Tensor, good: Tensor
    ) -> None:
        """Agents with their cuts, or the truth, in the next picture; who is lost begins anew."""
        task, g = self.stacks.task, self.generator
        taught = (torch.rand(len(good), generator=g).to(mask) < _TAUGHT) & present
        mask = torch.where(taught[:, None, None], truth, mask)
        after = task.dynamics.step(state, torch.full_like(state.picture, CUT), mask=mask)
        # Where the object has ended, what is cut is nothing: the last true mask stays in sight.
        past = ~present
        steps = (state.picture - state.last.picture).abs()
        kept = replace(
            revived(state),
            picture=state.picture + state.direction,
            object=state.last.object,
            context=context_of(state.last.object),
            moves=torch.zeros_like(state.moves),
        )
        goes_on = past & (steps < _BEYOND) & (state.picture != state.last_allowed)
        after = kept.where(goes_on, after)
        over = (~after.active & ~goes_on) | (past & ~goes_on) | (present & (good < _LOST) & ~taught)
        self._state = after
        self._restart(torch.nonzero(over)[:, 0])

    def _restart(self, rows: Tensor) -> None:
        """These agents begin anew in stacks drawn at random."""
        if len(rows) and self._state is not None:
            self._state = self._state.put(rows, self.stacks.task.begin(len(rows), self.generator))


def cut_losses(cut: Cut, truth: Tensor, present: Tensor) -> dict[str, Tensor]:
    """How far cuts are from the truth.

    Args:
        cut: Of N agents.
        truth: (N, s, s), 0 to 1.
        present: (N,) bool.

    Returns:
        Binary cross-entropy and Dice of the masks, of presence, and of the expected overlap.
    """
    each = F.binary_cross_entropy_with_logits(cut.logits, truth, reduction="none").mean(dim=(1, 2))
    mask = torch.sigmoid(cut.logits)
    shared = (mask * truth).sum(dim=(1, 2))
    both = (mask + truth).sum(dim=(1, 2))
    dice = 1 - (2 * shared + 1) / (both + 1)
    known = present.float()
    hard = (mask.detach() > 0.5).float()
    union = torch.maximum(hard, (truth > 0.5).float()).sum(dim=(1, 2))
    met = (hard * (truth > 0.5)).sum(dim=(1, 2)) / union.clamp(min=1)
    quality = F.binary_cross_entropy_with_logits(cut.quality, met, reduction="none")
    return {
        "mask": each.mean(),
        "dice": (dice * known).sum() / known.sum().clamp(min=1),
        "present": 0.2 * F.binary_cross_entropy_with_logits(cut.present, known),
        "quality": 0.1 * (quality * known).sum() / known.sum().clamp(min=1),
    }
