"""The objects of a session: what has been done to each, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.seednet.dynamics import SeedDynamics
from medrl.seednet.editor import ObjectState
from medrl.seednet.output_grid import OutputGrid
from medrl.trajectory import AgentPath
from medrl.walker.segmenter import FOREGROUND

#: Memory that the steps to undo may take before the oldest are forgotten, in bytes.
_MOST_MEMORY = 2**30
_MOST_OBJECTS = 255


@dataclass(eq=False)
class History:
    """What has been done to one object.

    Attributes:
        obj: Where it stands.
        past: Earlier states, the last one last.
        future: States that were undone, the next one last.
        locked: Whether it is protected from changes.
    """

    obj: ObjectState
    past: list[ObjectState] = field(default_factory=list)
    future: list[ObjectState] = field(default_factory=list)
    locked: bool = False

    @property
    def outcome(self) -> str:
        """How the agent's work stands, in words."""
        state = self.obj.state
        return (
            "no foreground seed yet"
            if state is None
            else SeedDynamics.outcomes[int(state.status[0])]
        )

    def advance(self, obj: ObjectState) -> None:
        """Make another state the current one."""
        if obj is self.obj:
            return
        self.past.append(self.obj)
        self.obj = obj
        self.future.clear()
        while len(self.past) > 1 and sum(past.bytes for past in self.past) > _MOST_MEMORY:
            self.past.pop(0)

    def undo(self) -> None:
        """Go back to the state before.

        Raises:
            MedrlError: If there is none.
        """
        if not self.past:
            raise MedrlError("there is nothing to undo")
        self.future.append(self.obj)
        self.obj = self.past.pop()

    def redo(self) -> None:
        """Go to the state that was undone last.

        Raises:
            MedrlError: If there is none.
        """
        if not self.future:
            raise MedrlError("there is nothing to redo")
        self.past.append(self.obj)
        self.obj = self.future.pop()


def label_map(
    objects: Mapping[str, History], output_grid: OutputGrid, grid: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """All objects in one map.

    Where they overlap, a locked one comes first, then one whose seed is there, then the later one.

    Args:
        objects: By name.
        output_grid: The grid of the map.
        grid: (4, 4), the model's voxel to world.

    Returns:
        (I, J, K), 0 and the objects' numbers from 1 in their order.

    Raises:
        MedrlError: If none has a foreground seed, or there are too many for the type.
    """
    if len(objects) > _MOST_OBJECTS:
        raise MedrlError(f"a label map holds at most {_MOST_OBJECTS} objects")
    begun = [
        (number, history)
        for number, history in enumerate(objects.values(), 1)
        if history.obj.state is not None
    ]
    if not begun:
        raise MedrlError("place a foreground seed first")
    out = np.zeros(output_grid.shape, dtype=np.uint8)
    for locked in (False, True):
        group = [(number, history.obj) for number, history in begun if history.locked == locked]
        for number, obj in group:
            where, values = output_grid.part(obj, grid)
            out[where][values > 0.5] = number
        for number, obj in group:
            for seed in obj.seeds:
                if seed.label == FOREGROUND:
                    out[tuple(output_grid.voxels(seed).T)] = number
    return out


def agent_path(name: str, history: History, spacing: float) -> AgentPath:
    """An object's agent: a step for every seed that was accepted.

    Args:
        name: Of the object.
        history: What has been done to it.
        spacing: The model's voxel size, mm.
    """
    placed = history.obj.placed
    return AgentPath(
        name=name,
        start=0,
        positions_world=np.array([seed.position_world for seed in placed]).reshape(-1, 3),
        scales_mm=np.full(len(placed), spacing),
        actions=np.array([seed.label for seed in placed], dtype=np.int64),
        values=np.array([seed.expected_gain for seed in placed], dtype=np.float64),
        value_unit="Dice",
        outcome=history.outcome,
    )
