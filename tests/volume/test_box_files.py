"""Files of boxes, by 3D Slicer's own reading of them, and boxes as they are typed."""

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.volume.boxes import (
    box_row,
    parse_box,
    read_boxes,
    write_boxes,
    write_boxes_csv,
)
from medrl.volume.moved_markups import move_markups
from medrl.volume.space import apply_affine, box_corners

BOXES = {
    "Hippocampus_L": np.array([[-40.0, -35.5, -30], [-15, -5, 10.25]]),
    "L3 (lumbar)": np.array([[0.0, 1, 2], [3, 4, 5]]),
}


def slicer_corners(markup: dict[str, Any]) -> np.ndarray:
    """The eight corners in RAS, from center, orientation and size as vtkMRMLMarkupsROINode has."""
    flip = np.diag([-1.0, -1, 1]) if markup["coordinateSystem"] == "LPS" else np.eye(3)
    axes = flip @ np.reshape(markup["orientation"], (3, 3))
    half = np.array(markup["size"]) / 2
    return box_corners(-half, half) @ axes.T + flip @ markup["center"]


def roi(name: str = "a", **more: Any) -> dict[str, Any]:
    known = {"type": "ROI", "name": name, "coordinateSystem": "LPS", "roiType": "Box"}
    return {**known, "center": [1.0, -2, 3], "size": [2.0, 4, 6], **more}


def file_of(tmp_path: Path, *markups: Any) -> Path:
    path = tmp_path / "a.mrk.json"
    path.write_text(json.dumps({"markups": list(markups)}))
    return path


def same(found: dict[str, Any], want: dict[str, Any], **how: float) -> None:
    assert list(found) == list(want)
    for name in want:
        np.testing.assert_allclose(found[name], want[name], **(how or {"atol": 1e-12}))


def test_slicer_finds_them_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.mrk.json"
    write_boxes(path, BOXES, descriptions={"Hippocampus_L": "confidence 0.93"})
    content = json.loads(path.read_text())
    assert content["@schema"].endswith("markups-schema-v1.0.3.json#")
    for markup, (name, box) in zip(content["markups"], BOXES.items(), strict=True):
        kept = [markup[key] for key in ("type", "roiType", "name", "coordinateSystem", "locked")]
        assert kept == ["ROI", "Box", name, "LPS", False]
        corners = slicer_corners(markup)
        np.testing.assert_allclose([corners.min(axis=0), corners.max(axis=0)], box, atol=1e-12)
        assert np.linalg.det(np.reshape(markup["orientation"], (3, 3))) == pytest.approx(1)
        (point,) = markup["controlPoints"]
        assert (point["position"], point["label"]) == (markup["center"], name)
    assert content["markups"][0]["controlPoints"][0]["description"] == "confidence 0.93"
    same(read_boxes(path), BOXES)


def test_they_are_moved(tmp_path: Path) -> None:
    """A shift, a quarter turn and a scaling move the box itself; a turn gives the box around."""
    write_boxes(tmp_path / "a.mrk.json", BOXES)
    quarter = np.array([[0, -2.0, 0, 10], [2, 0, 0, -5], [0, 0, 2, 1], [0, 0, 0, 1]])
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()
    for matrix, askew in ((quarter, False), (turn, True)):
        move_markups(tmp_path / "a.mrk.json", tmp_path / "b.mrk.json", matrix)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = read_boxes(tmp_path / "b.mrk.json")
        assert ["askew" in str(w.message) for w in told] == [True] * askew
        there = {name: apply_affine(matrix, box_corners(*box)) for name, box in BOXES.items()}
        same(found, {name: [p.min(axis=0), p.max(axis=0)] for name, p in there.items()}, atol=1e-9)


def test_rois_of_slicer(tmp_path: Path) -> None:
    """LPS and RAS, units, axes that are flipped or left out, and what is no box."""
    path = file_of(
        tmp_path,
        roi("lps"),
        roi("ras", coordinateSystem="RAS", orientation=[0, 1, 0, -1, 0, 0, 0, 0, 1]),
        roi("cm", coordinateUnits="cm", roiType="BoundingBox"),
        roi("not drawn", size=[0, 0, 0]),
        {"type": "Fiducial", "name": "points", "controlPoints": []},
    )
    with pytest.warns(UserWarning, match="placed|only") as told:
        found = read_boxes(path)
    assert [str(w.message).removeprefix(f"{path}: ") for w in told] == [
        "boxes that are not placed are left out: 'not drawn'",
        "only its boxes (ROI) are read, not Fiducial 'points'",
    ]
    lps, ras = [[-2, 0, 0], [0, 4, 6]], [[-1, -3, 0], [3, -1, 6]]
    same(found, {"lps": lps, "ras": ras, "cm": np.array(lps) * 10.0})


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [box_row(name, box, confidence=0.5) for name, box in BOXES.items()]
    write_boxes_csv(path, [*rows, box_row("gone", None, confidence=float("nan"))])
    with path.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["name"] for row in table] == [*BOXES, "gone"]
    assert (table[0]["x_min"], table[0]["z_max"]) == ("-40.0000", "10.2500")
    assert set(table[2].values()) == {"gone", ""}
    with pytest.warns(UserWarning, match="boxes that are not placed are left out: 'gone'"):
        same(read_boxes(path), BOXES)
    (tmp_path / "b.tsv").write_text(
        "Z_max\tname\tx_min\ty_min\tz_min\tx_max\ty_max\n9\tA\t1\t2\t3\t4\t5\n"
    )
    same(read_boxes(tmp_path / "b.tsv"), {"A": [[1, 2, 3], [4, 5, 9]]})
    write_boxes_csv(tmp_path / "c.csv", [])
    assert (tmp_path / "c.csv").read_text() == "name,x_min,y_min,z_min,x_max,y_max,z_max\n"


