"""What is found in folders, globs and manifests, and what it is called."""

import json
import os
import socket

import pydicom
import pytest

from medrl.batch.cases import Case, Source
from medrl.batch.discover import discover
from medrl.batch.task import parse_given
from medrl.errors import MedrlError
from medrl.systems import by_verb


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def names(cases):
    return [case.name for case in cases]


def test_scans_at_any_depth_are_named_by_where_they_lie(tmp_path):
    touch(tmp_path, "a.nii.gz", "deep/er/b.nrrd", "deep/c.mha", "deep/notes.txt", ".hidden/d.nii")
    touch(tmp_path, "deep/c.raw", "out/e.nii.gz")
    cases = discover(tmp_path, by_verb("detect"), leave_out=tmp_path / "out")
    assert names(cases) == ["a", "deep/c", "deep/er/b"]
    assert cases[2].sources["scan"].path == tmp_path / "deep/er/b.nrrd"


def test_names_differ_and_no_results_lie_in_those_of_others(tmp_path):
    touch(tmp_path, "a.nii", "a.nii.gz", "A.mha", "x/y.nii", "x.nii")
    found = names(discover(tmp_path, by_verb("detect")))
    assert len({name.casefold() for name in found}) == 5
    assert "x/y" in found
    assert "x" not in found


def test_dicom_series_are_told_apart(data_root, tmp_path):
    files = sorted((data_root / "body_ct_mr" / "example_ct_dicom").iterdir())[:9]
    for number, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        mixed, lone = tmp_path / "mixed", tmp_path / "patient" / "lone"
        folder = lone if number < 2 else mixed
        dataset.SeriesInstanceUID = "1.2.1" if number < 2 else f"1.2.{2 + number % 2}"
        dataset.SeriesNumber = number % 2
        folder.mkdir(parents=True, exist_ok=True)
        dataset.save_as(folder / file.name)
    touch(tmp_path, "mixed/README", "head.nii.gz")
    cases = discover(tmp_path, by_verb("detect"))
    assert names(cases) == ["head", "mixed/series-0", "mixed/series-1", "patient/lone"]
    assert [case.sources["scan"].series for case in cases] == [None, "1.2.2", "1.2.3", "1.2.1"]


def test_globs(tmp_path):
    touch(tmp_path, "s1/t1.nii.gz", "s2/t1.nii.gz", "s2/t2.nii.gz")
    assert names(discover(tmp_path / "*" / "t1.nii.gz", by_verb("detect"))) == ["s1/t1", "s2/t1"]
    with pytest.raises(MedrlError, match="holds no scans"):
        discover(tmp_path / "*.nii", by_verb("detect"))


def test_a_datalist_made_by_medrl(tmp_path, monkeypatch):
    touch(tmp_path, "scans/a.nii.gz", "scans/b.nii.gz", "labels/b.nii.gz", "list/points.csv")
    entries = [
        {
            "image": f"../scans/{name}.nii.gz",
            "label": "../labels/b.nii.gz",
            "landmarks": "points.csv",
        }
        for name in "ab"
    ]
    content = {"landmarks": ["AC", "PC"], "training": entries[:1], "test": entries[1:]}
    (tmp_path / "list" / "datalist.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    assert names(discover("list/datalist.json", by_verb("detect"))) == ["a", "b"]
    (case,) = discover("list/datalist.json", by_verb("detect"), split="test")
    assert case.name == "b"
    # What the scan should be answered with is none of the task's business.
    assert set(case.sources) == {"scan"}
    assert not case.options
    with pytest.raises(MedrlError, match="has no list 'validation'; it has training, test"):
        discover("list/datalist.json", by_verb("detect"), split="validation")
    with pytest.raises(MedrlError, match="is no datalist"):
        discover("scans", by_verb("detect"), split="test")


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "datalist"])
def test_manifests(tmp_path, kind):
    touch(tmp_path, "one.nii.gz", "sub/two.nii.gz", "sub/two.seeds.mrk.json")
    rows = [
        {"scan": "one.nii.gz", "name": "first", "seeds": "fg:1,2,3", "target": ""},
        {"scan": "sub/two.nii.gz", "name": "", "seeds": "sub/two.seeds.mrk.json", "target": "x"},
    ]
    path = tmp_path / f"list.{'json' if kind == 'datalist' else kind}"
    if kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "datalist":
        entries = [{**row, "image": row["scan"], "scan": None} for row in rows]
        path.write_text(json.dumps({"training": entries[:1], "test": entries[1:]}))
    else:
        mark = "," if kind == "csv" else "\t"
        lines = [list(rows[0])] + [
            [f'"{value}"' if "," in value else value for value in row.values()] for row in rows
        ]
        path.write_text("\ufeff" + "\n".join(mark.join(line) for line in lines) + "\n")
    first, second = discover(path, by_verb("segment"))
    assert (first.name, first.sources["scan"]) == ("first", Source(tmp_path / "one.nii.gz"))
    assert first.options == {"seeds": "fg:1,2,3"}
    assert second.name == "sub/two"
    assert second.options == {"seeds": str(tmp_path / "sub/two.seeds.mrk.json"), "target": "x"}


