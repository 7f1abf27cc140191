"""The objects of a session: what the user wants of each, how it is segmented, and its history."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.seednet.dynamics import SeedDynamics, SeedState
from medrl.seednet.seeds import Seed
from medrl.seednet.windows import Box, Voxels
from medrl.trajectory import AgentPath

#: Memory that the steps to undo may take before the oldest are forgotten, in bytes.
_MOST_MEMORY = 2**30


@dataclass(frozen=True, eq=False)
class Edit:
    """Voxels of the scan that the user has painted over.

    Attributes:
        voxels: (V, 3), of the scan.
        points_world: (V, 3) RAS mm, their centres.
        label: BACKGROUND or FOREGROUND.
    """

    voxels: Voxels
    points_world: NDArray[np.float64]
    label: int


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is wanted of an object; all there is before its first foreground seed.

    Attributes:
        target: Which of the model's kinds of object it is.
        seeds: The user's, in the order placed.
        edits: Of the mask, in the order made.
        limits_world: (2, 3) RAS mm, two corners of a box that the object lies in; None for none.
        placed: The agent's seeds that were accepted.
        rejected: The agent's proposals that were not.
    """

    target: int
    seeds: tuple[Seed, ...] = ()
    edits: tuple[Edit, ...] = ()
    limits_world: NDArray[np.float64] | None = None
    placed: tuple[Seed, ...] = ()
    rejected: tuple[Seed, ...] = ()

    @property
    def marks(self) -> list[Seed | Edit]:
        """The user's edits and seeds; where two meet, the later in this list counts."""
        return [*self.edits, *self.seeds]


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmented(Inputs):
    """An object that has been segmented.

    Attributes:
        box: The window on the model's grid.
        corner: Grid voxel of the window's first voxel, padding included.
        prior: (1, I, J, K), what the network sees from the user's seeds.
        state: Seeds and segmentation.
    """

    box: Box
    corner: Voxels
    prior: Tensor
    state: SeedState


@dataclass(eq=False)
class History:
    """What has been done to one object.

    Attributes:
        obj: How it is now.
        past: How it was before, the latest last.
        future: What was undone, the next to be redone last.
        locked: Whether it is protected from changes.
    """

    obj: Inputs
    past: list[Inputs] = field(default_factory=list)
    future: list[Inputs] = field(default_factory=list)
    locked: bool = False

    @property
    def outcome(self) -> str:
        """What the agent is doing or how it ended, in words."""
        if isinstance(self.obj, Segmented):
            return SeedDynamics.outcomes[int(self.obj.state.status[0])]
        return "no foreground seed yet"

    def advance(self, obj: Inputs) -> None:
        """Make another state of the object the current one."""
        if obj is self.obj:
            return
        self.past.append(self.obj)
        self.obj = obj
        self.future.clear()
        while len(self.past) > 1 and sum(map(_bytes, self.past)) > _MOST_MEMORY:
            self.past.pop(0)

    def undo(self) -> None:
        """Go back to the state before, if there is one."""
        self._go(self.past, self.future, "undo")

    def redo(self) -> None:
        """Go to the state that was undone last, if there is one."""
        self._go(self.future, self.past, "redo")

    def _go(self, source: list[Inputs], target: list[Inputs], what: str) -> None:
        if not source:
            raise MedrlError(f"there is nothing to {what}")
        target.append(self.obj)
        self.obj = source.pop()

    def path(self, name: str, spacing: float) -> AgentPath:
        """The agent's seeds that were accepted, a step each; spacing is the model's, mm."""
        placed = self.obj.placed
        return AgentPath(
            name=name,
            start=0,
            positions_world=np.array([seed.position_world for seed in placed]).reshape(-1, 3),
            scales_mm=np.full(len(placed), spacing),
            actions=np.array([seed.label for seed in placed], dtype=np.int64),
            values=np.array([seed.expected_gain for seed in placed], dtype=np.float64),
            value_unit="Dice",
            outcome=self.outcome,
        )


def _bytes(obj: Inputs) -> int:
    """Memory that an object takes, roughly."""
    return 12 * obj.state.seeds.numel() if isinstance(obj, Segmented) else 0
