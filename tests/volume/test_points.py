import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medrl import MedrlError
from medrl.volume.points import read_points, write_curves, write_markups, write_points_csv

HAND_WRITTEN = {
    "markups": [
        {
            "type": "Fiducial",
            "coordinateSystem": "LPS",
            "controlPoints": [
                {"label": "AC", "position": [1.0, 2.0, 3.0]},
                {"label": "unset", "positionStatus": "undefined", "position": [0, 0, 0]},
                {"label": "empty"},
            ],
        },
        {"type": "Curve", "controlPoints": [{"label": "path", "position": [9, 9, 9]}]},
        {
            "type": "Fiducial",
            "coordinateSystem": "RAS",
            "coordinateUnits": ["um", "UCUM", "micrometer"],
            "controlPoints": [{"label": "PC", "position": [1000, 2000, 3000]}],
        },
    ]
}


def same(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert list(got) == list(want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-12)


def test_markups_in_lps_and_ras_without_the_undefined_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.mrk.json"
    path.write_text(json.dumps(HAND_WRITTEN))
    same(read_points(path), {"AC": [-1, -2, 3], "PC": [1, 2, 3]})


@pytest.mark.parametrize(
    ("system", "want"),
    [("0", [1, 2, 3]), ("RAS", [1, 2, 3]), ("1", [-1, -2, 3]), ("LPS", [-1, -2, 3])],
)
def test_fcsv_of_every_version(tmp_path: Path, system: str, want: list[float]) -> None:
    path = tmp_path / "a.fcsv"
    path.write_text(
        "# Markups fiducial file version = 5.0\n"
        f"# CoordinateSystem = {system}\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        'vtk_1,1,2,3,0,0,0,1,1,1,0,"F, 1",,\r\n'
    )
    same(read_points(path), {"F, 1": want})


def test_fcsv_of_real_templates(data_root: Path) -> None:
    folder = data_root / "afids_templates" / "landmarks"
    for path in sorted(folder.glob("*.fcsv")):
        points = read_points(path)
        rows = [r for r in csv.reader(path.open()) if r and not r[0].startswith("#")]
        assert len(points) == len(rows) == 32
        for row in rows:
            np.testing.assert_allclose(points[row[11]], [float(x) for x in row[1:4]])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "name,x,y,z\nAC,1,2,3\nPC,4,5,6\n"),
        ("a.csv", "\ufeffLandmark, X, Y, Z, note\nAC, 1, 2, 3, good\nPC,4,5,6\nno,,,\n\n"),
        ("a.csv", "z;y;x;label\n3;2;1;AC\n6;5;4;PC\n"),
        ("a.tsv", "label\tx\ty\tz\nAC\t1\t2\t3\nPC\t4\t5\t6\n"),
        ("a.csv", "label,l,p,s,defined\nAC,-1,-2,3,1\nPC,-4,-5,6,1\n"),
        ("a.csv", "label,r,a,s,defined\nAC,1,2,3,1\nPC,4,5,6,1\n"),
    ],
)
def test_tables(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    same(read_points(path), {"AC": [1, 2, 3], "PC": [4, 5, 6]})


def test_written_markups_are_lps_and_read_back(tmp_path: Path) -> None:
    points = {"AC": np.array([0.5, -1.25, 3.0]), "tête": np.array([0.0, 1.0, -2.0])}
    path = tmp_path / "out.mrk.json"
    write_markups(path, points, descriptions={"AC": "found"})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert "markups-schema" in content["@schema"]
    (markup,) = content["markups"]
    assert markup["type"] == "Fiducial"
    assert markup["coordinateSystem"] == "LPS"
    assert markup["coordinateUnits"] == "mm"
    first = markup["controlPoints"][0]
    assert first["position"] == [-0.5, 1.25, 3.0]
    assert (first["label"], first["description"]) == ("AC", "found")
    assert first["positionStatus"] == "defined"
    same(read_points(path), points)


def test_written_curves_are_one_markup_each(tmp_path: Path) -> None:
    path = tmp_path / "paths.mrk.json"
    write_curves(path, {"AC": [[1, 2, 3], [4, 5, 6]], "PC": [[7, 8, 9]]})
    markups = json.loads(path.read_text())["markups"]
    assert [m["type"] for m in markups] == ["Curve", "Curve"]
    assert [m["name"] for m in markups] == ["AC", "PC"]
    assert [p["position"] for p in markups[0]["controlPoints"]] == [[-1, -2, 3], [-4, -5, 6]]


def test_written_table(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    row = {"name": "a, b", "x": 1.0, "y": np.float64(2), "z": 3.00004, "confidence": float("nan")}
    write_points_csv(path, [row, row | {"name": "c", "confidence": None}])
    assert path.read_text().splitlines() == [
        "name,x,y,z,confidence",
        '"a, b",1.0000,2.0000,3.0000,',
        "c,1.0000,2.0000,3.0000,",
    ]
    same(read_points(path), {"a, b": [1, 2, 3], "c": [1, 2, 3]})
    with pytest.raises(MedrlError, match="differ"):
        write_points_csv(path, [row, {"name": "c"}])


MARKUP = '{"markups":[{"type":"Fiducial",%s"controlPoints":[{"label":"A","position":%s}]}]}'


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "1 2 3", "no file of points"),
        ("a.mrk.json", "", "empty"),
        ("a.mrk.json", "{", "not JSON"),
        ("a.mrk.json", "[1]", "not a 3D Slicer markups"),
        ("a.mrk.json", '{"markups": [1]}', "not a 3D Slicer markups"),
        ("a.mrk.json", '{"markups": []}', "no point list"),
        ("a.mrk.json", MARKUP % ("", "[1,2]"), "three finite"),
        ("a.mrk.json", MARKUP % ("", '"here"'), "not three finite numbers"),
        ("a.mrk.json", MARKUP % ("", "[1,2,null]"), "not three finite numbers"),
        ("a.mrk.json", MARKUP % ("", "[1,2,NaN]"), "finite"),
        ("a.mrk.json", MARKUP % ('"coordinateSystem":"IJK",', "[1,2,3]"), "neither LPS nor RAS"),
        ("a.mrk.json", MARKUP % ('"coordinateUnits":"inch",', "[1,2,3]"), "its unit 'inch'"),
        ("a.fcsv", "# CoordinateSystem = 2\nid,1,2,3,0,0,0,1,1,1,0,A,,\n", "neither LPS nor RAS"),
        ("a.fcsv", "id,1,2\n", "not three finite numbers"),
        ("a.csv", "a,b,c\n1,2,3\n", "first line must name"),
        ("a.csv", "1,2,3\n", "first line must name"),
        ("a.csv", "name,x,y,z\n", "holds no points that are placed"),
        ("a.csv", "name,x,y,z\nA,1,2,wrong\n", "not three finite numbers"),
        ("a.csv", "name,x,y,z\nA,1,2,inf\n", "finite"),
        ("a.csv", "name,x,y,z\nA,1,2,3\nA,4,5,6\n", "two points are named"),
        ("a.csv", "name,x,y,z\n,1,2,3\n", "has no name"),
    ],
)
def test_bad_files_of_points(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(MedrlError, match=says) as caught:
        read_points(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_of_points(tmp_path: Path) -> None:
    with pytest.raises(MedrlError, match="no such file"):
        read_points(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(MedrlError, match="not a text file"):
        read_points(tmp_path / "b.csv")


@pytest.mark.parametrize("bad", [[1, 2], [1, 2, np.nan], "abc"])
def test_bad_positions_are_not_written(tmp_path: Path, bad: Any) -> None:
    path = tmp_path / "a.mrk.json"
    with pytest.raises(MedrlError):
        write_markups(path, {"A": bad})
    assert not path.exists()
