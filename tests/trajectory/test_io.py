import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medrl import MedrlError, read_trajectory, write_trajectory
from medrl.trajectory import AgentPath, Trajectory
from medrl.trajectory.schema import COLUMNS

FINITE = st.floats(-1e9, 1e9)
UNKNOWN = st.one_of(FINITE, st.just(float("nan")))


#: What every trajectory of the second edition tells of its making.
REQUIRED = {"scan": "", "model": "", "version": "", "seed": 0}
ARRAYS = [column.name for column in COLUMNS] + ["actions", "answer_world"]
FIRST_EDITION = Path(__file__).parent / "data" / "first_edition.trajectory.json"


@st.composite
def agent_paths(draw: st.DrawFn) -> AgentPath:
    steps = draw(st.integers(0, 6))

    def floats(elements: st.SearchStrategy[float], *shape: int) -> Any:
        return draw(arrays(np.float64, (steps, *shape), elements=elements))

    def maybe(elements: st.SearchStrategy[float], *shape: int) -> Any:
        return floats(elements, *shape) if steps and draw(st.booleans()) else None

    shapes = st.dictionaries(
        st.text(), array_shapes(min_dims=0, max_dims=2, max_side=3), max_size=2
    )
    return AgentPath(
        name=draw(st.text()),
        start=draw(st.integers(0, 100)),
        positions_world=floats(FINITE, 3),
        scales_mm=floats(st.floats(1e-3, 64)),
        actions=draw(
            arrays(
                np.int64,
                (steps, draw(st.integers(1, 3)) if steps else 1),
                elements=st.integers(-1, 50),
            )
        ),
        values=floats(UNKNOWN),
        times=maybe(UNKNOWN),
        rewards=maybe(UNKNOWN),
        transforms=maybe(FINITE, 4, 4),
        boxes_world=maybe(FINITE, 2, 3),
        extras={k: floats(UNKNOWN, *shape) for k, shape in draw(shapes).items()} if steps else {},
        value_unit=draw(st.text()),
        outcome=draw(st.text()),
        confidence=draw(st.none() | st.floats(0, 1)),
        answer_world=draw(st.none() | arrays(np.float64, 3, elements=FINITE)),
    )


PROVENANCE = st.dictionaries(st.text(), st.text() | st.integers() | FINITE, max_size=4)


def assert_same(got: AgentPath, want: AgentPath) -> None:
    for key in ("name", "start", "outcome", "confidence", "value_unit"):
        assert getattr(got, key) == getattr(want, key)
    for key in ARRAYS:
        a, b = getattr(got, key), getattr(want, key)
        assert (a is None) == (b is None), key
        if a is not None:
            np.testing.assert_array_equal(a, b, err_msg=key, strict=True)
    assert list(got.extras) == list(want.extras)
    for key, extra in got.extras.items():
        np.testing.assert_array_equal(extra, want.extras[key], err_msg=key, strict=True)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(agents=st.lists(agent_paths(), max_size=3), provenance=PROVENANCE)
def test_reading_gives_back_what_was_written(
    tmp_path: Path, agents: list[AgentPath], provenance: dict[str, str | int | float]
) -> None:
    path = tmp_path / "trajectory.json"
    write_trajectory(path, Trajectory("landmark", tuple(agents), provenance))
    back = read_trajectory(path)
    assert back.task == "landmark"
    assert back.provenance == REQUIRED | provenance
    assert len(back.agents) == len(agents)
    for got, want in zip(back.agents, agents, strict=True):
        assert_same(got, want)


