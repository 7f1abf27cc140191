"""Datalists: what is read, and what is said of one that cannot be."""

import json

import nibabel as nib
import numpy as np
import pytest

from medrl.errors import MedrlError
from medrl.landmark.data import landmark_names, load_labelled, points_array, read_datalist
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
