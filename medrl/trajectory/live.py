"""Agents while they walk: what they did at one moment, and the record that it adds up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrl.trajectory.schema import COLUMNS, AgentPath, Floats, Provenance, Trajectory


@dataclass(frozen=True, eq=False)
class Step:
    """What the agents that moved at one moment did; R of them.

    Attributes:
        names: What each looks for, R of them.
        starts: Number of each one's starting point (R,).

    All others are as in :class:`AgentPath`, with a row for each agent instead of each step, or
    None where nothing is known.
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
        columns = {name: values[index] for name, values in _columns(self).items()}
        return replace(
            self,
            names=tuple(self.names[row] for row in index),
            starts=self.starts[index],
            actions=self.actions[index],
            extras={name: values[index] for name, values in self.extras.items()},
            **columns,
        )


#: Called with every step of a run; what it raises ends the run and comes out of it.
Watch = Callable[[Step], None]


class _Row(NamedTuple):
    """What a step says of one agent; columns and extras that it does not know are not there."""

    actions: NDArray[np.int64]
    columns: dict[str, Any]
    extras: dict[str, Any]
    value_unit: str


class Recording:
    """Collects steps; what it holds so far is a trajectory like any other."""

    def __init__(self) -> None:
        self._agents: dict[tuple[str, int], list[_Row]] = {}

    def add(self, step: Step) -> None:
        """Take down a step."""
        columns = _columns(step)
        for n, name in enumerate(step.names):
            row = _Row(
                step.actions[n],
                {key: values[n] for key, values in columns.items()},
                {key: values[n] for key, values in step.extras.items()},
                step.value_unit,
            )
            self._agents.setdefault((name, int(step.starts[n])), []).append(row)

    def trajectory(self, task: str = "live", provenance: Provenance | None = None) -> Trajectory:
        """The record so far, agents in the order in which they were first seen.

        Where a step of an agent says less than another, actions are -1, rewards and extras NaN.

        Args:
            task: The system that runs.
            provenance: What makes it.
        """
        paths = []
        for (name, start), rows in self._agents.items():
            actions = np.full((len(rows), max(len(row.actions) for row in rows)), -1)
            for t, row in enumerate(rows):
                actions[t, : len(row.actions)] = row.actions
            columns: dict[str, Any] = _stacked([row.columns for row in rows])
            extras, unit = _stacked([row.extras for row in rows]), rows[0].value_unit
            path = AgentPath(
                name, start, actions=actions, extras=extras, value_unit=unit, **columns
            )
            paths.append(path)
        return Trajectory(task, tuple(paths), provenance or {})


def _columns(step: Step) -> dict[str, Any]:
    """Columns of numbers that a step knows."""
    known = {column.name: getattr(step, column.name) for column in COLUMNS}
    return {name: values for name, values in known.items() if values is not None}


def _stacked(rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Rows as columns; NaN where a row lacks what another has."""
    columns = {}
    for name in {name: None for row in rows for name in row}:
        shape = next(np.shape(row[name]) for row in rows if name in row)
        unknown = np.full(shape, np.nan)
        columns[name] = np.array([row.get(name, unknown) for row in rows])
    return columns
