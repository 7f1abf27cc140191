"""Memories of what agents did: single transitions, and sequences for learners with memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor

Fields = dict[str, Tensor]


class _Ring:
    """Rows of tensors by name, on the CPU; the oldest give way. Memory is taken with the first."""

    def __init__(self, capacity: int, *, generator: Generator) -> None:
        self.capacity = capacity
        self._generator = generator
        self._fields: Fields = {}
        self._count = 0
        self._next = 0

    def __len__(self) -> int:
        return self._count

    def held(self, name: str) -> Tensor:
        """A field of all that is held, in no order."""
        return self._fields[name][: self._count]

    def _add(self, rows: Mapping[str, Tensor]) -> None:
        if not self._fields:
            self._allocate(rows)
        count = len(next(iter(rows.values())))
        kept = min(count, self.capacity)
        places = (self._next + torch.arange(count - kept, count)) % self.capacity
        for name, stored in self._fields.items():
            stored[places] = rows[name][count - kept :].detach().to(stored)
        self._next = (self._next + count) % self.capacity
        self._count = min(self._count + count, self.capacity)

    def _allocate(self, rows: Mapping[str, Tensor]) -> None:
        self._fields = {
            name: torch.zeros((self.capacity, *field.shape[1:]), dtype=field.dtype)
            for name, field in rows.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """All that is held, and where the next goes; the generator is its owner's."""
        held = {name: stored[: self._count] for name, stored in self._fields.items()}
        return {"fields": held, "count": self._count, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._allocate(state["fields"])
        self._count, self._next = state["count"], state["next"]
        for name, held in state["fields"].items():
            self._fields[name][: self._count] = held


class Replay(_Ring):
    """Uniform replay of transitions, whose fields are tensors by name.

    What takes much space and can be made again (windows of scans) is better kept as what it is
    made from (positions).
    """

    def __init__(self, capacity: int, *, generator: Generator) -> None:
        """Make an empty one.

        Args:
            capacity: Transitions kept.
            generator: Source of randomness, on the CPU.
        """
        super().__init__(capacity, generator=generator)

    def extend(self, fields: Mapping[str, Tensor]) -> None:
        """Add N transitions.

        Args:
            fields: (N, ...) each, of the same names, shapes and types every time.
        """
        self._add(fields)

    def sample(
        self,
        count: int,
        *,
        device: str | torch.device = "cpu",
        valid: Callable[[Fields], Tensor] | None = None,
    ) -> Fields:
        """Draw transitions, each as likely as any other.

        Args:
            count: How many are drawn.
            device: Where they are wanted.
            valid: Says which of those drawn (count,) still hold; the others are left out.

        Returns:
            Fields (N, ...), N <= count.
        """
        rows = torch.randint(self._count, (count,), generator=self._generator)
        drawn = {name: stored[rows].to(device) for name, stored in self._fields.items()}
        if valid is None:
            return drawn
        keep = valid(drawn)
        return {name: field[keep] for name, field in drawn.items()}


class SequenceReplay(_Ring):
    """Uniform replay of sequences of steps within an episode, of M agents side by side.

    Every call of :meth:`extend` adds one step of each agent; episodes follow one another. A
    sequence may begin in the middle of an episode: the memory an agent had there is stored as one
    of the fields (R2D2, Kapturowski et al. 2019).
    """

    def __init__(self, capacity: int, *, generator: Generator) -> None:
        """Make an empty one.

        Args:
            capacity: Steps kept of each agent.
            generator: Source of randomness, on the CPU.
        """
        super().__init__(capacity, generator=generator)

    def extend(
        self, fields: Mapping[str, Tensor], *, begins: Tensor, active: Tensor | None = None
    ) -> None:
        """Add a step of each of M agents.

        Args:
            fields: (M, ...) each, of the same names, shapes and types every time.
            begins: (M,) bool, agents whose episode begins with this step.
            active: (M,) bool, agents that took the step: the others have ended, and wait for the
                next episode. All of them if left out.
        """
        active = torch.ones_like(begins) if active is None else active
        rows = {**fields, "begins": begins, "active": active}
        self._add({name: field[None] for name, field in rows.items()})

    def sample(
        self, count: int, length: int, *, device: str | torch.device = "cpu"
    ) -> tuple[Fields, Tensor]:
        """Draw sequences that lie within the steps held, each as likely as any other.

        Args:
            count: Sequences drawn, N.
            length: Steps of each, L, at most ``len(self)``.
            device: Where they are wanted.

        Returns:
            Fields (N, L, ...), and a mask (N, L) bool: steps of the episode that the first one is
            of. What stands behind its end is of another episode, or of none.
        """
        order = (self._next - self._count + torch.arange(self._count)) % self.capacity
        starts = self._fields["active"][order[: self._count - length + 1]].nonzero()
        drawn = starts[torch.randint(len(starts), (count,), generator=self._generator)]
        steps = order[drawn[:, :1] + torch.arange(length)]
        agents = drawn[:, 1:].expand_as(steps)
        fields = {name: stored[steps, agents] for name, stored in self._fields.items()}
        elsewhere = fields.pop("begins") | ~fields.pop("active")
        elsewhere[:, 0] = False
        mask = elsewhere.cumsum(dim=1) == 0
        return {name: field.to(device) for name, field in fields.items()}, mask.to(device)
