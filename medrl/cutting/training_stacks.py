"""The stacks that training agents work in: objects at hand, replaced one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from medrl.cutting.dynamics import CutDynamics, Stack, View
from medrl.cutting.samples import MOST, Changes, Source, canvas_of, draw_stack
from medrl.cutting.task import CutTask, Rewards
from medrl.errors import MedrlError
from medrl.rl.pool import Pool

#: How often another object of a source is tried where one was too small.
_TRIES = 40


class TrainingStacks:
    """Slots, each with one object of a source; :attr:`task` works in all of them."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        view: View,
        slots: int,
        changes: Changes,
        rewards: Rewards,
        generator: Generator,
        device: str = "cpu",
    ) -> None:
        """Choose what is in every slot.

        Args:
            sources: Labelled scans and films; every cohort of them comes as often as any other.
            view: What agents see.
            slots: Stacks at hand.
            changes: How they differ from their sources.
            rewards: What the task is worth.
            generator: Source of randomness.
            device: Where they are.
        """
        self._sources = _balanced(sources)
        self._view, self._changes, self._rewards = view, changes, rewards
        self._device = device
        self.pool = Pool(self._make, size=slots, sources=len(self._sources), generator=generator)
        self._task: CutTask | None = None

    @property
    def task(self) -> CutTask:
        """What is known of the stacks at hand; made when first asked for."""
        if self._task is None:
            made = [self.pool[slot] for slot in range(len(self.pool))]
            dynamics = CutDynamics(
                [_filled(stack) for stack, _ in made], view=self._view, device=self._device
            )
            side = canvas_of(self._view.side)
            truth = torch.zeros((len(made) * MOST, side, side), device=self._device)
            self._task = CutTask(dynamics, truth, rewards=self._rewards)
            for slot in range(len(made)):
                self._put(slot)
        return self._task

    def refresh(self, count: int) -> list[int]:
        """Replace the oldest; returns the slots."""
        slots = self.pool.renew(count)
        if self._task is not None:
            for slot in slots:
                self._put(slot)
        return slots

    def state_dict(self) -> dict[str, Any]:
        """What the stacks at hand are made of."""
        return self.pool.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.pool.load_state_dict(state)
        self._task = None

    def _put(self, slot: int) -> None:
        assert self._task is not None
        stack, masks = self.pool[slot]
        self._task.dynamics.replace_stack(slot, stack)
        first = slot * MOST
        self._task.truth[first : first + MOST] = 0.0
        self._task.truth[first : first + len(masks)] = masks.to(self._task.truth)

    def _make(self, source: int, generator: Generator) -> tuple[Stack, Tensor]:
        for _ in range(_TRIES):
            drawn = draw_stack(self._sources[source], self._view.side, self._changes, generator)
            if drawn is not None:
                return drawn
        raise MedrlError(
            f"{self._sources[source].name}: none of its objects goes through enough pictures"
        )


def _balanced(sources: Sequence[Source]) -> list[Source]:
    """Sources, those of small cohorts several times."""
    cohorts: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        cohorts[source.cohort].append(source)
    most = max(len(cohort) for cohort in cohorts.values())
    return [
        source
        for cohort in cohorts.values()
        for source in cohort * max(1, round(most / len(cohort)))
    ]


def _filled(stack: Stack) -> Stack:
    """A stack of as many pictures as any may have."""
    missing = MOST - len(stack)
    last = stack.pictures[-1:].expand(missing, -1, -1, -1)
    return Stack(torch.cat([stack.pictures, last]), stack.spacing, stack.step_mm)
