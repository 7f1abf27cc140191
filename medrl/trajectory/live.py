"""Agents while they walk: what they did at one moment, and the record that it adds up to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrl.trajectory.schema import COLUMNS, AgentPath, Floats, Provenance, Trajectory


@dataclass(frozen=True, eq=False)
class Step:
    """What the agents that moved at one moment did; R of them. World coordinates are RAS mm.

    Attributes:
        names: What each looks for, R of them.
        starts: Number of each one's starting point (R,).
        positions_world: Where they stood (R, 3).
        scales_mm: Voxel size they looked at, in mm (R,).
        actions: What they did next, P things at a time (R, P), or of one thing (R,); -1 for
            nothing.
        values: Their estimate of the value of that (R,); NaN where unknown.
        times: Seconds since the start of the run (R,), or None.
        rewards: What they got for it (R,), or None.
        transforms: For agents that move a scan, the 4x4 world transforms (R, 4, 4), or None.
        boxes_world: For agents that box something, two opposite corners (R, 2, 3), or None.
        extras: Further numbers by name (R, ...).
        value_unit: Unit of the values.
    """

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    positions_world: Floats
    scales_mm: Floats
    actions: NDArray[np.int64]
    values: Floats
    times: Floats | None = None
    rewards: Floats | None = None
    transforms: Floats | None = None
    boxes_world: Floats | None = None
    extras: Mapping[str, Floats] = field(default_factory=dict)
    value_unit: str = ""

    def __post_init__(self) -> None:
        if self.actions.ndim == 1:
            object.__setattr__(self, "actions", self.actions[:, None])

    def select(self, rows: ArrayLike) -> Step:
        """The agents of some rows: a mask (R,), or indices."""
        index = np.arange(len(self.names))[np.asarray(rows)]
        columns = {name: value[index] for name, value in _columns(self).items()}
        return replace(
            self,
            names=tuple(self.names[row] for row in index),
            starts=self.starts[index],
            extras={name: value[index] for name, value in self.extras.items()},
            **columns,
        )


#: Called with every step of a run; what it raises ends the run and comes out of it.
Watch = Callable[[Step], None]


@dataclass
class _Agent:
    """Rows of one agent so far, by column and by name of extra."""

    value_unit: str
    columns: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    extras: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))


class Recording:
    """Collects steps; what it holds so far is a trajectory like any other."""

    def __init__(self) -> None:
        self._agents: dict[tuple[str, int], _Agent] = {}

    def add(self, step: Step) -> None:
        """Take down a step; all steps of an agent know the same of it."""
        columns = _columns(step)
        for row, name in enumerate(step.names):
            key = name, int(step.starts[row])
            agent = self._agents.setdefault(key, _Agent(step.value_unit))
            for held, new in ((agent.columns, columns), (agent.extras, step.extras)):
                for column, values in new.items():
                    held[column].append(values[row])

    def trajectory(self, task: str = "live", provenance: Provenance | None = None) -> Trajectory:
        """The record so far, agents in the order in which they were first seen.

        Args:
            task: The system that runs.
            provenance: What makes it.
        """
        paths = []
        for (name, start), agent in self._agents.items():
            columns: dict[str, Any] = {key: np.array(rows) for key, rows in agent.columns.items()}
            extras = {key: np.array(rows) for key, rows in agent.extras.items()}
            paths.append(
                AgentPath(name, start, extras=extras, value_unit=agent.value_unit, **columns)
            )
        return Trajectory(task, tuple(paths), provenance or {})


def _columns(step: Step) -> dict[str, NDArray[Any]]:
    """What a step knows of each row."""
    names = ["actions", *(column.name for column in COLUMNS)]
    return {name: getattr(step, name) for name in names if getattr(step, name) is not None}