def test_pairs_and_one_fixed_scan(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "atlas.nii")
    (tmp_path / "pairs.csv").write_text("fixed,moving\na.nii,b.nii\n")
    (case,) = discover(tmp_path / "pairs.csv", by_verb("register"))
    assert {role: s.path.name for role, s in case.sources.items()} == {
        "fixed": "a.nii",
        "moving": "b.nii",
    }
    # A mask comes with a pair; it is no further channel.
    (tmp_path / "masked.csv").write_text("fixed,moving,fixed_mask\na.nii,b.nii,atlas.nii\n")
    (masked,) = discover(tmp_path / "masked.csv", by_verb("register"))
    assert set(masked.sources) == {"fixed", "moving"}
    given = parse_given(by_verb("register").given, masked)
    assert (given.fixed_mask, given.init) == (tmp_path / "atlas.nii", None)
    atlas = tmp_path / "atlas.nii"
    cases = discover(tmp_path / "[ab].nii", by_verb("register"), shared={"fixed": atlas})
    assert [case.sources["fixed"].path for case in cases] == [atlas, atlas]
    with pytest.raises(MedrlError, match="--fixed"):
        discover(tmp_path, by_verb("register"))


def test_seeds_beside_a_scan(tmp_path):
    touch(tmp_path, "a.nii.gz", "a.seeds.mrk.json", "b.nii.gz")
    first, second = discover(tmp_path, by_verb("segment"))
    assert first.options == {"seeds": str(tmp_path / "a.seeds.mrk.json")}
    assert second.options == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("scan\nmissing.nii\n", "does not exist"),
        ("name\nx\n", "does not say scan"),
        ("scan,name\na.nii,../out\n", "lead elsewhere"),
        ("scan,name\na.nii,/etc/out\n", "lead elsewhere"),
        ('scan,name\na.nii,"x\ny"\n', "odd characters"),
        ("scan\n", "names no scans"),
        ("scan\na.nii,b.nii\n", "entry 1"),
    ],
)
def test_bad_manifests_are_refused_in_one_line(tmp_path, content, said):
    touch(tmp_path, "a.nii")
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(MedrlError, match=said) as error:
        discover(tmp_path / "list.csv", by_verb("detect"))
    assert "\n" not in str(error.value)


def test_nothing_there(tmp_path):
    with pytest.raises(MedrlError, match="no such"):
        discover(tmp_path / "nowhere", by_verb("detect"))
    with pytest.raises(MedrlError, match="holds no scans"):
        discover(tmp_path, by_verb("detect"))


def test_cases_survive_json():
    case = Case("a/b", {"scan": Source("x.nii", "1.2")}, {"seeds": "fg:1,2,3"})
    again = Case.of_plain(json.loads(json.dumps(case.plain())))
    assert (again.name, again.options) == (case.name, case.options)
    assert again.sources["scan"].series == "1.2"


def reasons(found):
    return {one.path.name: one.reason for one in found.left_out}


