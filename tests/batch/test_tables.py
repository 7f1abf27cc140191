"""The tables of a run, its history and its log of events."""

import base64
import csv
import io
import json
import math
import os
import platform
import re
import shutil
import sys
from datetime import datetime

import pytest
from PIL import Image

from medrl.batch.cases import Case, Source
from medrl.batch.discover import discover
from medrl.batch.events import EventLog
from medrl.batch.history import Entry, entries
from medrl.batch.report import write_report
from medrl.batch.run import Plan, run
from medrl.batch.store import Record, Store
from medrl.batch.tables import write_tables
from medrl.engines import Outcome
from medrl.engines.local import LocalEngine
from medrl.errors import MedrlError
from medrl.systems import by_verb

ROWS = {
    "a": [
        {"landmark": "AC", "x": 1.25, "seeds": 3, "trusted": True, "note": "", "mixed": 1},
        {"landmark": "PC", "x": None, "seeds": None, "trusted": None, "note": "a, b", "mixed": 2.5},
    ],
    "b/c": [{"landmark": "Ä\n", "x": -7, "seeds": 0, "trusted": False, "note": None, "late": "x"}],
}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "out")
    for name, rows in ROWS.items():
        case = Case(name, {"scan": Source(tmp_path / "scan.nii")})
        record = Record(rows, ["one", "two"] if name == "a" else [])
        store.finish(case, store.work_folder(case), record, {"working": 1.5})
    store.fail(Case("d", {"scan": Source(tmp_path / "d.nii")}), "is damaged")
    return store


