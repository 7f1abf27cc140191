"""States in a file: all kinds of values come back, and what does not fit is refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from medrl.errors import MedrlError
from medrl.rl.checkpoint import load_checkpoint, load_module, save_checkpoint
from tests.rl.resume import assert_same


def a_state() -> dict[str, Any]:
    shared = torch.arange(12).view(3, 4)
    return {
        "numbers": {"int": 3, "float": 0.1, "tiny": 5e-324, "infinite": float("inf")},
        "others": [True, None, "text with \u2028 and / in it", []],
        "by number": {0: {"exp_avg": torch.rand(3)}, 7: {}},
        "pair": (1, (2.5, torch.tensor(4))),
        "a/b": {"c": torch.tensor(1)},
        "a": {"b/c": torch.tensor([2])},
        "kinds": [
            torch.zeros(0, 3),
            torch.rand(2, 3).bfloat16(),
            torch.rand(2).half(),
            torch.tensor([True, False]),
            torch.tensor([float("nan"), -0.0]),
            torch.rand(2, 3, dtype=torch.float64).T,
            torch.get_rng_state(),
        ],
        "shared": [shared, shared, shared[1:], shared[:, 1]],
        "parameter": nn.Parameter(torch.rand(2)).data,
        "tensor": {"tensor": "the name of a kind"},
    }


def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "c.safetensors"
    state = a_state()
    save_checkpoint(path, state, signature={"steps": 3})
    assert_same(load_checkpoint(path, signature={"steps": 3}), state)
    assert [file.name for file in path.parent.iterdir()] == ["c.safetensors"]
    with safe_open(path, framework="pt") as file:
        assert set(file.metadata()) == {"state", "signature"}
        assert "/by number/0/exp_avg" in file.keys()  # noqa: SIM118


def test_a_state_that_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"a": 1}, signature={})
    with pytest.raises(TypeError, match="/b/x: a checkpoint holds no set"):
        save_checkpoint(path, {"a": 2, "b": {"x": {1}}}, signature={})
    assert load_checkpoint(path, signature={}) == {"a": 1}


@pytest.mark.parametrize(
    ("written", "wanted", "said"),
    [
        ({"a": 1}, {"a": 2}, r"\(a: 1, now 2\)"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, r"\(a\.b: \[1, 2\], now \[1, 3\]\)"),
        ({"a": 1}, {"a": 1, "new": 5}, r"\(new: None, now 5\)"),
        ({"a": 1, "old": 5}, {"a": 1}, r"\(old: 5, now None\)"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, written: Any, wanted: Any, said: str) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {}, signature=written)
    with pytest.raises(MedrlError, match=rf"c\.safetensors was written with other settings {said}"):
        load_checkpoint(path, signature=wanted)


def test_settings_may_hold_tuples(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {}, signature={"channels": (8, 16)})
    assert load_checkpoint(path, signature={"channels": (8, 16)}) == {}


@pytest.mark.parametrize("keep", [0, 5, 100, -20])
def test_damaged_files_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, a_state(), signature={})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MedrlError, match=r"c\.safetensors is damaged"):
        load_checkpoint(path, signature={})
    with pytest.raises(MedrlError, match=r"c\.safetensors does not fit"):
        load_module(path, nn.Linear(2, 2))


def test_tensors_of_others_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "c.safetensors"
    for metadata in (None, {"state": "{", "signature": "{}"}, {"state": "{}", "signature": "{}"}):
        save_file({"x": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises(MedrlError, match="is damaged"):
            load_checkpoint(path, signature={})
    content = json.dumps({"dict": [["a", {"tensor": "/elsewhere"}]]})
    save_file({"x": torch.zeros(1)}, path, metadata={"state": content, "signature": "{}"})
    with pytest.raises(MedrlError, match="is damaged"):
        load_checkpoint(path, signature={})


def test_one_module_alone(tmp_path: Path) -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    state = {"learner": {"modules": {"network": one.state_dict(), "other": {}}}}
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, state, signature={"any": "settings"})
    load_module(path, other)
    assert_same(other.state_dict()["weight"], one.state_dict()["weight"])
    with pytest.raises(MedrlError, match="does not fit these settings"):
        load_module(path, nn.Linear(3, 3))
    with pytest.raises(MedrlError, match="does not fit these settings"):
        load_module(path, other, "another")
