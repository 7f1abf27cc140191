"""`medrl demo`: a real head MRI, offline."""

import builtins
import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


def test_demo(medrl, bundle: Path, tmp_path: Path):
    ended = medrl("demo", "-o", tmp_path, "--model", bundle)
    assert ended.code == 0
    names = {path.name for path in tmp_path.iterdir()}
    endings = (".nii.gz", ".mrk.json", ".csv", ".trajectory.json", ".png")
    assert names == {f"mni152_t1{ending}" for ending in endings}
    assert nib.load(tmp_path / "mni152_t1.nii.gz").shape == (197, 233, 189)
    assert "Putamen_L_centroid" in ended.out


#: Centroids in the space of the MNI152 template, as its atlases have them (RAS mm).
MNI152 = {
    "Putamen_L_centroid": (-25, 1, 0),
    "Putamen_R_centroid": (26, 2, 0),
    "Thalamus_L_centroid": (-10, -19, 6),
    "Thalamus_R_centroid": (11, -18, 7),
    "Amygdala_L_centroid": (-23, -5, -18),
    "Amygdala_R_centroid": (23, -4, -18),
    "Hippocampus_L_centroid": (-25, -23, -14),
    "Hippocampus_R_centroid": (26, -21, -14),
    "Caudate_L_centroid": (-13, 9, 10),
    "Caudate_R_centroid": (13, 10, 11),
}


def test_demo_with_the_model_that_ships(medrl, tmp_path: Path):
    assert medrl("demo", "-o", tmp_path).code == 0
    with (tmp_path / "mni152_t1.csv").open(newline="") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    # The template ends within a millimetre of where the brain stem does.
    rest = {row["status"] for name, row in rows.items() if name != "BrainStem_inferior"}
    assert rest == {"found"}
    for name, expected in MNI152.items():
        found = np.array([float(rows[name][axis]) for axis in "xyz"])
        assert np.linalg.norm(found - expected) < 5, name


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