def test_boxes_as_they_are_typed(tmp_path: Path) -> None:
    np.testing.assert_array_equal(parse_box("1,2,3,4,5,6"), [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(parse_box("4, 2,3, 1,5,6"), [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(parse_box("1,2,3,4,5,6", space="LPS"), [[-4, -5, 3], [-1, -2, 6]])
    path, table = tmp_path / "a:b.mrk.json", tmp_path / "one.csv"
    write_boxes(path, {**BOXES, "odd:name": [[0, 0, 0], [1, 1, 1]]})
    for name, box in BOXES.items():
        np.testing.assert_allclose(parse_box(f"{path}:{name}"), box)
    np.testing.assert_allclose(parse_box(f"{path}:odd:name"), [[0] * 3, [1] * 3])
    write_boxes_csv(table, [box_row("A", BOXES["Hippocampus_L"])])
    for text in (f"{table}", f"{table}:A"):
        np.testing.assert_allclose(parse_box(text), BOXES["Hippocampus_L"])
    wrong = {
        str(path): "name one, as in .*a:b.mrk.json:Hippocampus_L; it has Hippocampus_L, L3",
        f"{path}:L4": "no box 'L4'; it has Hippocampus_L, L3",
        "1,2,3": "neither x0,y0,z0,x1,y1,z1",
        "1,2,3,4,5,nan": "neither",
        "": "neither",
        "1,2,3,1,5,6": "flat",
        str(tmp_path / "none.mrk.json"): "no such file",
        str(tmp_path / "none.mrk.json") + ":A": "none.mrk.json: no such file",
        str(tmp_path): "no such file",
    }
    for text, message in wrong.items():
        with pytest.raises(MedrlError, match=message) as told:
            parse_box(text)
        assert len(str(told.value).splitlines()) == 1
    with pytest.raises(MedrlError, match="use RAS or LPS"):
        parse_box("1,2,3,4,5,6", space="RSA")


@pytest.mark.parametrize(
    ("markups", "message"),
    [
        ([], "holds no boxes"),
        ([roi(size=[0, 0, 0])], "holds no boxes"),
        ([roi(size=[0, 1, 2])], "'a' is inverted or flat"),
        ([roi(size=[-2, 1, 2])], "size of the box 'a' is negative"),
        ([roi(size=[1, 2])], "size of the box 'a' is not 3 finite numbers"),
        ([roi(center=[1, 2, "x"])], "center of the box 'a' is not 3"),
        ([roi(orientation=[2, 0, 0, 0, 1, 0, 0, 0, 1])], "no matrix of unit vectors"),
        ([roi(orientation=[0] * 9)], "singular"),
        ([roi(insideOut=True)], "inside out"),
        ([roi(), roi()], "two boxes are named 'a'"),
        ([roi("")], "has no name"),
        ([roi(coordinateSystem="IJK")], "neither LPS nor RAS"),
        ([3], "not a 3D Slicer markups file"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*left out:UserWarning")
def test_bad_markups(tmp_path: Path, markups: list[Any], message: str) -> None:
    path = file_of(tmp_path, *markups)
    with pytest.raises(MedrlError, match=message) as told:
        read_boxes(path)
    assert str(told.value).startswith(f"{path}: ")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "name,x,y,z\nA,1,2,3\n", "must name the columns name, x_min"),
        (
            "a.csv",
            "name,x_min,y_min,z_min,x_max,y_max,z_max\nA,1,2,3,4,5,x\n",
            "six finite numbers",
        ),
        ("a.csv", "name,x_min,y_min,z_min,x_max,y_max,z_max\nA,4,2,3,1,5,6\n", "'A' is inverted"),
        ("a.txt", "A", "no file of boxes that medrl knows"),
        ("a.csv", "\n", "is empty"),
        ("a.json", "{", "is not JSON"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MedrlError, match=message):
        read_boxes(tmp_path / name)


def test_bad_boxes_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.mrk.json"
    with pytest.raises(MedrlError, match="the box 'flat' is inverted or flat"):
        write_boxes(path, {**BOXES, "flat": [[0, 0, 0], [1, 1, 0]]})
    assert list(tmp_path.iterdir()) == []
