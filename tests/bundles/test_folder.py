"""Bundles on disk: what comes back is what was stored, and damage is told in one line."""

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from medrl.bundles import (
    assemble,
    available,
    check_names,
    find,
    load_weights,
    named,
    read_manifest,
    save,
    settings_from,
)
from medrl.bundles.card import render_card
from medrl.errors import MedrlError


def manifest(**changes):
    content = {
        "format": "medrl-bundle",
        "version": 1,
        "name": "tiny",
        "task": "landmark",
        "landmarks": ["AC", "PC"],
        "settings": {"window": 25},
        "card": {"title": "Tiny", "training_data": {"subjects": 3}},
        "metrics": {"mean_mm": 1.23456},
        "versions": {"medrl": "0.1.0"},
    }
    content.update(changes)
    return content


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(64, 32, generator=generator),
        "a.var": torch.linspace(1.0, 2e5, 2000),
        "a.tiny": torch.tensor([1e-12, 1.0]).repeat(1000),
        "a.calibration": torch.tensor([1 / 3, 1e-12]),
        "a.count": torch.tensor(7),
    }


@pytest.fixture
def bundle(tmp_path: Path, tensors) -> Path:
    return save(tmp_path / "tiny", tensors, manifest(), licence="Free.\n")


def raw_tensors(path: Path) -> dict[str, dict]:
    """Header of a safetensors file, read by the format's own description."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


def test_round_trip(bundle: Path, tensors):
    loaded = load_weights(bundle)
    assert loaded.keys() == tensors.keys()
    assert loaded["a.weight"].dtype == torch.float32
    np.testing.assert_allclose(loaded["a.weight"], tensors["a.weight"], rtol=1e-3)
    # What would overflow in half precision is stored in full.
    assert torch.equal(loaded["a.var"], tensors["a.var"])
    np.testing.assert_allclose(loaded["a.tiny"], tensors["a.tiny"], atol=1e-7)
    # What a confidence is made of is small and not rounded.
    assert torch.equal(loaded["a.calibration"], tensors["a.calibration"])
    assert loaded["a.count"] == 7
    assert read_manifest(bundle)["landmarks"] == ["AC", "PC"]


def test_what_is_on_disk(bundle: Path):
    assert {p.name for p in bundle.iterdir()} == {
        "model.safetensors",
        "model.json",
        "LICENSE",
        "README.md",
    }
    header = raw_tensors(bundle / "model.safetensors")
    assert header["a.weight"]["dtype"] == "F16"
    assert header["a.tiny"]["dtype"] == "F16"
    assert header["a.var"]["dtype"] == "F32"
    digest = hashlib.sha256((bundle / "model.safetensors").read_bytes()).hexdigest()
    assert json.loads((bundle / "model.json").read_text())["weights"]["sha256"] == digest
    card = (bundle / "README.md").read_text()
    assert card.startswith("# Tiny")
    assert "1.235" in card


def test_full_precision(tmp_path: Path, tensors):
    save(tmp_path / "b", tensors, manifest(), half=False)
    assert torch.equal(load_weights(tmp_path / "b")["a.weight"], tensors["a.weight"])


def test_replaces_an_older_model_only(bundle: Path, tensors, tmp_path: Path):
    save(bundle, {"b": torch.zeros(1)}, manifest())
    assert load_weights(bundle).keys() == {"b"}
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.png").write_bytes(b"x")
    with pytest.raises(MedrlError, match="not the folder of a model"):
        save(other, tensors, manifest())
    assert (other / "cat.png").read_bytes() == b"x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "tiny"]


def test_nothing_is_left_when_saving_fails(tmp_path: Path, tensors):
    with pytest.raises(MedrlError, match="diverged"):
        save(tmp_path / "b", {"a": torch.tensor([float("nan")])}, manifest())
    with pytest.raises(MedrlError, match="JSON"):
        save(tmp_path / "b", tensors, manifest(metrics={"mean": float("nan")}))
    with pytest.raises(MedrlError, match="landmarks"):
        save(tmp_path / "b", tensors, manifest(landmarks=[]))
    (tmp_path / "file").touch()
    with pytest.raises(MedrlError, match="cannot write"):
        save(tmp_path / "file" / "b", tensors, manifest())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def edit(bundle: Path, **changes):
    path = bundle / "model.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"format": "other"}, "not the description of a medrl model"),
        ({"version": 2}, "newer medrl"),
        ({"version": 0}, "format version 0"),
        ({"version": True}, "format version True"),
        ({"name": None}, "'name'"),
        ({"settings": []}, "'settings' must be an object"),
        ({"landmarks": ["AC", "AC"]}, "named twice"),
        ({"landmarks": ["AC", 3]}, "must have a name"),
        ({"landmarks": []}, "'landmarks' must be a list"),
        ({"weights": {"sha256": "12", "tensors": {}}}, "64 hexadecimal"),
        ({"weights": {"sha256": "0" * 64, "tensors": {"a": 3}}}, "map names to shapes"),
    ],
)
def test_wrong_manifest(bundle: Path, changes, line: str):
    edit(bundle, **changes)
    with pytest.raises(MedrlError, match=line) as caught:
        load_weights(bundle)
    assert "model.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_what_a_model_knows(bundle: Path):
    settings = {"targets": [{"name": "whole"}], "channels": [{"name": "MR"}], "sizes": [1, 2]}
    edit(bundle, settings=settings)
    content = read_manifest(bundle)
    assert named(content) == {"landmarks": ["AC", "PC"], "targets": ["whole"], "channels": ["MR"]}
    assert "## Targets (1)\n\n- whole" in render_card(content)
    assert check_names(content, "landmarks", source="it") == ("AC", "PC")
    with pytest.raises(MedrlError, match="it: 'organs' must be a list of names"):
        check_names(content, "organs", source="it")


def test_cut_off_manifest(bundle: Path):
    path = bundle / "model.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MedrlError, match="cut off"):
        read_manifest(bundle)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MedrlError, match="cut off"):
        read_manifest(bundle)
    path.unlink()
    with pytest.raises(MedrlError, match="missing"):
        read_manifest(bundle)


def test_damaged_weights(bundle: Path):
    path = bundle / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(MedrlError, match="cut off"):
        load_weights(bundle)
    # Pickled weights are refused even when the checksum is theirs.
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(MedrlError, match="checksum"):
        load_weights(bundle)
    weights = read_manifest(bundle)["weights"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(bundle, weights={**weights, "sha256": digest})
    with pytest.raises(MedrlError, match="not a safetensors file"):
        load_weights(bundle)
    path.unlink()
    with pytest.raises(MedrlError, match="no weights"):
        load_weights(bundle)


def test_tensors_that_the_manifest_does_not_list(bundle: Path):
    weights = read_manifest(bundle)["weights"]
    edit(bundle, weights={**weights, "tensors": {**weights["tensors"], "b.weight": [2]}})
    with pytest.raises(MedrlError, match=r"b\.weight"):
        load_weights(bundle)
    edit(bundle, weights=None)
    with pytest.raises(MedrlError, match="no checksum"):
        load_weights(bundle)


def test_assemble():
    good = {name: tensor + 1 for name, tensor in nn.Linear(3, 2).state_dict().items()}
    network = assemble(lambda: nn.Linear(3, 2), good, source="there")
    assert torch.equal(network.weight, good["weight"])
    assert not network.training
    for bad in (
        {"weight": good["weight"]},
        {**good, "extra": torch.zeros(1)},
        {**good, "bias": torch.zeros(3)},
    ):
        with pytest.raises(MedrlError, match="there do not fit the network"):
            assemble(lambda: nn.Linear(3, 2), bad, source="there")


def test_settings_that_ask_for_too_much_are_refused_before_anything_is_made():
    """A layer of 2^60 weights: would end in no memory, if it were made."""
    good = dict(nn.Linear(3, 2).state_dict())
    with pytest.raises(MedrlError, match="do not fit the network"):
        assemble(lambda: nn.Linear(2**30, 2**30), good, source="there")
    with pytest.raises(MedrlError, match="describe no network"):
        assemble(lambda: nn.Linear(3, -2), good, source="there")


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...]
    mode: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Settings:
    ratio: float
    inner: tuple[Inner, ...]
    flag: bool = False
    extra: Inner | None = None


def test_settings_survive_json():
    settings = Settings(2.0, (Inner((1, 2), "b"),), True, Inner(()))
    assert settings_from(Settings, json.loads(json.dumps(asdict(settings)))) == settings


@pytest.mark.parametrize(
    "odd",
    [
        {"ratio": "2"},
        {"ratio": True},
        {"ratio": float("nan")},
        {"ratio": None},
        {"ratio": 10**400},
        {"inner": {}},
        {"inner": [[]]},
        {"inner": [{"sizes": [1.5]}]},
        {"inner": [{"sizes": [2**40]}]},
        {"inner": [{"sizes": [], "mode": "c"}]},
        {"inner": [{"sizes": [], "mode": []}]},
        {"inner": [{"mode": "a"}]},
        {"inner": [{"sizes": [], "other": 1}]},
        {"flag": 1},
        {"extra": 3},
        {"more": 1},
    ],
)
def test_settings_of_the_wrong_type_are_refused(odd: dict[str, Any]):
    good = {"ratio": 1, "inner": [], "flag": False, "extra": None}
    assert settings_from(Settings, good) == Settings(1.0, ())
    with pytest.raises(MedrlError, match="settings"):
        settings_from(Settings, {**good, **odd})


def test_find(bundle: Path, tmp_path: Path):
    assert find(bundle) == find(str(bundle)) == find(bundle / "model.json") == bundle
    with pytest.raises(MedrlError, match=r"no model 'nowhere'.*folder"):
        find("nowhere")
    with pytest.raises(MedrlError, match=r"has no model\.json"):
        find(tmp_path)


def test_shipped_models_are_whole():
    for shipped in available():
        assert find(shipped.name) == shipped.path
        assert load_weights(shipped.path)
        assert (shipped.path / "LICENSE").is_file()
        assert (shipped.path / "README.md").is_file()
        size = sum(path.stat().st_size for path in shipped.path.iterdir())
        assert size <= 5 * 2**20