def test_parquet_holds_what_the_csv_holds_with_types(store):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_tables(store, {"verb": "detect"})
    table = parquet.read_table(store.root / "results.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "case": "string",
        "landmark": "string",
        "x": "double",
        "seeds": "int64",
        "trusted": "bool",
        "note": "string",
        "mixed": "double",
        "doubtful": "bool",
        "warnings": "string",
        "late": "string",
    }
    with (store.root / "results.csv").open(newline="") as stream:
        texts = list(csv.DictReader(stream))
    rows = table.to_pylist()
    assert list(rows[0]) == list(texts[0])
    for row, text in zip(rows, texts, strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                assert math.isclose(value, float(text[name]))
            else:
                assert text[name] == ("" if value is None else str(value))
    assert [row["case"] for row in rows] == ["a", "a", "b/c"]
    assert rows[0]["warnings"] == "one; two"
    assert json.loads((store.root / "run.json").read_text())["parquet"] == "written"


def test_without_pyarrow_there_is_no_old_parquet(store, monkeypatch):
    (store.root / "results.parquet").write_text("of an earlier run")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write_tables(store, {"verb": "detect"})
    assert not (store.root / "results.parquet").exists()
    assert "medrl[parquet]" in json.loads((store.root / "run.json").read_text())["parquet"]


def test_nothing_done_makes_tables_too(tmp_path):
    store = Store(tmp_path)
    write_tables(store, {"verb": "detect"})
    write_report(store, by_verb("detect"), {})
    assert (tmp_path / "results.csv").read_text().split() == ["case"]
    assert "0 done, 0 failed" in (tmp_path / "report.html").read_text()


def test_every_run_is_written_down(scans, tmp_path):
    from stub_task import StubTask

    out, task = tmp_path / "out", StubTask(tmp_path / "log.txt")
    cases = discover(scans, by_verb("detect"))
    (scans / "scan1.nii.gz").write_text("refuse")
    # One that is killed says so by having no end.
    Entry(Store(out), {"workers": 9}, shard="1/2", todo=6)
    (Store(out).own("runs") / "20200101-damaged.json").write_text("{")
    before = datetime.now().astimezone().replace(microsecond=0)
    run(task, cases, out, LocalEngine(1), options={"workers": 1, "where": "in"})
    content = json.loads((out / "run.json").read_text())
    killed, latest = content["runs"]
    assert (killed["ended"], killed["end"], killed["shard"]) == (None, None, "1/2")
    assert (latest["todo"], latest["done"], latest["failed"]) == (6, 5, 1)
    assert latest["end"] == content["end"] == "finished"
    assert content["options"] == {"workers": 1, "where": "in"}
    assert content["host"] == platform.node()
    assert before <= datetime.fromisoformat(latest["started"])
    assert datetime.fromisoformat(latest["started"]) <= datetime.fromisoformat(content["ended"])
    assert content["started"] == killed["started"]
    assert content["seconds"]["scan0"].keys() == {"reading", "working", "writing"}
    # One that cannot go on says why.
    (scans / "scan1.nii.gz").write_text("full")
    with pytest.raises(MedrlError):
        run(task, cases, out, LocalEngine(1), retry=True)
    assert "No space left" in entries(Store(out))[-1]["end"]


# -------------------------------------------------------------------------------------------------


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_written_as_they_happen(store, tmp_path):
    from stub_task import StubTask

    path = tmp_path / "log.jsonl"
    done = Case("a", {"scan": Source(tmp_path / "scan.nii")})
    failed = Case("d", {"scan": Source(tmp_path / "d.nii")})
    task = StubTask(tmp_path / "log.txt")
    with EventLog(path) as log:
        log.start(task, Plan((done, failed), (), ()), {"workers": 1})
        assert [event["event"] for event in events(path)] == ["start"]
        log.case(Outcome("a", result=store.record(done)))
        log.case(Outcome("d", "is\ndamaged"))
        assert len(events(path)) == 3
        log.end("interrupted", [done, failed], store.root)
    start, first, second, end = events(path)
    assert (start["cases"], start["todo"], start["done"]) == (2, 2, 0)
    assert (start["verb"], start["task"]) == ("detect", {"flavour": "plain"})
    assert (start["process"], start["options"]) == (os.getpid(), {"workers": 1})
    assert (first["name"], first["status"], first["reason"]) == ("a", "done", None)
    assert (first["seconds"], first["warnings"]) == ({"working": 1.5}, ["one", "two"])
    assert (second["status"], second["reason"], second["seconds"]) == ("failed", "is\ndamaged", {})
    assert (end["how"], end["done"], end["failed"]) == ("interrupted", 1, 1)
    for event in events(path):
        assert datetime.fromisoformat(event["time"]).tzinfo is not None
    # Another run goes on below.
    with EventLog(path) as log:
        log.end("finished", [], store.root)
    assert len(events(path)) == 5


def test_a_log_that_cannot_be_written_is_said_first(tmp_path):
    with pytest.raises(MedrlError, match="cannot write the log"):
        EventLog(tmp_path / "nowhere" / "log.jsonl")
    with EventLog(None) as log:
        log.end("finished", [], tmp_path / "untouched")
    assert not (tmp_path / "untouched").exists()


# -------------------------------------------------------------------------------------------------


def test_the_report_says_why_a_scan_stands_out(tmp_path):
    store = Store(tmp_path / "out")
    for number in range(9):
        case = Case(f"odd # 100%/{number}", {"scan": Source(tmp_path / "scan.nii")})
        folder = store.work_folder(case)
        (folder / "picture.png").write_text("no picture")
        sure = 0.12 if number == 4 else 0.8 + number / 100
        rows = [
            {"landmark": "AC", "confidence": sure, "status": "found"},
            {"landmark": "PC", "confidence": None, "status": "absent" if number == 7 else "found"},
        ]
        store.finish(case, folder, Record(rows, picture="picture.png"), {"working": 1.0})
    write_report(store, by_verb("detect"), {"model": "<b>"})
    page = (store.root / "report.html").read_text()
    cards = re.split('<div class="card(?: out)?">', page)[1:]
    told = {card.split("</a></b>")[0].rpartition(">")[2]: card for card in cards}
    assert list(told)[:2] == ["odd # 100%/4", "odd # 100%/7"]
    assert "confidence of AC 0.12, others about 0.83" in told["odd # 100%/4"]
    assert "absent 1, others about 0" in told["odd # 100%/7"]
    assert page.count('card out"') == 2
    assert "2 stand out" in page
    assert 'href="odd%20%23%20100%25/4/"' in page
    assert "its picture cannot be read" in page
    assert "&lt;b&gt;" in page


def test_among_few_scans_none_stands_out(tmp_path):
    store = Store(tmp_path / "out")
    for number, sure in enumerate((0.5, 0.51, 0.52, 0.99)):
        case = Case(str(number), {"scan": Source(tmp_path / "scan.nii")})
        rows = [{"landmark": "AC", "confidence": sure, "status": "found"}]
        store.finish(case, store.work_folder(case), Record(rows), {"working": 1.0})
    write_report(store, by_verb("detect"), {})
    assert 'card out"' not in (store.root / "report.html").read_text()


def test_the_report_shows_the_pictures_that_are_there(tmp_path):
    near, far = Store(tmp_path / "near"), Store(tmp_path / "far")
    case = Case("a/b", {"scan": Source(tmp_path / "scan.nii")})

    def finish(store, colour):
        folder = store.work_folder(case)
        Image.new("RGBA", (1000, 500), colour).save(folder / "p.png")
        store.finish(case, folder, Record([], picture="p.png"), {})

    def shown():
        write_report(near, by_verb("detect"), {})
        page = (near.root / "report.html").read_text()
        (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.size == (420, 210)
        return picture.getpixel((100, 100))

    finish(near, "red")
    assert shown()[0] > 200
    # What is done again, here or elsewhere, has another picture.
    shutil.rmtree(near.root / "a")
    finish(near, "lime")
    assert shown()[1] > 200
    shutil.rmtree(near.root / "a")
    finish(far, "blue")
    near.put(case, far.take(case))
    assert shown()[2] > 200


def test_values_that_differ_by_rounding_alone_have_a_histogram(tmp_path):
    store = Store(tmp_path / "out")
    for number, value in enumerate((0.1 + 0.2, 0.3)):
        case = Case(f"c{number}", {"scan": Source(tmp_path / "scan.nii")})
        record = Record([{"landmark": "AC", "confidence": value}])
        store.finish(case, store.work_folder(case), record, {"working": 1.0})
    write_report(store, by_verb("detect"), {})
    assert "confidence, 2<br><svg" in (store.root / "report.html").read_text()
