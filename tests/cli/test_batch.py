"""`medrl batch` as a lab uses it."""

import csv
import json
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from medrl.cli import main
from medrl.engines.local import LocalEngine
from medrl.errors import MedrlError
from medrl.seednet.seeds import Seed, write_seeds
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
    assert main(["batch", "detect", str(folder), str(out)]) == 1
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
    page = (out / "report.html").read_text()
    assert "1 done, 1 failed" in page
    assert page.count("data:image/jpeg") == 1
    assert "<script" not in page
    assert "http" not in page
    # Once more: nothing is left to do, and what has failed is not forgotten.
    capfd.readouterr()
    assert main(["batch", "detect", str(folder), str(out)]) == 1
    assert "2 of 2 scans have ended before, 1 of them failed: --retry" in capfd.readouterr().err


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


def test_seeds_of_a_manifest(folder, tmp_path):
    (tmp_path / "list.csv").write_text(
        "scan,name,seeds,target\n"
        'in/sub/head.nii.gz,left,"fg:-25.5,-21,-14",whole\n'
        "in/sub/head.nii.gz,none,,\n"
    )
    out = tmp_path / "out"
    assert main(["batch", "segment", str(tmp_path / "list.csv"), str(out), "--no-picture"]) == 1
    seeds = ["--seed", "fg:-25.5,-21,-14", "--no-picture"]
    head = str(folder / "sub" / "head.nii.gz")
    assert main(["segment", head, *seeds, "-o", str(tmp_path / "one")]) == 0
    batch = nib.load(out / "left" / "left.seg.nii.gz")
    alone = nib.load(tmp_path / "one" / "head.seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(batch.dataobj), np.asarray(alone.dataobj))
    assert "no foreground seed" in (out / "failures.csv").read_text()


def test_all_onto_one(folder, tmp_path):
    from scipy.spatial.transform import Rotation

    head = nib.load(folder / "sub" / "head.nii.gz")
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", (25, -10, 40), degrees=True).as_matrix()
    (folder / "broken.nii.gz").unlink()
    nib.save(nib.Nifti1Image(head.dataobj, turned @ head.affine), folder / "moving.nii.gz")
    (folder / "sub" / "head.nii.gz").rename(tmp_path / "head.nii.gz")
    out = tmp_path / "out"
    arguments = ["--fixed", str(tmp_path / "head.nii.gz"), "--no-picture"]
    assert main(["batch", "register", str(folder), str(out), *arguments]) == 0
    with (out / "results.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    found = np.array([[float(row[f"m{r}{c}"]) for c in range(4)] for r in range(3)])
    points = np.random.default_rng(0).uniform(-70, 70, (50, 3))
    off = points @ (found[:, :3] - turned[:3, :3]).T + found[:, 3]
    assert np.linalg.norm(off, axis=1).mean() < 1.0
    assert row["trusted"] == "True"


@pytest.fixture
def dataset(folder, tmp_path):
    """A BIDS dataset: a head, one that is damaged, and contrasts that no agent was trained on."""
    bids = tmp_path / "bids"
    for name in ("sub-01/ses-a/anat/sub-01_ses-a", "sub-02/anat/sub-02"):
        (bids / name).parent.mkdir(parents=True)
        for suffix in ("T1w", "T2w"):
            (bids / f"{name}_{suffix}.nii.gz").write_bytes(b"no scan")
    (folder / "sub" / "head.nii.gz").replace(bids / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz")
    description = {"Name": "Heads", "BIDSVersion": "1.10.0"}
    (bids / "dataset_description.json").write_text(json.dumps(description))
    return bids


def test_a_bids_dataset_as_an_app(dataset, tmp_path, capfd):
    out, log = dataset / "derivatives" / "medrl", tmp_path / "log.jsonl"
    app = ["batch", "detect", str(dataset), str(out), "participant", "--json-log", str(log)]
    assert main([*app, "--participant-label", "sub-01", "02", "--no-picture"]) == 1
    said = capfd.readouterr()
    assert "1 of 2 scans done, 1 failed" in said.out
    stem = out / "sub-01/ses-a/anat/sub-01_ses-a_space-T1w_desc-medrl_landmarks"
    points = read_points(f"{stem}.mrk.json")
    with open(f"{stem}.tsv", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert set(points) == {row["name"] for row in rows if row["status"] != "absent"}
    for row in rows:
        if row["status"] != "absent":
            place = [float(row[axis]) for axis in "xyz"]
            np.testing.assert_allclose(points[row["name"]], place, atol=1e-3)
    assert not (out / "sub-02").exists()
    start, *cases, end = (json.loads(line) for line in log.read_text().splitlines())
    assert (start["event"], start["cases"], start["todo"]) == ("start", 2, 2)
    assert len(start["task"]["sha256"]) == 64
    told = {event["name"]: event for event in cases}
    good, bad = told["sub-01/ses-a/anat/sub-01_ses-a_T1w"], told["sub-02/anat/sub-02_T1w"]
    assert good["status"] == "done"
    assert min(good["seconds"].values()) > 0
    assert (bad["status"], bool(bad["reason"])) == ("failed", True)
    assert (end["how"], end["done"], end["failed"]) == ("finished", 1, 1)
    content = json.loads((out / "run.json").read_text())
    assert content["options"]["participant_label"] == ["sub-01", "02"]
    assert (content["end"], content["done"], content["failed"]) == ("finished", 1, 1)


def test_masks_of_a_bids_dataset(dataset, tmp_path):
    image = dataset / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"
    seeds = image.with_name("sub-01_ses-a_T1w.seeds.mrk.json")
    write_seeds(seeds, [Seed([[-25.5, -21, -14]], label=1)], name="x")
    out = tmp_path / "out"
    arguments = ["--no-picture", "--no-agent", "--participant-label", "01"]
    assert main(["batch", "segment", str(dataset), str(out), *arguments]) == 0
    stem = out / "sub-01/ses-a/anat/sub-01_ses-a_space-T1w_desc-medrl_dseg"
    mask, scan = nib.load(f"{stem}.nii.gz"), nib.load(image)
    np.testing.assert_allclose(mask.affine, scan.affine)
    assert mask.shape == scan.shape
    with open(f"{stem}.tsv", newline="") as stream:
        table = {row["index"]: row["name"] for row in csv.DictReader(stream, delimiter="\t")}
    assert {str(n) for n in np.unique(np.asarray(mask.dataobj))} - {"0"} == set(table)
    if validator := shutil.which("bids-validator-deno"):  # from PyPI, where somebody has it
        subprocess.run([validator, out], check=True)


@pytest.mark.parametrize(
    ("trouble", "code", "how"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("ended by SIGTERM"), 130, "ended by SIGTERM"),
        (MedrlError("the disk is full"), 2, "the disk is full"),
    ],
)
def test_the_log_says_what_ended_a_run(tmp_path, monkeypatch, trouble, code, how):
    def run(*_, **__):
        raise trouble

    monkeypatch.setattr(LocalEngine, "run", run)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4)), np.eye(4)), tmp_path / "a.nii")
    out, log = tmp_path / "out", tmp_path / "log.jsonl"
    arguments = [str(tmp_path / "a.nii"), str(out), "--json-log", str(log)]
    assert main(["batch", "detect", *arguments]) == code
    start, end = (json.loads(line) for line in log.read_text().splitlines())
    assert (start["todo"], end["event"], end["how"]) == (1, "end", how)
    content = json.loads((out / "run.json").read_text())
    assert (content["end"], content["done"]) == (how, 0)
    assert content["runs"][0]["options"]["json_log"] == str(log)
