"""Datalists: what is read, and what is said of one that cannot be."""

import json

import nibabel as nib
import numpy as np
import pytest

from medrl.errors import MedrlError
from medrl.landmark.data import (
    add_sample,
    landmark_names,
    load_labelled,
    points_array,
    read_datalist,
)
from medrl.volume.prepare import Preprocessing


def write_case(folder, name, *, points, affine=None):
    """A small scan with a bright voxel at every point (RAS mm), and its CSV."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine
    volume = np.random.default_rng(0).uniform(0, 1, (24, 26, 28)).astype(np.float32)
    for point in points.values():
        index = np.linalg.inv(affine) @ [*point, 1]
        volume[tuple(np.round(index[:3]).astype(int))] = 50
    nib.save(nib.Nifti1Image(volume, affine), folder / f"{name}.nii.gz")
    rows = ["name,x,y,z"] + [f"{n},{p[0]},{p[1]},{p[2]}" for n, p in points.items()]
    (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return {"image": f"{name}.nii.gz", "landmarks": f"{name}.csv"}


def test_points_land_on_the_voxels_they_name(tmp_path):
    flipped = np.array([[0, -2.0, 0, 30], [2.0, 0, 0, -10], [0, 0, -2.0, 40], [0, 0, 0, 1]])
    points = {"a": (10.0, 10.0, 8.0), "b": (-8.0, 30.0, 20.0)}
    entry = write_case(tmp_path, "s", points=points, affine=flipped)
    (tmp_path / "d.json").write_text(json.dumps({"training": [entry]}))
    cases = read_datalist(tmp_path / "d.json")["training"]
    names = landmark_names(cases)
    (scan,) = load_labelled(cases, names, Preprocessing(spacing=2.0))
    for name, place in zip(names, scan.points_voxel, strict=True):
        i, j, k = place.round().long().tolist()
        assert scan.volume[0, i, j, k] > 40, name


def test_unlabelled_landmarks_are_nan_and_rare_ones_are_left_out(tmp_path):
    common = {"a": (10.0, 10.0, 8.0), "b": (8.0, 30.0, 20.0)}
    entries = [write_case(tmp_path, f"s{n}", points=common) for n in range(5)]
    entries.append(write_case(tmp_path, "odd", points={"a": (4.0, 4.0, 4.0), "rare": (9, 9, 9)}))
    (tmp_path / "d.json").write_text(json.dumps({"training": entries}))
    cases = read_datalist(tmp_path / "d.json")["training"]
    assert landmark_names(cases) == ("a", "b")
    assert np.isnan(points_array(cases[-1], ("a", "b"))[1]).all()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("not json", "not a JSON datalist"),
        ("[]", 'no "training" list'),
        ('{"training": []}', 'no "training" list'),
        ('{"training": ["x.nii"]}', 'needs "image" and "landmarks"'),
        ('{"training": [{"image": "x.nii", "landmarks": "x.csv"}]}', "does not exist"),
    ],
)
def test_a_bad_datalist_gets_one_clear_line(tmp_path, content, says):
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(MedrlError, match=says) as caught:
        read_datalist(path)
    assert "\n" not in str(caught.value)


def test_a_missing_datalist_is_said(tmp_path):
    with pytest.raises(MedrlError, match="cannot be read"):
        read_datalist(tmp_path / "none.json")


def place(folder, name):
    """A small scan on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), path)
    return path


def test_a_case_added_to_a_new_datalist_is_read_back(tmp_path):
    image = place(tmp_path / "scans", "s1")
    points = {"a": (10.0, -20.5, 3.25), "b": np.array([-1.0, 2.0, 1e-3])}
    datalist = tmp_path / "lists" / "mine.json"
    written = add_sample(datalist, image, points)
    (case,) = read_datalist(datalist)["training"]
    assert written == datalist.parent / "s1.mrk.json"
    assert case.image.resolve() == image
    assert list(case.points_world) == ["a", "b"]
    for name, point in points.items():
        np.testing.assert_allclose(case.points_world[name], point, atol=1e-9)
    assert json.loads(datalist.read_text())["training"][0]["image"] == "../scans/s1.nii.gz"
    # LPS on disk, as 3D Slicer wants it.
    markup = json.loads(written.read_text())["markups"][0]
    assert markup["coordinateSystem"] == "LPS"
    assert markup["controlPoints"][0]["position"] == [-10.0, 20.5, 3.25]


def test_a_case_added_again_replaces_its_points_and_stays_in_its_split(tmp_path):
    first, second = place(tmp_path, "s1"), place(tmp_path, "s2")
    (tmp_path / "s1.csv").write_text("name,x,y,z\na,1,2,3\nby hand,4,5,6\n")
    before = {
        "description": "ours",
        "training": [{"image": "s2.nii.gz", "landmarks": "s1.csv", "age": 40}],
        "test": [{"image": str(first), "landmarks": "s1.csv", "age": 50}],
    }
    datalist = tmp_path / "d.json"
    datalist.write_text(json.dumps(before))
    add_sample(datalist, first, {"a": (7, 8, 9)})
    add_sample(datalist, first, {"a": (7, 8, 10)})
    after = json.loads(datalist.read_text())
    assert after["description"] == "ours"
    assert after["training"] == before["training"]
    assert after["test"] == [{"image": str(first), "landmarks": "s1.mrk.json", "age": 50}]
    (case,) = read_datalist(datalist)["test"]
    assert {n: tuple(p) for n, p in case.points_world.items()} == {
        "a": (7, 8, 10),
        "by hand": (4, 5, 6),
    }
    add_sample(datalist, second, {"a": (0, 0, 1)}, split="validation")
    assert len(read_datalist(datalist)["training"]) == 1
    assert not read_datalist(datalist)["validation"]


def test_scans_of_the_same_name_keep_their_own_points(tmp_path):
    images = [place(tmp_path / visit, "T1") for visit in ("first", "second")]
    (tmp_path / "T1.mrk.json").write_text("somebody else's")
    for number, image in enumerate(images):
        add_sample(tmp_path / "d.json", image, {"a": (number, 0, 0)})
    cases = read_datalist(tmp_path / "d.json")["training"]
    assert [case.points_world["a"][0] for case in cases] == [0, 1]
    assert (tmp_path / "T1.mrk.json").read_text() == "somebody else's"


@pytest.mark.parametrize(
    ("content", "points", "options", "says"),
    [
        ("not json", {"a": (1, 2, 3)}, {}, "not a JSON datalist"),
        ('{"training": 3}', {"a": (1, 2, 3)}, {}, "is not a list"),
        ("{}", {"a": (1, 2, np.nan)}, {}, "not finite"),
        ("{}", {}, {}, "no landmarks of"),
        ("{}", {"a": (1, 2, 3)}, {"split": "holdout"}, "no split 'holdout'"),
    ],
)
def test_a_case_that_cannot_be_added_changes_nothing(tmp_path, content, points, options, says):
    image = place(tmp_path / "scans", "s1")
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "d.json").write_text(content)
    with pytest.raises(MedrlError, match=says) as caught:
        add_sample(folder / "d.json", image, points, **options)
    assert "\n" not in str(caught.value)
    assert (folder / "d.json").read_text() == content
    assert [path.name for path in folder.iterdir()] == ["d.json"]


def test_a_scan_that_is_not_there_is_not_added(tmp_path):
    with pytest.raises(MedrlError, match="does not exist"):
        add_sample(tmp_path / "d.json", tmp_path / "none.nii.gz", {"a": (1, 2, 3)})
    assert not list(tmp_path.iterdir())
