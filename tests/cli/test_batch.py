"""`medrl batch` as a lab uses it."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from medrl.cli import main
from medrl.volume.points import read_points


@pytest.fixture
def folder(tmp_path):
    """A folder with a head and a file that is none."""
    from medrl.cli.demo import write_template

    pytest.importorskip("nilearn")
    (tmp_path / "in" / "sub").mkdir(parents=True)
    write_template(tmp_path / "in" / "sub" / "head.nii.gz")
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"no scan")
    return tmp_path / "in"


def test_a_folder_of_scans(folder, tmp_path, capfd):
    out = tmp_path / "out"
    assert main(["batch", "detect", str(folder), str(out), "--no-picture"]) == 1
    said = capfd.readouterr()
    assert "1 of 2 scans done, 1 failed" in said.out
    assert "broken" in said.err
    assert "Traceback" not in said.err
    assert main(["detect", str(folder / "sub" / "head.nii.gz"), "-o", str(tmp_path / "one")]) == 0
    batch = read_points(out / "sub" / "head" / "head.mrk.json")
    alone = read_points(tmp_path / "one" / "head.mrk.json")
    assert list(batch) == list(alone)
    for name, point in alone.items():
        np.testing.assert_allclose(batch[name], point, atol=1e-3)
    with (out / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["landmark"] for row in rows if row["status"] != "absent"} == set(alone)
    content = json.loads((out / "run.json").read_text())
    assert (content["done"], content["failed"]) == (1, 1)
    assert len(content["task"]["sha256"]) == 64


def test_a_dry_run_touches_nothing(folder, tmp_path, capfd):
    out = tmp_path / "out"
    assert main(["batch", "detect", str(folder), str(out), "--dry-run"]) == 0
    assert "sub/head" in capfd.readouterr().out
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "out"], "no such file or folder"),
        ([".", "out", "--model", "nothing"], "nothing"),
        ([".", "out", "--shard", "3/2"], "--shard"),
        ([".", "out", "--workers", "0"], "--workers"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, monkeypatch, capfd, arguments, said):
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4)), np.eye(4)), tmp_path / "a.nii")
    assert main(["batch", "detect", *arguments]) == 2
    err = capfd.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1
