"""What a trajectory holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AgentPath:
    """One agent's way, T steps. World coordinates are RAS mm.

    Attributes:
        name: What the agent looked for, such as a landmark.
        start: Number of its starting point, where an agent is started several times.
        positions_world: Where it was at each step (T, 3).
        scales_mm: Voxel size it looked at, in mm (T,).
        actions: What it did next (T,); -1 for nothing. Of landmark agents 0 to 5 are steps along
            +x, -x, +y, -y, +z, -z; of seed agents 0 is a background seed at that position, 1 a
            foreground one.
        values: Its estimate of the value of that action (T,); NaN where unknown.
        rewards: Reward of each step (T,), NaN where unknown, or None.
        outcome: How it ended.
        confidence: Probability that its answer is right, 0 to 1, or None.
        answer_world: Its answer (3,), or None.
        transforms: For agents that move a scan, the 4x4 world transform at each step (T, 4, 4),
            or None.

    Raises:
        MedrlError: If the shapes disagree or a number is out of range.
    """

    name: str
    start: int
    positions_world: Floats
    scales_mm: Floats
    actions: NDArray[np.int64]
    values: Floats
    rewards: Floats | None = None
    outcome: str = ""
    confidence: float | None = None
    answer_world: Floats | None = None
    transforms: Floats | None = None

    def __post_init__(self) -> None:
        """Check shapes and ranges; bring arrays to one type."""
        who = f"agent {self.name!r}"
        if not isinstance(self.name, str) or not isinstance(self.outcome, str):
            raise MedrlError(f"{who}: its name and outcome must be text")
        if not _is_int(self.start) or self.start < 0:
            raise MedrlError(f"{who}: start must be a whole number from 0")
        steps = len(np.atleast_1d(np.asarray(self.positions_world)))
        shapes = {
            "positions_world": (steps, 3),
            "scales_mm": (steps,),
            "values": (steps,),
            "rewards": (steps,),
            "transforms": (steps, 4, 4),
            "answer_world": (3,),
        }
        for key, shape in shapes.items():
            value = getattr(self, key)
            if value is None and key in ("rewards", "transforms", "answer_world"):
                continue
            unknown = key in ("values", "rewards")
            object.__setattr__(self, key, _floats(f"{who}: {key}", value, shape, unknown=unknown))
        if not (self.scales_mm > 0).all():
            raise MedrlError(f"{who}: scales_mm must be positive")
        actions = np.asarray(self.actions)
        if actions.shape != (steps,) or (steps and actions.dtype.kind not in "iu"):
            raise MedrlError(f"{who}: actions must be {steps} whole numbers")
        object.__setattr__(self, "actions", actions.astype(np.int64))
        if (self.actions < -1).any():
            raise MedrlError(f"{who}: actions must be -1 or more")
        if self.confidence is not None:
            # A comparison with NaN is false, so NaN is refused as well.
            if not _is_number(self.confidence) or not 0 <= self.confidence <= 1:
                raise MedrlError(f"{who}: confidence must lie between 0 and 1")
            object.__setattr__(self, "confidence", float(self.confidence))

    def __len__(self) -> int:
        return len(self.positions_world)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What all agents of one run on one scan did.

    Attributes:
        task: The system that ran, such as "landmark".
        agents: One path per agent.
        provenance: What made it: scan, model, version, seed and the like.

    Raises:
        MedrlError: If a provenance value is neither text nor a finite number.
    """

    task: str
    agents: tuple[AgentPath, ...]
    provenance: dict[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the types."""
        if not isinstance(self.task, str) or not self.task:
            raise MedrlError("a trajectory needs a task")
        object.__setattr__(self, "agents", tuple(self.agents))
        if not all(isinstance(agent, AgentPath) for agent in self.agents):
            raise MedrlError("a trajectory's agents must be AgentPath objects")
        for key, value in self.provenance.items():
            finite = isinstance(value, float | np.floating) and math.isfinite(value)
            good = isinstance(value, str) or _is_int(value) or finite
            if not isinstance(key, str) or not good:
                raise MedrlError(f"provenance {key!r} must be text or a finite number")


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float | np.floating)


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