def test_links_to_one_file_are_scans_of_their_own(tmp_path):
    touch(tmp_path, "store/object.nii.gz", "in/own/a.nii.gz")
    root = tmp_path / "in"
    for name in ("ses-1", "ses-2"):
        (root / f"{name}.nii.gz").symlink_to(tmp_path / "store" / "object.nii.gz")
    (root / "hard.nii.gz").hardlink_to(tmp_path / "store" / "object.nii.gz")
    for name in ("p1", "p2"):
        (root / name).symlink_to(tmp_path / "store")
    (root / "absent.nii.gz").symlink_to("annex/objects/x")
    (root / "own" / "up").symlink_to(root)
    (root / "self").symlink_to(".")
    found = discover(root, by_verb("detect"))
    assert names(found) == sorted(
        ["absent", "hard", "ses-1", "ses-2", "p1/object", "p2/object", "own/a"]
    )
    assert all(case.source.path.is_relative_to(root) for case in found)
    assert set(reasons(found)) == {"self", "up"}
    assert "link back" in reasons(found)["up"]
    assert str(found).startswith("9 files seen, 7 taken, 2 left out: a link back")
    assert names(discover(root / "**" / "a.nii.gz", by_verb("detect"))) == ["a"]


def test_what_is_left_out_is_said(tmp_path, monkeypatch):
    touch(tmp_path, "a.nii.gz", "a.json", "x.mgz", "README", "._a.nii.gz", "c.nii.gz/c.nii")
    touch(tmp_path, "sub-01_dseg.nii.gz", "sub-01_desc-brain_mask.nii.gz", "m.seg.nii.gz")
    touch(tmp_path, "sub-01_part-phase_T2starw.nii.gz", "sub-01_part-mag_T2starw.nii.gz")
    touch(tmp_path, "done/case.json", "done/a.nii.gz", "locked/b.nii.gz", "out/r.nii.gz")
    os.mkfifo(tmp_path / "pipe.nii.gz")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.nii.gz")
    (tmp_path / "IM1").symlink_to("nowhere")
    listdir = os.listdir

    def guarded(folder):
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", guarded)
    found = discover(tmp_path, by_verb("detect"), leave_out=tmp_path / "out")
    assert names(found) == ["a", "c.nii.gz/c", "sub-01_part-mag_T2starw"]
    expected = {
        "a.json": "no scan by its name",
        "x.mgz": "convert it",
        "README": "no scan by its name",
        "._a.nii.gz": "hidden",
        "sub-01_dseg.nii.gz": "label map",
        "sub-01_desc-brain_mask.nii.gz": "label map",
        "m.seg.nii.gz": "label map",
        "sub-01_part-phase_T2starw.nii.gz": "a phase image (part-phase)",
        "done": "results of medrl",
        "locked": "cannot be searched: Permission denied",
        "pipe.nii.gz": "neither a file nor a folder",
        "socket.nii.gz": "neither a file nor a folder",
        "IM1": "git annex get",
    }
    said = reasons(found)
    assert said.keys() == expected.keys()
    for name, words in expected.items():
        assert words in said[name]
    # Where nothing is left, the reasons are the answer.
    touch(tmp_path, "texts/a.txt")
    with pytest.raises(MedrlError, match=r"no scans .*; left out: no scan by its name: 1"):
        discover(tmp_path / "texts", by_verb("detect"))


def test_odd_names_do_no_harm(tmp_path):
    raw = [b"Sch\xe4del.nii.gz", b"new\nline.nii", b"a:b.nii", b"a-b.nii", b"-x.nii"]
    raw.append(b"x" * 250 + b".nii")
    for name in raw:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as stream:
            stream.write(b"x")
    found = discover(tmp_path, by_verb("detect"))
    assert {os.fsencode(case.source.path.name) for case in found} == set(raw)
    assert len(set(names(found))) == len(raw)
    for case in found:
        (tmp_path / "out" / case.folder).mkdir(parents=True)
        json.dumps(case.plain(), ensure_ascii=False).encode()
    # A manifest may hold such bytes, too.
    (tmp_path / "list.csv").write_bytes(b"scan\n" + raw[0] + b"\n")
    (case,) = discover(tmp_path / "list.csv", by_verb("detect"))
    assert (case.name, os.path.exists(case.source.path)) == ("Sch%e4del", True)


def test_a_scan_keeps_its_name_when_others_come(tmp_path):
    touch(tmp_path, "a.nii", "a.mha")
    before = {case.source.path.name: case.name for case in discover(tmp_path, by_verb("detect"))}
    touch(tmp_path, "A.nrrd", "a.nii.gz")
    after = {case.source.path.name: case.name for case in discover(tmp_path, by_verb("detect"))}
    assert before == {"a.nii": "a.nii", "a.mha": "a.mha"}
    assert after.items() >= before.items()
