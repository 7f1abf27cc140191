"""`medrl models` and `medrl info`."""

import json
from importlib.metadata import version
from pathlib import Path

from medrl.bundles import available


def test_models(medrl):
    ended = medrl("models")
    assert ended.code == 0
    assert all(bundle.name in ended.out for bundle in available())
    assert [m["name"] for m in medrl("models", "--json").json()] == [b.name for b in available()]


def test_info(medrl, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("MEDRL_DATA", str(tmp_path))
    ended = medrl("info")
    assert ended.code == 0
    assert version("torch") in ended.out
    assert str(tmp_path) in ended.out
    facts = medrl("info", "--json").json()
    assert facts["packages"]["monai"] == version("monai")
    assert facts["devices"][0].startswith("cpu")


def test_info_of_a_model(medrl, bundle: Path):
    ended = medrl("info", bundle)
    assert ended.code == 0
    for text in ("Random weights", "99.5", "Putamen_L_centroid", "CC0"):
        assert text in ended.out
    manifest = json.loads((bundle / "model.json").read_text())
    assert medrl("info", bundle, "--json").json()["settings"] == manifest["settings"]


def test_info_of_no_model(medrl, tmp_path: Path):
    ended = medrl("info", "brain-t3")
    assert ended.code == 2
    assert ended.err.startswith("medrl: error: there is no model 'brain-t3'")
    (tmp_path / "model.json").write_text("{}")
    assert medrl("info", tmp_path).code == 2


def test_info_of_a_folder_that_is_neither_model_nor_scan(medrl, tmp_path: Path):
    ended = medrl("info", tmp_path)
    assert ended.code == 1
    assert "folder, 0 bytes" in ended.out
    assert ended.err.startswith(f"medrl: error: {tmp_path}: holds no DICOM images")
