"""`medrl demo`: a real head MRI, offline."""

import builtins
from pathlib import Path

import nibabel as nib
import pytest


def test_demo(medrl, bundle: Path, tmp_path: Path):
    ended = medrl("demo", "-o", tmp_path, "--model", bundle)
    assert ended.code == 0
    names = {path.name for path in tmp_path.iterdir()}
    endings = (".nii.gz", ".mrk.json", ".csv", ".trajectory.json", ".png")
    assert names == {f"mni152_t1{ending}" for ending in endings}
    assert nib.load(tmp_path / "mni152_t1.nii.gz").shape == (197, 233, 189)
    assert "Putamen_L_centroid" in ended.out


def test_demo_without_nilearn(medrl, bundle: Path, tmp_path: Path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("nilearn"):
            raise ModuleNotFoundError("No module named 'nilearn'", name="nilearn")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    ended = medrl("demo", "-o", tmp_path, "--model", bundle)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "medrl[samples]" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_demo_without_a_model(medrl, tmp_path: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medrl.cli.demo.write_template", lambda path: None)
        ended = medrl("demo", "-o", tmp_path, "--model", "nowhere")
    assert ended.code == 2
    assert "there is no model 'nowhere'" in ended.err
