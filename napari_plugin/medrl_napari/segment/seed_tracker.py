"""All seeds there are: those that the session holds, those on their way, those it failed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medrl.seednet.seeds import Seed
from medrl_napari.segment.operations import same_seed
from medrl_napari.segment.session_state import State
from medrl_napari.segment.session_thread import Operation
from medrl_napari.segment.store import KeptObject


class SeedTracker:
    """Sees to it that no seed is lost between the user's hand and the session.

    Attributes:
        state: What the session said last; None before it said anything.
        pending: Names of objects and seeds that the session has not answered to yet.
        unplaced: Likewise, seeds that something failed on; they go with the next of their object.
    """

    def __init__(self) -> None:
        """No seeds yet."""
        self.state: State | None = None
        self.pending: list[tuple[str, Seed]] = []
        self.unplaced: list[tuple[str, Seed]] = []

    @property
    def current(self) -> str:
        """Name of the object that is worked on; empty before the first."""
        return self.state.current if self.state is not None else ""

    @property
    def outside(self) -> list[tuple[str, Seed]]:
        """Seeds that the session does not hold."""
        return [*self.pending, *self.unplaced]

    @property
    def held(self) -> list[Seed]:
        """Seeds that the session holds."""
        objects = self.state.objects if self.state is not None else ()
        return [seed for one in objects for seed in one.seeds]

    @property
    def begun(self) -> bool:
        """Whether the current object has a foreground seed."""
        objects = self.state.objects if self.state is not None else ()
        return any(seed.label for o in objects if o.name == self.current for seed in o.seeds)

    def objects(self, *, target: str) -> tuple[KeptObject, ...]:
        """All seeds, by their objects.

        Args:
            target: Kind of those objects that the session does not know.
        """
        kept: dict[str, KeptObject] = {}
        for one in self.state.objects if self.state is not None else ():
            kept[one.name] = KeptObject(one.name, one.target, one.seeds)
        for name, seed in self.outside:
            old = kept.get(name, KeptObject(name, target, ()))
            kept[name] = replace(old, seeds=(*old.seeds, seed))
        return tuple(kept.values())

    def take_unplaced(self) -> list[Seed]:
        """Those of the current object, to be tried once more."""
        name = self.current
        again = [seed for own, seed in self.unplaced if own == name]
        self.unplaced = [(own, seed) for own, seed in self.unplaced if own != name]
        return again

    def forget(self, seeds: Sequence[Seed]) -> None:
        """The user wants these no more."""
        gone = {id(seed) for seed in seeds}
        self.unplaced = [(name, seed) for name, seed in self.unplaced if id(seed) not in gone]

    def done(self, operation: Operation, state: State) -> None:
        """The session holds what an operation placed."""
        self._settle(operation)
        self.state = state

    def refused(self, operation: Operation, state: State) -> None:
        """The session refused it: only the seed that was wrong goes."""
        names = {id(seed): name for name, seed in self.pending}
        self._settle(operation)
        self.state = state
        for seed in operation.keep:
            if not any(same_seed(seed, other) for other in self.held):
                self.unplaced.append((names.get(id(seed), state.current), seed))

    def failed(self, operation: Operation | None) -> None:
        """Something failed on it; None: there is no session, on everything."""
        gone = None if operation is None else {id(seed) for seed in operation.seeds}
        self.unplaced += [(n, s) for n, s in self.pending if gone is None or id(s) in gone]
        self.pending = [(n, s) for n, s in self.pending if gone is not None and id(s) not in gone]

    def _settle(self, operation: Operation) -> None:
        settled = {id(seed) for seed in operation.seeds}
        self.pending = [(name, seed) for name, seed in self.pending if id(seed) not in settled]
