"""Trajectories as JSON that a person can read: one line per step."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.trajectory.schema import AgentPath, Trajectory

SCHEMA = "medrl-trajectory"
VERSION = 1

_TOP = {"schema", "version", "task", "space", "units", "provenance", "agents"}
_AGENT = {"name", "start", "outcome", "confidence", "answer_world", "steps"}
_STEP = {"position_world", "scale_mm", "action", "value"}
_OPTIONAL = {"reward", "transform"}
_MOST_ACTIONS = 2**31


def write_trajectory(path: str | os.PathLike[str], trajectory: Trajectory) -> None:
    """Write a trajectory as JSON, whole or not at all.

    Args:
        path: File to write.
        trajectory: What to write; unknown values and rewards (NaN) become null. Numbers are
            written in full, so that reading gives back the same ones.

    Raises:
        MedrlError: If the file cannot be written.
    """
    head = {
        "schema": SCHEMA,
        "version": VERSION,
        "task": trajectory.task,
        "space": "RAS",
        "units": "mm",
        "provenance": {k: _plain(v) for k, v in trajectory.provenance.items()},
    }
    lines = ["{", *(f'"{key}": {_dump(value)},' for key, value in head.items()), '"agents": [']
    for number, agent in enumerate(trajectory.agents):
        lines += _agent_lines(agent)
        lines[-1] += "," if number + 1 < len(trajectory.agents) else ""
    lines += ["]", "}", ""]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def read_trajectory(path: str | os.PathLike[str]) -> Trajectory:
    """Read a trajectory.

    Args:
        path: File written by `write_trajectory`.

    Returns:
        The trajectory.

    Raises:
        MedrlError: If the file is missing, is no trajectory of this version, or breaks its schema.
    """
    file = Path(path)
    if not file.is_file():
        raise MedrlError(f"{file}: no such file")
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise MedrlError(f"{file}: cannot be opened: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise MedrlError(f"{file}: is not a trajectory: not valid JSON ({error})") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise MedrlError(f"{file}: is not a medrl trajectory")
    if content.get("version") != VERSION:
        raise MedrlError(
            f"{file}: is a trajectory of version {content.get('version')!r}; this medrl reads "
            f"version {VERSION}"
        )
    try:
        return _trajectory(content)
    except MedrlError as error:
        raise MedrlError(f"{file}: is not a valid trajectory: {error}") from error


def _plain(value: Any) -> Any:
    """A NumPy number as Python's own, NaN as None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _agent_lines(agent: AgentPath) -> list[str]:
    answer = None if agent.answer_world is None else agent.answer_world.tolist()
    head = {
        "name": agent.name,
        "start": int(agent.start),
        "outcome": agent.outcome,
        "confidence": agent.confidence,
        "answer_world": answer,
    }
    lines = [" {", *(f' "{key}": {_dump(value)},' for key, value in head.items()), ' "steps": [']
    for t in range(len(agent)):
        step = {
            "position_world": agent.positions_world[t].tolist(),
            "scale_mm": float(agent.scales_mm[t]),
            "action": int(agent.actions[t]),
            "value": _plain(agent.values[t]),
        }
        if agent.rewards is not None:
            step["reward"] = _plain(agent.rewards[t])
        if agent.transforms is not None:
            step["transform"] = agent.transforms[t].tolist()
        lines.append(f"  {_dump(step)}{',' if t + 1 < len(agent) else ''}")
    return [*lines, " ]", " }"]


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _trajectory(content: dict[str, Any]) -> Trajectory:
    _check_keys("the file", content, _TOP)
    if content["space"] != "RAS" or content["units"] != "mm":
        raise MedrlError("its space must be RAS and its units mm")
    if not isinstance(content["provenance"], dict):
        raise MedrlError("provenance must be an object")
    if not isinstance(content["agents"], list):
        raise MedrlError("agents must be a list")
    agents = tuple(_agent(number, item) for number, item in enumerate(content["agents"]))
    return Trajectory(content["task"], agents, content["provenance"])


def _agent(number: int, item: Any) -> AgentPath:
    who = f"agent {number}"
    _check_keys(who, item, _AGENT)
    steps = item["steps"]
    if not isinstance(steps, list):
        raise MedrlError(f"{who}: steps must be a list")
    # All steps carry what the first one carries.
    extra = _OPTIONAL & set(steps[0]) if steps and isinstance(steps[0], dict) else set()
    for t, step in enumerate(steps):
        _check_keys(f"{who}, step {t}", step, _STEP | extra)
        action = step["action"]
        if not isinstance(action, int) or isinstance(action, bool) or abs(action) > _MOST_ACTIONS:
            raise MedrlError(f"{who}, step {t}: action must be a whole number")
    count = len(steps)

    def column(key: str, *shape: int, unknown: bool = False) -> Any:
        rows = [_numbers(f"{who}, {key}", step[key], shape, unknown) for step in steps]
        return np.array(rows, dtype=np.float64).reshape(count, *shape)

    answer = item["answer_world"]
    return AgentPath(
        name=item["name"],
        start=item["start"],
        positions_world=column("position_world", 3),
        scales_mm=column("scale_mm"),
        actions=np.array([step["action"] for step in steps], dtype=np.int64),
        values=column("value", unknown=True),
        rewards=column("reward", unknown=True) if "reward" in extra else None,
        outcome=item["outcome"],
        confidence=item["confidence"],
        answer_world=None
        if answer is None
        else np.array(_numbers(f"{who}, answer_world", answer, (3,), False)),
        transforms=column("transform", 4, 4) if "transform" in extra else None,
    )


def _numbers(what: str, value: Any, shape: tuple[int, ...], unknown: bool) -> Any:
    """A number, or nested lists of the shape; null is NaN where that is allowed."""
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            raise MedrlError(f"{what} must be a list of {shape[0]}")
        return [_numbers(what, item, shape[1:], unknown) for item in value]
    if value is None and unknown:
        return math.nan
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise MedrlError(f"{what} must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise MedrlError(f"{what} is too large") from error


def _check_keys(who: str, item: Any, wanted: set[str]) -> None:
    if not isinstance(item, dict):
        raise MedrlError(f"{who} must be an object")
    if missing := sorted(wanted - set(item)):
        raise MedrlError(f"{who} lacks {', '.join(missing)}")
    if unknown := sorted(set(item) - wanted):
        raise MedrlError(f"{who} has unknown entries: {', '.join(unknown)}")
