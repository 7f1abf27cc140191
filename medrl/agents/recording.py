"""From what agents did to the record that every agent leaves, and to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.agents.dynamics import Dynamics
from medrl.agents.rollout import Transition
from medrl.trajectory import Recording, Step, Trajectory, Watch


class Recorder:
    """Takes down what the agents of a rollout do; give it to :func:`rollout` as ``on_step``.

    A row of the record is where an agent stood, and what it did then. Continuous actions are kept
    among the extras, under ``action``.

    Attributes:
        recording: What was taken down.
    """

    def __init__(
        self,
        dynamics: Dynamics[Any],
        names: Sequence[str],
        *,
        starts: Sequence[int] | None = None,
        value: Callable[[Transition[Any]], Tensor] | None = None,
        value_unit: str = "",
        watch: Watch | None = None,
    ) -> None:
        """Begin with nothing.

        Args:
            dynamics: Says where agents are.
            names: What each of the N agents is called.
            starts: Number of each one's starting point; 0 for all if left out.
            value: From a transition to the values (R,) that are written down, such as in mm; the
                policy's own if left out.
            value_unit: Of the values.
            watch: Told of every step as well; what it raises ends the rollout.
        """
        self.recording = Recording()
        self._dynamics = dynamics
        self._names = list(names)
        self._starts = np.zeros(len(names), dtype=np.int64) if starts is None else np.array(starts)
        self._value = value
        self._unit = value_unit
        self._watch = watch
        self._began = time.perf_counter()

    def __call__(self, transition: Transition[Any]) -> None:
        """Take down a step."""
        decision = transition.decision
        value = decision.value if self._value is None else self._value(transition)
        self._add(transition.rows, transition.before, decision.action, value, transition.reward)

    def end(self, state: Any, value: Tensor | None = None, rows: Tensor | None = None) -> None:
        """Take down where agents are at the end, without an action.

        Args:
            state: N agents.
            value: (N,) what they think of it.
            rows: (R,) which of them; all if left out.
        """
        chosen = torch.arange(len(state), device=state.device) if rows is None else rows
        own = None if value is None else value[chosen]
        self._add(chosen, state.select(chosen), None, own, None)

    def trajectory(self, task: str, provenance: Mapping[str, str | int | float]) -> Trajectory:
        """The record, of a task, made by what the provenance says."""
        return self.recording.trajectory(task, provenance)

    def _add(
        self,
        rows: Tensor,
        state: Any,
        action: Tensor | None,
        value: Tensor | None,
        reward: Tensor | None,
    ) -> None:
        places = self._dynamics.places(state)
        count = len(rows)
        index = rows.cpu().numpy()
        extras = {name: _numpy(field) for name, field in (places.extras or {}).items()}
        actions = np.full((count, 1), -1, dtype=np.int64)
        if action is not None and action.is_floating_point():
            extras["action"] = _numpy(action)
        elif action is not None:
            actions = np.array(action.numpy(force=True), dtype=np.int64).reshape(count, -1)
        step = Step(
            names=tuple(self._names[row] for row in index),
            starts=self._starts[index],
            positions_world=_numpy(places.position_world),
            scales_mm=_numpy(places.scale_mm),
            actions=actions,
            values=np.full(count, np.nan) if value is None else _numpy(value),
            times=np.full(count, time.perf_counter() - self._began),
            transforms=_or_none(places.transform_world),
            boxes_world=_or_none(places.box_world),
            rewards=_or_none(reward),
            extras=extras,
            value_unit=self._unit,
        )
        self.recording.add(step)
        if self._watch is not None:
            self._watch(step)


def _numpy(values: Tensor) -> NDArray[np.float64]:
    """A copy, which a watcher may keep or change."""
    return np.array(values.numpy(force=True), dtype=np.float64)


def _or_none(values: Tensor | None) -> NDArray[np.float64] | None:
    return None if values is None else _numpy(values)
