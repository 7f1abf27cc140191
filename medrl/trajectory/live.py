"""Agents while they walk: what they did at one moment, and the record that it adds up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medrl.trajectory.schema import AgentPath, Floats, Trajectory


@dataclass(frozen=True, eq=False)
class Step:
    """What the agents that moved at one moment did; R of them. World coordinates are RAS mm.

    Attributes:
        names: What each looks for, R of them.
        starts: Number of each one's starting point (R,).
        positions_world: Where they stood (R, 3).
        scales_mm: Voxel size they looked at, in mm (R,).
        actions: What they did next (R,); -1 for nothing.
        values: Their estimate of the value of that (R,); NaN where unknown.
        transforms: For agents that move a scan, the 4x4 world transforms (R, 4, 4), or None.
    """

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    positions_world: Floats
    scales_mm: Floats
    actions: NDArray[np.int64]
    values: Floats
    transforms: Floats | None = None


#: Called with every step of a run; what it raises ends the run and comes out of it.
Watch = Callable[[Step], None]


@dataclass
class _Agent:
    """Rows of one agent so far."""

    positions: list[Floats] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    transforms: list[Floats] = field(default_factory=list)


class Recording:
    """Collects steps; what it holds so far is a trajectory like any other."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._agents: dict[tuple[str, int], _Agent] = {}

    def add(self, step: Step) -> None:
        """Take down a step."""
        for row, name in enumerate(step.names):
            agent = self._agents.setdefault((name, int(step.starts[row])), _Agent())
            agent.positions.append(step.positions_world[row])
            agent.scales.append(float(step.scales_mm[row]))
            agent.actions.append(int(step.actions[row]))
            agent.values.append(float(step.values[row]))
            if step.transforms is not None:
                agent.transforms.append(step.transforms[row])

    def trajectory(
        self, task: str = "live", provenance: Mapping[str, str | int | float] | None = None
    ) -> Trajectory:
        """The record so far, agents in the order in which they were first seen.

        Args:
            task: The system that runs.
            provenance: What makes it.
        """
        paths = [
            AgentPath(
                name=name,
                start=start,
                positions_world=np.array(agent.positions),
                scales_mm=np.array(agent.scales),
                actions=np.array(agent.actions, dtype=np.int64),
                values=np.array(agent.values),
                transforms=np.array(agent.transforms) if agent.transforms else None,
            )
            for (name, start), agent in self._agents.items()
        ]
        return Trajectory(task, tuple(paths), dict(provenance or {}))
