"""A system of another package is a command, a batch and a model like medrl's own."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

MODULE = '''
"""Finds the brightest voxel; what a system needs and nothing else."""
import time
from dataclasses import dataclass
from pathlib import Path

from medrl.errors import MedrlError
from medrl.systems import Artifact, System


@dataclass(frozen=True)
class Options:
    among: int = 1
    """Of so many brightest voxels the mean is taken."""


@dataclass(frozen=True)
class Given:
    limit: str = "1e9"
    """Values above are left out."""


@dataclass(frozen=True)
class Found:
    place: tuple[float, ...]
    seconds: float
    warnings: tuple[str, ...] = ("bright is not important",)
    confidence: float | None = None

    def save(self, folder, stem, *, picture=True, pseudonyms=None):
        path = folder / f"{stem}.place.txt"
        path.write_text(" ".join(map(str, self.place)))
        return {"place": path}


class BrightestSystem(System):
    name, verb, summary = "brightest", "brighten", "find the brightest voxel"
    default_model = None
    options, given = Options, Given
    artifacts = {".place.txt": Artifact("place", ".txt", "Where it is brightest")}
    figures = ("x",)

    def load(self, bundle, *, device="cpu"):
        return None

    def read(self, predictor, scans, given, options):
        return scans["scan"], float(given.limit)

    def predict(self, predictor, data, options, *, progress=None, watch=None):
        return [self.find(*one, options.among) for one in data]

    def find(self, scan, limit, among):
        import numpy as np

        began = time.perf_counter()
        values = scan.as_tensor()[0].numpy()
        if not (values <= limit).any():
            return MedrlError("is too bright")
        order = np.argsort(np.where(values <= limit, values, -np.inf), axis=None)[-among:]
        voxel = np.mean(np.unravel_index(order, values.shape), axis=1)
        place = np.asarray(scan.affine) @ [*voxel, 1]
        return Found(tuple(map(float, place[:3])), time.perf_counter() - began)

    def rows(self, result):
        return [dict(zip("xyz", result.place))]
'''


@pytest.fixture
def medrl(tmp_path: Path):
    """Run `medrl` where the package is installed; what it printed."""
    site = tmp_path / "site"
    info = site / "brightest_system-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightest-system\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[medrl.systems]\nbrightest = brightest_system:BrightestSystem\n"
    )
    (site / "brightest_system.py").write_text(MODULE)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(*arguments: object, code: int = 0) -> str:
        script = "import sys, medrl.cli; sys.exit(medrl.cli.main())"
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    import torch

    from medrl.bundles import new_manifest, save

    manifest = new_manifest(name="bright", task="brightest", settings={}, card={"title": "Bright"})
    return save(tmp_path / "model", {"nothing": torch.zeros(1)}, manifest)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        values = np.random.default_rng(number).uniform(0, 100, (6, 7, 8)).astype(np.float32)
        values[number, 2, 3] = 200
        nib.save(nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1])), folder / f"s{number}.nii.gz")
    return folder


def test_it_is_a_command(medrl, model: Path, scans: Path, tmp_path: Path):
    assert "  brighten  find the brightest voxel" in medrl("--help")
    assert "Of so many brightest voxels the mean is taken." in medrl("brighten", "--help")
    said = medrl("brighten", scans / "s2.nii.gz", "-o", tmp_path / "out", "--model", model)
    assert (tmp_path / "out" / "s2.place.txt").read_text() == "4.0 4.0 6.0"
    assert "medrl: note: " in said
    assert "bright is not important" in said
    line = ("brighten", scans / "s2.nii.gz", "-o", tmp_path / "out", "--model", model, "--json")
    report = json.loads(medrl(*line, "--limit", "150"))
    assert report["rows"][0] != {"x": 4.0, "y": 4.0, "z": 6.0}
    assert "is too bright" in medrl(*line, "--limit=-1", code=1)
    assert "medrl brighten is what uses it" in medrl(
        "detect", scans / "s2.nii.gz", "-o", tmp_path / "out", "--model", model, code=2
    )


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_it_runs_as_a_batch_and_resumes(
    medrl, model: Path, scans: Path, tmp_path: Path, engine: str
):
    if engine == "ray":
        pytest.importorskip("ray")
    out = tmp_path / "out"
    (scans / "broken.nii.gz").write_bytes(b"no scan")
    line = ("batch", "brighten", scans, out, "--model", model, "--engine", engine, "--workers", 1)
    assert "3 of 4 scans done, 1 failed" in medrl(*line, code=1)
    (scans / "broken.nii.gz").unlink()
    assert "3 of 3 scans done, 0 failed" in medrl(*line)
    with (out / "results.csv").open() as stream:
        assert [row["x"] for row in csv.DictReader(stream)] == ["0.0", "2.0", "4.0"]
    content = json.loads((out / "run.json").read_text())
    assert (content["verb"], content["task"]["among"]) == ("brighten", 1)
    assert "medrl batch brighten: 3 done" in (out / "report.html").read_text()


def test_a_manifest_says_what_comes_with_each_case(medrl, model: Path, scans: Path, tmp_path: Path):
    (scans / "list.csv").write_text("scan,limit\ns0.nii.gz,150\ns1.nii.gz,\n")
    medrl("batch", "brighten", scans / "list.csv", tmp_path / "out", "--model", model)
    with (tmp_path / "out" / "results.csv").open() as stream:
        first, second = csv.DictReader(stream)
    assert [first[axis] for axis in "xyz"] != ["0.0", "4.0", "6.0"]
    assert [second[axis] for axis in "xyz"] == ["2.0", "4.0", "6.0"]
