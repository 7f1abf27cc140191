"""Trajectories as JSON that a person can read: one line per step."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.trajectory.schema import COLUMNS, UNKNOWN_PROVENANCE, AgentPath, Floats, Trajectory

SCHEMA = "medrl-trajectory"
VERSION = 2
#: Edition with one action a step, and neither times, boxes, extras nor units.
FIRST = 1

_TOP = {"schema", "version", "task", "space", "units", "provenance", "agents"}
_AGENT = {"name", "start", "outcome", "confidence", "answer_world", "steps"}
_OPTIONAL_FIRST = {"reward", "transform"}
_OPTIONAL = {*_OPTIONAL_FIRST, "time_s", "box_world", "extras"}
_MOST_ACTIONS = 2**31
_MOST_DIMENSIONS = 8


def write_trajectory(path: str | os.PathLike[str], trajectory: Trajectory) -> None:
    """Write a trajectory as JSON, whole or not at all.

    Args:
        path: File to write.
        trajectory: What to write; what is unknown (NaN) becomes null, and times of which none is
            known are left out. Numbers are written in full, so that reading gives back the same
            ones.

    Raises:
        MedrlError: If the file cannot be written.
    """
    head = {
        "schema": SCHEMA,
        "version": VERSION,
        "task": trajectory.task,
        "space": "RAS",
        "units": "mm",
        "provenance": {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in trajectory.provenance.items()
        },
    }
    lines = ["{", *(f'"{key}": {_dump(value)},' for key, value in head.items()), '"agents": [']
    for number, agent in enumerate(trajectory.agents):
        lines += _agent_lines(agent)
        lines[-1] += "," if number + 1 < len(trajectory.agents) else ""
    lines += ["]", "}", ""]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def read_trajectory(path: str | os.PathLike[str]) -> Trajectory:
    """Read a trajectory, also one of the first edition.

    Args:
        path: File written by `write_trajectory`.

    Returns:
        The trajectory. Of the first edition each step has one action, and no time is known.

    Raises:
        MedrlError: If the file is missing, is no trajectory of these versions, or breaks their
            schema.
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
    if content.get("version") not in (FIRST, VERSION):
        raise MedrlError(
            f"{file}: is a trajectory of version {content.get('version')!r}; this medrl reads "
            f"versions {FIRST} and {VERSION}"
        )
    try:
        return _trajectory(content, first=content["version"] == FIRST)
    except MedrlError as error:
        raise MedrlError(f"{file}: is not a valid trajectory: {error}") from error


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """An array as nested lists, NaN as None."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _agent_lines(agent: AgentPath) -> list[str]:
    head = {
        "name": agent.name,
        "start": int(agent.start),
        "outcome": agent.outcome,
        "confidence": agent.confidence,
        "answer_world": _plain(agent.answer_world),
        "value_unit": agent.value_unit,
    }
    lines = [" {", *(f' "{key}": {_dump(value)},' for key, value in head.items()), ' "steps": [']
    known = {column.key: getattr(agent, column.name) for column in COLUMNS}
    known = {key: values for key, values in known.items() if values is not None}
    if np.isnan(agent.times).all():
        del known["time_s"]
    known["actions"] = agent.actions
    for t in range(len(agent)):
        step = {key: _plain(values[t]) for key, values in known.items()}
        if agent.extras:
            step["extras"] = {name: _plain(values[t]) for name, values in agent.extras.items()}
        lines.append(f"  {_dump(step)}{',' if t + 1 < len(agent) else ''}")
    return [*lines, " ]", " }"]


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _trajectory(content: dict[str, Any], *, first: bool) -> Trajectory:
    _check_keys("the file", content, _TOP)
    if content["space"] != "RAS" or content["units"] != "mm":
        raise MedrlError("its space must be RAS and its units mm")
    provenance, agents = content["provenance"], content["agents"]
    if not isinstance(provenance, dict):
        raise MedrlError("provenance must be an object")
    if missing := sorted(set(UNKNOWN_PROVENANCE) - set(provenance)) if not first else []:
        raise MedrlError(f"provenance lacks {', '.join(missing)}")
    if not isinstance(agents, list):
        raise MedrlError("agents must be a list")
    paths = tuple(_agent(number, item, first=first) for number, item in enumerate(agents))
    return Trajectory(content["task"], paths, provenance)


def _agent(number: int, item: Any, *, first: bool) -> AgentPath:
    who = f"agent {number}"
    _check_keys(who, item, _AGENT if first else {*_AGENT, "value_unit"})
    steps = item["steps"]
    if not isinstance(steps, list):
        raise MedrlError(f"{who}: steps must be a list")
    # All steps carry what the first one carries.
    keys = {"position_world", "scale_mm", "value", "action" if first else "actions"}
    if steps and isinstance(steps[0], dict):
        keys |= (_OPTIONAL_FIRST if first else _OPTIONAL) & set(steps[0])
    for t, step in enumerate(steps):
        _check_keys(f"{who}, step {t}", step, keys)
    columns: dict[str, Any] = {
        column.name: _column(who, column.key, steps, column.shape, unknown=column.unknown)
        for column in COLUMNS
        if column.key in keys
    }
    extras = [step["extras"] for step in steps] if "extras" in keys else [{}]
    for t, row in enumerate(extras):
        _check_keys(f"{who}, extras of step {t}", row, set(extras[0]) if t else None)
    answer = item["answer_world"]
    return AgentPath(
        name=item["name"],
        start=item["start"],
        actions=_actions(who, [[s["action"]] if first else s["actions"] for s in steps]),
        extras={
            key: _column(who, key, extras, _shape(who, value), unknown=True)
            for key, value in extras[0].items()
        },
        value_unit="" if first else item["value_unit"],
        outcome=item["outcome"],
        confidence=item["confidence"],
        answer_world=answer if answer is None else _column(who, "answer_world", [item], (3,))[0],
        **columns,
    )


def _column(
    who: str, key: str, rows: list[Any], shape: tuple[int, ...], *, unknown: bool = False
) -> Floats:
    """What all rows have under a key, (T, *shape)."""
    values = [_numbers(f"{who}, {key!r}", row[key], shape, unknown) for row in rows]
    return np.array(values, dtype=np.float64).reshape(len(rows), *shape)


def _actions(who: str, rows: list[Any]) -> NDArray[np.int64]:
    """Actions (T, P), of as many things in every step as in the first."""
    shape = _shape(who, rows[0]) if rows else (1,)
    actions = _column(who, "actions", [{"actions": row} for row in rows], shape)
    if len(shape) != 1 or (actions % 1 != 0).any() or (np.abs(actions) > _MOST_ACTIONS).any():
        raise MedrlError(f"{who}: the actions of a step must be a list of whole numbers")
    return actions.astype(np.int64)


def _shape(who: str, value: Any) -> tuple[int, ...]:
    """Of nested lists."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    if len(shape) > _MOST_DIMENSIONS:
        raise MedrlError(f"{who}: lists are nested too deeply")
    return tuple(shape)


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


def _check_keys(who: str, item: Any, wanted: set[str] | None) -> None:
    """Refuse what is no object, or has other keys than wanted; None for any."""
    if not isinstance(item, dict):
        raise MedrlError(f"{who} must be an object")
    wanted = set(item) if wanted is None else wanted
    if missing := sorted(wanted - set(item)):
        raise MedrlError(f"{who} lacks {', '.join(missing)}")
    if unknown := sorted(set(item) - wanted):
        raise MedrlError(f"{who} has unknown entries: {', '.join(unknown)}")
