"""What a trajectory holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError

Floats = NDArray[np.float64]
Provenance = Mapping[str, str | int | float]

#: What every provenance tells, and what stands there where it is unknown.
UNKNOWN_PROVENANCE: dict[str, str | int | float] = {
    "scan": "",
    "model": "",
    "version": "",
    "seed": 0,
}


class Column(NamedTuple):
    """What is known of each step under one name.

    Attributes:
        name: Attribute of `AgentPath` and of `Step`.
        key: Of one step in a file.
        shape: Of one step.
        unknown: Whether it may be NaN.
        optional: Whether it may be left out.
    """

    name: str
    key: str
    shape: tuple[int, ...] = ()
    unknown: bool = False
    optional: bool = False


#: Columns of numbers; actions, which are whole, and extras, which have any shape, are not here.
COLUMNS = (
    Column("times", "time_s", unknown=True),
    Column("positions_world", "position_world", (3,)),
    Column("scales_mm", "scale_mm"),
    Column("values", "value", unknown=True),
    Column("rewards", "reward", unknown=True, optional=True),
    Column("transforms", "transform", (4, 4), optional=True),
    Column("boxes_world", "box_world", (2, 3), optional=True),
)


@dataclass(frozen=True, eq=False)
class AgentPath:
    """One agent's way, T steps. World coordinates are RAS mm.

    Attributes:
        name: What the agent looked for, such as a landmark.
        start: Number of its starting point, where an agent is started several times.
        positions_world: Where it was at each step (T, 3).
        scales_mm: Voxel size it looked at, in mm (T,).
        actions: What it did next, P things at a time (T, P); -1 for nothing; of one thing (T,) will
            do. Of landmark agents 0 to 5 are steps along +x, -x, +y, -y, +z, -z; of seed agents 0
            is a background seed at that position, 1 a foreground one.
        values: Its estimate of the value of that action (T,); NaN where unknown.
        times: Seconds since the start of the run (T,); NaN where unknown.
        rewards: Reward of each step (T,), NaN where unknown, or None.
        transforms: For agents that move a scan, the 4x4 world transform at each step (T, 4, 4),
            or None.
        boxes_world: For agents that box something, two opposite corners at each step (T, 2, 3),
            or None.
        extras: Further numbers of each step by name (T, ...), NaN where unknown.
        value_unit: Unit of the values, such as "mm", "Dice" or "steps"; empty if there is none.
        outcome: How it ended.
        confidence: Probability that its answer is right, 0 to 1, or None.
        answer_world: Its answer (3,), or None.

    Raises:
        MedrlError: If the shapes disagree or a number is out of range.
    """

    name: str
    start: int
    positions_world: Floats
    scales_mm: Floats
    actions: NDArray[np.int64]
    values: Floats
    times: Floats = None  # type: ignore[assignment]  # NaN, once the number of steps is known
    rewards: Floats | None = None
    transforms: Floats | None = None
    boxes_world: Floats | None = None
    extras: Mapping[str, Floats] = field(default_factory=dict)
    value_unit: str = ""
    outcome: str = ""
    confidence: float | None = None
    answer_world: Floats | None = None

    def __post_init__(self) -> None:
        """Check shapes and ranges; bring arrays to one type."""
        who = f"agent {self.name!r}"
        if not all(isinstance(text, str) for text in (self.name, self.outcome, self.value_unit)):
            raise MedrlError(f"{who}: its name, outcome and value_unit must be text")
        if not _is_int(self.start) or self.start < 0:
            raise MedrlError(f"{who}: start must be a whole number from 0")
        steps = len(np.atleast_1d(np.asarray(self.positions_world)))
        if self.times is None:
            self._set("times", np.full(steps, np.nan))
        for name, _, shape, unknown, optional in COLUMNS:
            value = getattr(self, name)
            if value is not None or not optional:
                what = f"{who}: {name}"
                self._set(name, _floats(what, value, (steps, *shape), unknown=unknown))
        if not (self.scales_mm > 0).all():
            raise MedrlError(f"{who}: scales_mm must be positive")
        self._set("actions", _actions(who, self.actions, steps))
        self._set("extras", {k: _extra(who, k, v, steps) for k, v in self.extras.items()})
        if self.answer_world is not None:
            answer = _floats(f"{who}: answer_world", self.answer_world, (3,), unknown=False)
            self._set("answer_world", answer)
        if self.confidence is not None:
            # A comparison with NaN is false, so NaN is refused as well.
            if not _is_number(self.confidence) or not 0 <= self.confidence <= 1:
                raise MedrlError(f"{who}: confidence must lie between 0 and 1")
            self._set("confidence", float(self.confidence))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.positions_world)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What all agents of one run on one scan did.

    Attributes:
        task: The system that ran, such as "landmark".
        agents: One path per agent.
        provenance: What made it: scan, model, version (of medrl) and seed, which are empty or 0
            where they are not given, and whatever else is worth knowing.

    Raises:
        MedrlError: If a provenance value is neither text nor a finite number.
    """

    task: str
    agents: tuple[AgentPath, ...]
    provenance: Provenance = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the types."""
        if not isinstance(self.task, str) or not self.task:
            raise MedrlError("a trajectory needs a task")
        object.__setattr__(self, "agents", tuple(self.agents))
        if not all(isinstance(agent, AgentPath) for agent in self.agents):
            raise MedrlError("a trajectory's agents must be AgentPath objects")
        object.__setattr__(self, "provenance", {**UNKNOWN_PROVENANCE, **self.provenance})
        for key, value in self.provenance.items():
            finite = isinstance(value, float | np.floating) and math.isfinite(value)
            good = isinstance(value, str) or _is_int(value) or finite
            if not isinstance(key, str) or not good:
                raise MedrlError(f"provenance {key!r} must be text or a finite number")


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float | np.floating)


def _actions(who: str, value: Any, steps: int) -> NDArray[np.int64]:
    """Actions (T, P) of one type, also if there is one a step and they come as (T,)."""
    actions = np.asarray(value)
    actions = actions[:, None] if actions.ndim == 1 else actions
    if actions.ndim != 2 or len(actions) != steps or not actions.shape[1]:
        raise MedrlError(f"{who}: actions must have shape ({steps}, number of actions)")
    if steps and actions.dtype.kind not in "iu":
        raise MedrlError(f"{who}: actions must be whole numbers")
    if (actions < -1).any():
        raise MedrlError(f"{who}: actions must be -1 or more")
    return actions.astype(np.int64)


def _extra(who: str, name: object, value: Any, steps: int) -> Floats:
    if not isinstance(name, str):
        raise MedrlError(f"{who}: names of extras must be text")
    shape = (steps, *np.shape(value)[1:])
    if 0 in shape[1:]:
        raise MedrlError(f"{who}: extra {name!r} holds nothing")
    return _floats(f"{who}: extra {name!r}", value, shape, unknown=True)


def _floats(what: str, value: Any, shape: tuple[int, ...], *, unknown: bool) -> Floats:
    """Check an array's shape, and that it is finite (or, if `unknown`, finite or NaN)."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MedrlError(f"{what} must be numbers") from error
    if array.shape != shape:
        raise MedrlError(f"{what} must have shape {shape}, not {array.shape}")
    bad = np.isinf(array) if unknown else ~np.isfinite(array)
    if bad.any():
        raise MedrlError(f"{what} must be finite")
    return array
