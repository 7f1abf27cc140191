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
    with pytest.warns(UserWarning, match="left out|only") as told:
        read_points(path)
    texts = [str(warning.message).removeprefix(f"{path}: ") for warning in told]
    assert texts == [
        "points that are not placed are left out: 'unset', 'empty'",
        "only its point lists are read, not Curve ''",
    ]
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "slicer5.fcsv",
            "# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n"
            "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
            "1,-1,-2,3,0,0,0,1,1,1,0,A,,,2,0\n2,0,0,0,0,0,0,1,1,1,0,B,,,0,0\n"
            "3,0,0,0,0,0,0,1,1,1,0,C,,,3,0\n4,7,8,9,0,0,0,1,1,1,0,D,,,1,0\n"
            "5,-4,-5,6,0,0,0,1,1,1,0,E,,,,\n6,-7,-8,9,0,0,0,1,1,1,0,F,,\n",
        ),
        (
            "named.fcsv",
            "# CoordinateSystem = RAS\n# columns = label,x,y,z,sel,vis,positionStatus\n"
            "A,1,2,3,1,1,2\nB,0,0,0,1,1,0\nC,0,0,0,1,1,missing\nD,7,8,9,1,1,preview\n"
            "E,4,5,6,1,1,defined\nF,7,8,9,1,1,\n",
        ),
        (
            "table.csv",
            "label,r,a,s,defined,selected,visible,locked,description\nA,1,2,3,1,1,1,0,\n"
            "B,0,0,0,0,1,1,0,\nC,0,0,0,False,1,1,0,\nD,,,,1,1,1,0,\nE,4,5,6,True,0,0,0,\n"
            "F,7,8,9,,1,1,0,\n",
        ),
        (
            "table.tsv",
            "label\tl\tp\ts\tpositionStatus\nA\t-1\t-2\t3\tdefined\nB\t0\t0\t0\tundefined\n"
            "C\t0\t0\t0\t0\nD\t7\t8\t9\tpreview\nE\t-4\t-5\t6\t2\nF\t-7\t-8\t9\t\n",
        ),
    ],
)
def test_points_that_are_not_placed_are_named(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.warns(UserWarning, match=f"{name}: points that are not placed .*'B', 'C', 'D'$"):
        points = read_points(path)
    same(points, {"A": [1, 2, 3], "E": [4, 5, 6], "F": [7, 8, 9]})


def test_a_list_of_none_placed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label,r,a,s,defined\n" + "".join(f"P{n},0,0,0,0\n" for n in range(12)))
    with (
        pytest.warns(UserWarning, match="'P7' and 4 more$"),
        pytest.raises(MedrlError, match="no points that are placed"),
    ):
        read_points(path)


def test_fcsv_of_slicer_3(tmp_path: Path) -> None:
    path = tmp_path / "old.fcsv"
    path.write_text(
        "# Fiducial List file /tmp/my list.fcsv\n# version = 2\n# name = F\n# numPoints = 1\n"
        "# symbolScale = 5\n# visibility = 1\n# color = 0.4,1,1\n# columns = label,x,y,z,sel,vis\n"
        "AC,1.5,-2,3,1,1\n"
    )
    same(read_points(path), {"AC": [1.5, -2, 3]})


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
