import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medrl import MedrlError, read_trajectory, write_trajectory
from medrl.trajectory import AgentPath, Trajectory

FINITE = st.floats(-1e9, 1e9)
UNKNOWN = st.one_of(FINITE, st.just(float("nan")))


@st.composite
def agent_paths(draw: st.DrawFn) -> AgentPath:
    steps = draw(st.integers(0, 6))

    def floats(elements: st.SearchStrategy[float], *shape: int) -> Any:
        return draw(arrays(np.float64, (steps, *shape), elements=elements))

    optional = draw(st.booleans()) and steps > 0
    return AgentPath(
        name=draw(st.text()),
        start=draw(st.integers(0, 100)),
        positions_world=floats(FINITE, 3),
        scales_mm=floats(st.floats(1e-3, 64)),
        actions=draw(arrays(np.int64, steps, elements=st.integers(-1, 50))),
        values=floats(UNKNOWN),
        rewards=floats(UNKNOWN) if optional else None,
        outcome=draw(st.text()),
        confidence=draw(st.none() | st.floats(0, 1)),
        answer_world=draw(st.none() | arrays(np.float64, 3, elements=FINITE)),
        transforms=floats(FINITE, 4, 4) if optional else None,
    )


PROVENANCE = st.dictionaries(st.text(), st.text() | st.integers() | FINITE, max_size=4)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(agents=st.lists(agent_paths(), max_size=3), provenance=PROVENANCE)
def test_reading_gives_back_what_was_written(
    tmp_path: Path, agents: list[AgentPath], provenance: dict[str, str | int | float]
) -> None:
    path = tmp_path / "trajectory.json"
    write_trajectory(path, Trajectory("landmark", tuple(agents), provenance))
    back = read_trajectory(path)
    assert back.task == "landmark"
    assert back.provenance == provenance
    assert len(back.agents) == len(agents)
    for got, want in zip(back.agents, agents, strict=True):
        for key in ("name", "start", "outcome", "confidence"):
            assert getattr(got, key) == getattr(want, key)
        arrays_ = ("positions_world", "scales_mm", "actions", "values", "rewards")
        for key in (*arrays_, "answer_world", "transforms"):
            a, b = getattr(got, key), getattr(want, key)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(a, b)


def walk(**changes: Any) -> AgentPath:
    fields: dict[str, Any] = {
        "name": "AC",
        "start": 0,
        "positions_world": [[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]],
        "scales_mm": [4.0, 2.0],
        "actions": np.array([4, -1]),
        "values": [0.5, float("nan")],
    }
    return AgentPath(**(fields | changes))


def test_the_file_is_plain_json_with_one_step_a_line(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_trajectory(path, Trajectory("landmark", (walk(),), {"scan": "a.nii.gz", "seed": 3}))
    text = path.read_text()
    content = json.loads(text)
    assert content["schema"] == "medrl-trajectory"
    assert content["version"] == 1
    assert (content["space"], content["units"]) == ("RAS", "mm")
    first, last = content["agents"][0]["steps"]
    assert first == {"position_world": [1, 2, 3], "scale_mm": 4, "action": 4, "value": 0.5}
    assert last["value"] is None
    assert sum('"position_world"' in line for line in text.splitlines()) == 2


def test_an_old_file_survives_a_failed_write(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "t.json"
    with pytest.raises(MedrlError, match="no folder"):
        write_trajectory(path, Trajectory("landmark", ()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"positions_world": [[1.0, 2.0]]},
        {"positions_world": [[1.0, 2.0, np.nan], [0.0, 0.0, 0.0]]},
        {"scales_mm": [4.0, 0.0]},
        {"scales_mm": [4.0]},
        {"actions": np.array([0.5, 1.0])},
        {"actions": np.array([-2, 1])},
        {"values": [np.inf, 0.0]},
        {"values": ["a", "b"]},
        {"confidence": 1.5},
        {"confidence": float("nan")},
        {"start": -1},
        {"name": 3},
        {"answer_world": [1.0, 2.0]},
        {"transforms": np.eye(4)},
    ],
)
def test_a_path_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MedrlError):
        walk(**changes)


def broken(content: dict[str, Any], where: str) -> Any:
    agent = content["agents"][0]
    step = agent["steps"][1]
    match where:
        case "not an object":
            return [content]
        case "schema":
            content["schema"] = "other"
        case "version":
            content["version"] = 2
        case "space":
            content["space"] = "LPS"
        case "top key missing":
            del content["provenance"]
        case "unknown key":
            content["extra"] = 1
        case "agents":
            content["agents"] = {}
        case "agent":
            content["agents"] = [3]
        case "agent key missing":
            del agent["outcome"]
        case "steps":
            agent["steps"] = "none"
        case "step key missing":
            del step["value"]
        case "reward in one step":
            step["reward"] = 1.0
        case "position length":
            step["position_world"] = [1, 2]
        case "position null":
            step["position_world"] = [1, 2, None]
        case "position text":
            step["position_world"] = ["1", 2, 3]
        case "position bool":
            step["position_world"] = [True, 2, 3]
        case "action fraction":
            step["action"] = 1.5
        case "action huge":
            step["action"] = 10**30
        case "scale negative":
            step["scale_mm"] = -1
        case "number huge":
            step["scale_mm"] = 10**400
        case "confidence":
            agent["confidence"] = 2
        case "provenance":
            content["provenance"] = {"scan": [1]}
        case _:
            raise KeyError(where)
    return content


@pytest.mark.parametrize(
    "where",
    [
        "not an object", "schema", "version", "space", "top key missing", "unknown key", "agents",
        "agent", "agent key missing", "steps", "step key missing", "reward in one step",
        "position length", "position null", "position text", "position bool", "action fraction",
        "action huge", "scale negative", "number huge", "confidence", "provenance",
    ],
)  # fmt: skip
def test_a_file_that_breaks_the_schema_is_refused_by_name(tmp_path: Path, where: str) -> None:
    path = tmp_path / "t.json"
    write_trajectory(path, Trajectory("landmark", (walk(),)))
    content = broken(json.loads(path.read_text()), where)
    path.write_text(json.dumps(content))
    with pytest.raises(MedrlError, match=r"t\.json") as caught:
        read_trajectory(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"schema": NaN}', "\x00"])
def test_what_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(MedrlError, match=r"t\.json"):
        read_trajectory(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MedrlError, match="no such file"):
        read_trajectory(tmp_path / "none.json")