def test_the_first_edition_is_still_read(tmp_path: Path) -> None:
    found = read_trajectory(FIRST_EDITION)
    assert found.provenance == REQUIRED | {
        "scan": "head.nii.gz",
        "model": "brain-t1",
        "medrl": "0.1.0",
        "windows": 578,
        "window_voxels": 25,
    }
    landmark, moved, none = found.agents
    assert landmark.actions.tolist() == [[5], [4], [-1]]
    assert landmark.positions_world[-1].tolist() == [2.0, -10.0, 16.5]
    np.testing.assert_array_equal(landmark.values, [7.996, 4.963, np.nan])
    np.testing.assert_array_equal(landmark.rewards, [1.0, -0.5, np.nan])
    assert (landmark.outcome, landmark.confidence) == ("found (looped)", 0.997)
    assert moved.transforms is not None
    assert moved.transforms[1, :3, 3].tolist() == [1.0, 2.0, 3.5]
    assert none.actions.shape == (0, 1)
    for agent in found.agents:
        assert (agent.value_unit, agent.boxes_world, agent.extras) == ("", None, {})
        assert np.isnan(agent.times).all()
    write_trajectory(tmp_path / "t.json", found)
    assert json.loads((tmp_path / "t.json").read_text())["version"] == 2
    for got, want in zip(read_trajectory(tmp_path / "t.json").agents, found.agents, strict=True):
        assert_same(got, want)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("top", "time_s"), ("agent", "value_unit"), ("step", "actions"), ("step", "time_s"),
        ("step", "box_world"), ("step", "extras"),
    ],
)  # fmt: skip
def test_the_first_edition_knows_nothing_of_the_second(
    tmp_path: Path, where: str, what: str
) -> None:
    content = json.loads(FIRST_EDITION.read_text())
    agent = content["agents"][0]
    {"top": content, "agent": agent, "step": agent["steps"][0]}[where][what] = 1
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(MedrlError, match=f"unknown entries: {what}"):
        read_trajectory(tmp_path / "t.json")


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
    more = {
        "actions": np.array([[4, 1], [-1, -1]]),
        "times": [0.25, 0.5],
        "boxes_world": np.arange(12.0).reshape(2, 2, 3),
        "extras": {"memory": [[1.0, np.nan], [2.0, 3.0]], "speed": [5.0, 6.0]},
        "value_unit": "mm",
    }
    agents = (walk(), walk(**more))
    write_trajectory(path, Trajectory("landmark", agents, {"scan": "a.nii.gz", "seed": 3}))
    text = path.read_text()
    content = json.loads(text)
    assert content["schema"] == "medrl-trajectory"
    assert content["version"] == 2
    assert (content["space"], content["units"]) == ("RAS", "mm")
    assert content["provenance"] == {"scan": "a.nii.gz", "model": "", "version": "", "seed": 3}
    plain, full = content["agents"]
    first, last = plain["steps"]
    assert first == {"position_world": [1, 2, 3], "scale_mm": 4, "actions": [4], "value": 0.5}
    assert last["value"] is None
    assert full["value_unit"] == "mm"
    assert full["steps"][0] == {
        "time_s": 0.25,
        "position_world": [1, 2, 3],
        "scale_mm": 4,
        "actions": [4, 1],
        "value": 0.5,
        "box_world": [[0, 1, 2], [3, 4, 5]],
        "extras": {"memory": [1, None], "speed": 5},
    }
    assert sum('"position_world"' in line for line in text.splitlines()) == 4


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
        {"actions": np.array([1, 1, 1])},
        {"actions": np.empty((2, 0), int)},
        {"actions": np.zeros((2, 1, 1), int)},
        {"times": [0.0]},
        {"times": [0.0, np.inf]},
        {"boxes_world": np.zeros((2, 6))},
        {"boxes_world": np.full((2, 2, 3), np.nan)},
        {"extras": {"speed": [1.0]}},
        {"extras": {"speed": ["fast", "slow"]}},
        {"extras": {3: [1.0, 2.0]}},
        {"value_unit": None},
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
            content["version"] = 3
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
            step["actions"] = [1.5]
        case "action huge":
            step["actions"] = [10**30]
        case "action alone":
            step["actions"] = 1
        case "no action":
            for one in agent["steps"]:
                one["actions"] = []
        case "more actions":
            step["actions"] = [1, 2]
        case "time in one step":
            step["time_s"] = 1.0
        case "time text":
            for one in agent["steps"]:
                one["time_s"] = "now"
        case "box length":
            for one in agent["steps"]:
                one["box_world"] = [1, 2, 3]
        case "extras text":
            for one in agent["steps"]:
                one["extras"] = "many"
        case "extra of one step":
            for n, one in enumerate(agent["steps"]):
                one["extras"] = {"speed": 1} | ({"more": 1} if n else {})
        case "extra shape":
            for n, one in enumerate(agent["steps"]):
                one["extras"] = {"a\nb": [1] * (n + 1)}
        case "extra deep":
            for one in agent["steps"]:
                one["extras"] = {"speed": [[[[[[[[[[1]]]]]]]]]]}
        case "extra text":
            for one in agent["steps"]:
                one["extras"] = {"speed": "fast"}
        case "extra empty":
            for one in agent["steps"]:
                one["extras"] = {"speed": []}
        case "value unit":
            agent["value_unit"] = 1
        case "no seed":
            del content["provenance"]["seed"]
        case "scale negative":
            step["scale_mm"] = -1
        case "number huge":
            step["scale_mm"] = 10**400
        case "confidence":
            agent["confidence"] = 2
        case "provenance":
            content["provenance"]["scan"] = [1]
        case _:
            raise KeyError(where)
    return content


@pytest.mark.parametrize(
    "where",
    [
        "not an object", "schema", "version", "space", "top key missing", "unknown key", "agents",
        "agent", "agent key missing", "steps", "step key missing", "reward in one step",
        "position length", "position null", "position text", "position bool", "action fraction",
        "action huge", "action alone", "no action", "more actions", "time in one step",
        "time text", "box length", "extras text", "extra of one step", "extra shape",
        "extra deep", "extra text", "extra empty", "value unit", "no seed", "scale negative",
        "number huge", "confidence", "provenance",
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
