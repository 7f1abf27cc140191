"""`medrl detect` on good scans: files that others can read, and the same points in all of them."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medrl.files import distinct_stems
from medrl.volume.boxes import write_boxes

KINDS = (".mrk.json", ".csv", ".trajectory.json", ".png")
NAMES = ("AC", "PC", "Putamen_L_centroid", "Putamen_R_centroid", "Genu of CC")


def read_csv(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


def test_files(medrl, bundle: Path, head: Path, tmp_path: Path):
    out = tmp_path / "new" / "folder"
    ended = medrl("detect", head, "-o", out, "--model", bundle)
    assert ended.code == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(f"head{kind}" for kind in KINDS)
    for name in NAMES:
        assert name in ended.out

    rows = read_csv(out / "head.csv")
    assert tuple(rows) == NAMES
    assert {row["status"] for row in rows.values()} == {"found"}

    # 3D Slicer's format, as its documentation has it: LPS millimetres.
    (markup,) = json.loads((out / "head.mrk.json").read_text())["markups"]
    assert (markup["type"], markup["coordinateSystem"]) == ("Fiducial", "LPS")
    points = {p["label"]: np.array(p["position"]) for p in markup["controlPoints"]}
    assert tuple(points) == NAMES
    image = sitk.ReadImage(str(head))
    inverse = np.linalg.inv(nib.load(head).affine)
    for name, lps in points.items():
        ras = np.array([float(rows[name][axis]) for axis in "xyz"])
        np.testing.assert_allclose(ras, lps * (-1, -1, 1), atol=1e-3)
        index = image.TransformPhysicalPointToContinuousIndex(lps.tolist())
        voxel = inverse[:3, :3] @ ras + inverse[:3, 3]
        np.testing.assert_allclose(index, voxel, atol=1e-3)
        assert all(0 <= i < n for i, n in zip(index, image.GetSize(), strict=True))

    record = json.loads((out / "head.trajectory.json").read_text())
    assert record["schema"] == "medrl-trajectory"
    assert [agent["name"] for agent in record["agents"]] == list(NAMES)

    picture = np.asarray(Image.open(out / "head.png").convert("RGB"))
    assert picture.std() > 10
    assert picture.shape[1] == 1650


def test_agents_start_in_the_middle_of_the_scan(medrl, bundle: Path, head: Path, tmp_path: Path):
    medrl("detect", head, "-o", tmp_path, "--model", bundle, "--no-picture")
    record = json.loads((tmp_path / "head.trajectory.json").read_text())
    image = nib.load(head)
    middle = nib.affines.apply_affine(image.affine, np.array(image.shape) / 2)
    for agent in record["agents"]:
        start = np.array(agent["steps"][0]["position_world"])
        assert np.linalg.norm(start - middle) < 8


def test_a_box(medrl, bundle: Path, head: Path, tmp_path: Path):
    """Where agents start and what is absent; typed, in a file, and in a manifest."""
    image = nib.load(head)
    middle = nib.affines.apply_affine(image.affine, (20, 45, 25))
    low, high = middle - np.array([12, 10, 8]), middle + np.array([10, 11, 9])
    boxes = tmp_path / "boxes.mrk.json"
    write_boxes(boxes, {"here": [low, high], "there": [low, high + 1]})
    typed = ",".join(map(str, (*low, *high)))
    (tmp_path / "list.csv").write_text(f"scan,box\n{head},boxes.mrk.json:here\n")
    runs = {
        "a": ("detect", head, "--box", typed, "-o", tmp_path / "a"),
        "b": ("detect", head, "--box", f"{boxes}:here", "-o", tmp_path / "b"),
        "c": ("batch", "detect", tmp_path / "list.csv", tmp_path / "c"),
    }
    rows = {}
    for name, run in runs.items():
        ended = medrl(*run, "--model", bundle, "--no-picture")
        assert ended.code == 0, ended.err
        (table,) = (tmp_path / name).rglob("head.csv")
        rows[name] = read_csv(table)
        (path,) = (tmp_path / name).rglob("head.trajectory.json")
        for agent in json.loads(path.read_text())["agents"]:
            start = np.array(agent["steps"][0]["position_world"])
            assert np.linalg.norm(start - middle) < 8
    assert rows["a"] == rows["b"] == rows["c"]
    for row in rows["a"].values():
        if row["status"] != "absent":
            point = np.array([float(row[axis]) for axis in "xyz"])
            assert (point >= low - 1e-3).all()
            assert (point <= high + 1e-3).all()
    wrong = {str(boxes): (2, "name one, as in"), "9000,0,0,9001,1,1": (1, "outside the scan")}
    for box, (code, message) in wrong.items():
        ended = medrl("detect", head, "--box", box, "--model", bundle, "-o", tmp_path / "bad")
        assert ended.code == code
        (line,) = ended.err.splitlines()
        assert message in line


def test_json_report(medrl, bundle: Path, head: Path, tmp_path: Path):
    ended = medrl(
        "detect", head, "-o", tmp_path, "--model", bundle, "--json", "--landmarks", "PC", "AC"
    )
    report = ended.json()
    assert (report["model"], report["done"], report["failed"]) == ("random", 1, 0)
    (scan,) = report["scans"]
    assert [landmark["name"] for landmark in scan["landmarks"]] == ["PC", "AC"]
    assert all(Path(path).is_file() for path in scan["files"].values())
    row = read_csv(tmp_path / "head.csv")["PC"]
    assert scan["landmarks"][0]["x"] == pytest.approx(float(row["x"]), abs=1e-3)


def test_absent_landmarks_have_no_position(medrl, walker: Path, head: Path, tmp_path: Path):
    ended = medrl("detect", head, "-o", tmp_path / "out", "--model", walker)
    assert ended.code == 0
    rows = read_csv(tmp_path / "out" / "head.csv")
    assert {(row["status"], row["x"], row["confidence"]) for row in rows.values()} == {
        ("absent", "", "")
    }
    (markup,) = json.loads((tmp_path / "out" / "head.mrk.json").read_text())["markups"]
    assert markup["controlPoints"] == []
    assert (tmp_path / "out" / "head.png").is_file()
    assert "no landmark was found" in ended.err


def test_mixed_good_and_bad(medrl, bundle: Path, head: Path, tmp_path: Path):
    empty = tmp_path / "empty.nii.gz"
    empty.touch()
    out = tmp_path / "out"
    scans = (tmp_path / "missing.nii.gz", head, empty)
    ended = medrl("detect", *scans, "-o", out, "--model", bundle)
    assert ended.code == 1
    errors = ended.err.splitlines()
    assert [str(scan) in line for scan, line in zip((scans[0], empty), errors, strict=False)] == [
        True,
        True,
    ]
    assert errors[2] == "medrl: 2 of 3 scans failed"
    assert sorted(p.name for p in out.iterdir()) == sorted(f"head{kind}" for kind in KINDS)

    report = medrl("detect", *scans, "-o", out, "--model", bundle, "--json").json()
    assert [scan["status"] for scan in report["scans"]] == ["failed", "done", "failed"]


def test_scans_of_the_same_name_do_not_overwrite_each_other(
    medrl, bundle: Path, head: Path, tmp_path: Path
):
    scans = []
    for subject, shift in (("sub-01", 0), ("sub-02", 500)):
        folder = tmp_path / subject
        folder.mkdir()
        image = nib.load(head)
        affine = image.affine.copy()
        affine[0, 3] += shift
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), folder / "t1.nii.gz")
        scans.append(folder / "t1.nii.gz")
    out = tmp_path / "out"
    # The second is named twice: it is done once.
    ended = medrl("detect", *scans, scans[1], "-o", out, "--model", bundle, "--no-picture")
    assert ended.code == 0
    assert {p.name for p in out.glob("*.csv")} == {"sub-01_t1.csv", "sub-02_t1.csv"}
    first, second = (read_csv(out / f"{s}_t1.csv")["AC"] for s in ("sub-01", "sub-02"))
    assert float(second["x"]) - float(first["x"]) == pytest.approx(500, abs=1e-2)


def test_names_of_results():
    def names(*paths: str) -> list[str]:
        return distinct_stems([Path(path) for path in paths])

    assert names("/d/a.nii.gz", "/d/b.NII", "/d/c.mha") == ["a", "b", "c"]
    assert names("/d/1/a.nii", "/d/2/a.nii") == ["1_a", "2_a"]
    assert names("/x/1/s/a.nii", "/x/2/s/a.nii") == ["1_s_a", "2_s_a"]
    assert names("/d/1/a.nii", "/d/2/a.nii", "/d/1_a.nii")[2] not in ("1_a", "2_a")
    same = names("/d/a.nii", "/d/a.nii.gz", "/d/A.mha")
    assert len({name.casefold() for name in same}) == 3


def test_dicom_folder(medrl, bundle: Path, data_root: Path, tmp_path: Path):
    """A folder is a scan, named after itself; this one is a CT, which the MR model refuses."""
    folder = tmp_path / "series"
    shutil.copytree(data_root / "body_ct_mr" / "example_ct_dicom", folder)
    ended = medrl("detect", folder, "-o", tmp_path / "out", "--model", bundle)
    assert ended.code == 1
    assert "CT" in ended.err


def test_no_progress_bar_in_a_pipe(medrl_process, bundle: Path, head: Path, tmp_path: Path):
    ended = medrl_process("detect", head, "-o", tmp_path, "--model", bundle)
    assert ended.code == 0
    assert ended.err == "" or all(
        line.startswith("medrl: note:") for line in ended.err.splitlines()
    )
    assert "\x1b" not in ended.out
