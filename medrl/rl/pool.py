"""What training draws from: sources in turn, and pools of what is costly to make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Generator

T = TypeVar("T")


class Shuffle:
    """The numbers below N over and over, each time round in a new order."""

    def __init__(self, count: int, *, generator: Generator) -> None:
        """Begin.

        Args:
            count: N.
            generator: Source of the orders.
        """
        self._count = count
        self._generator = generator
        self._left: list[int] = []

    def draw(self) -> int:
        """The next one."""
        if not self._left:
            self._left = torch.randperm(self._count, generator=self._generator).tolist()
        return self._left.pop()

    def state_dict(self) -> dict[str, Any]:
        """What is left of this round; the generator is its owner's."""
        return {"count": self._count, "left": list(self._left)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave.

        Raises:
            ValueError: If it is of other data.
        """
        if state["count"] != self._count:
            raise ValueError(f"a state of {state['count']} samples, not {self._count}")
        self._left = list(state["left"])


class Pool(Generic[T]):
    """Some items at a time, each made of a source and a seed, the oldest replaced by new ones.

    Items are made when they are first looked at, and its state is what they are made of, not the
    items: an augmented scan, a synthetic pair.
    """

    def __init__(
        self,
        make: Callable[[int, Generator], T],
        *,
        size: int,
        sources: int,
        generator: Generator,
    ) -> None:
        """Choose the first items.

        Args:
            make: Makes an item of a source's number, by a generator of its own.
            size: Items at hand at a time.
            sources: How many sources there are; they take turns.
            generator: Source of the choices.
        """
        self._make = make
        self._generator = generator
        self._shuffle = Shuffle(sources, generator=generator)
        self._origins = [self._choose() for _ in range(size)]
        self._items: list[T | None] = [None] * size
        self._renewed = 0

    def __len__(self) -> int:
        """Items at hand."""
        return len(self._items)

    def __getitem__(self, slot: int) -> T:
        """An item; made if it is looked at for the first time."""
        item = self._items[slot]
        if item is None:
            source, seed = self._origins[slot]
            item = self._items[slot] = self._make(source, Generator().manual_seed(seed))
        return item

    def renew(self, count: int = 1) -> list[int]:
        """Replace the oldest items; returns their slots."""
        slots = [(self._renewed + n) % len(self) for n in range(count)]
        for slot in slots:
            self._origins[slot], self._items[slot] = self._choose(), None
        self._renewed += count
        return slots

    def version(self, slot: int) -> int:
        """How many items a slot has held before this one."""
        return (self._renewed - slot + len(self) - 1) // len(self)

    def state_dict(self) -> dict[str, Any]:
        """What the items are made of; the generator is its owner's."""
        return {
            "origins": list(self._origins),
            "renewed": self._renewed,
            "shuffle": self._shuffle.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave.

        Raises:
            ValueError: If it is of other data, or of a pool of another size.
        """
        self._shuffle.load_state_dict(state["shuffle"])
        if len(state["origins"]) != len(self):
            raise ValueError(f"a state of {len(state['origins'])} items, not {len(self)}")
        for slot, origin in enumerate(state["origins"]):
            if origin != self._origins[slot]:
                self._origins[slot], self._items[slot] = origin, None
        self._renewed = state["renewed"]

    def _choose(self) -> tuple[int, int]:
        seed = torch.randint(2**62, (), generator=self._generator)
        return self._shuffle.draw(), int(seed)
