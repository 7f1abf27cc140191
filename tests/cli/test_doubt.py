"""A model says up front that it was not made for a scan, and once more in the end."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from medrl.batch.cases import MARKER

LINE = "random was not made for this scan, do not rely on it: its contrast is another one"


@pytest.fixture
def unfit(monkeypatch: pytest.MonkeyPatch):
    """Let the detector find that it was not made for scans of some names."""
    from medrl.landmark.detect import LandmarkDetector

    judge = LandmarkDetector._judged
    names: set[str] = set()

    def judged(self, candidates, *asked):
        found = judge(self, candidates, *asked)
        if Path(candidates.scan.meta["filename_or_obj"]).name not in names:
            return found
        return replace(found, warnings=(LINE, *found.warnings), unfit=("its contrast is another",))

    monkeypatch.setattr(LandmarkDetector, "_judged", judged)
    return names


def test_it_is_said_before_the_table_and_after_it(medrl, bundle, head, unfit, tmp_path):
    unfit.add(head.name)
    ended = medrl("detect", head, "--model", bundle, "-o", tmp_path)
    assert ended.code == 0
    lines = ended.err.splitlines()
    assert lines[0] == f"medrl: warning: {head}: {LINE}"
    assert lines[-1].startswith(f"medrl: warning: {head}: {LINE}; look at {tmp_path}")
    assert sum(LINE in line for line in lines) == 2
    assert "Putamen_L_centroid" in ended.out


def test_the_order_on_a_terminal(bundle, head, unfit, tmp_path, monkeypatch, capsys):
    """Standard output and error in one stream, as somebody sees them."""
    import sys

    from medrl.cli import main

    unfit.add(head.name)
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    assert main(["detect", str(head), "--model", str(bundle), "-o", str(tmp_path)]) == 0
    seen = capsys.readouterr().out
    first, table, last = seen.index(LINE), seen.index("confidence"), seen.rindex(LINE)
    assert first < table < last


def test_of_several_scans_the_summary_counts(medrl, bundle, head, unfit, tmp_path):
    other = tmp_path / "other.nii.gz"
    shutil.copy(head, other)
    unfit.add(other.name)
    ended = medrl("detect", head, other, "--model", bundle, "-o", tmp_path / "out")
    assert ended.code == 0
    lines = ended.err.splitlines()
    assert lines[0] == f"medrl: warning: {other}: {LINE}"
    assert lines[-1] == "medrl: warning: 1 of 2 results are not to be relied on"
    assert not any(LINE in line and f"{head}:" in line for line in lines)


def test_a_batch_has_it_in_table_report_and_summary(medrl, bundle, head, tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name in ("fit.nii.gz", "odd.nii.gz"):
        shutil.copy(head, scans / name)
    command = ("batch", "detect", scans, out, "--model", bundle, "--no-picture")
    ended = medrl(*command)
    assert (ended.code, ended.err) == (0, "")
    # Workers are processes of their own, in which no other model can be put: say it for them.
    marker = out / "odd" / MARKER
    record = json.loads(marker.read_text())
    assert record["doubtful"] is False
    marker.write_text(json.dumps(record | {"doubtful": True, "warnings": [LINE]}))
    again = medrl(*command)
    assert "medrl: warning: 1 of 2 results are not to be relied on" in again.err
    with (out / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["case"] for row in rows if row["doubtful"] == "True"} == {"odd"}
    assert next(row["warnings"] for row in rows if row["case"] == "odd") == LINE
    page = (out / "report.html").read_text()
    assert "1 not to be relied on" in page
    assert page.index(">odd<") < page.index(">fit<")


def test_a_batch_tells_of_a_doubt_first(unfit, bundle, head, tmp_path):
    from medrl.batch.cases import Case, Source
    from medrl.batch.store import Store
    from medrl.batch.task import SystemTask
    from medrl.systems import by_verb

    unfit.add(head.name)
    system = by_verb("detect")
    task = SystemTask(system.name, str(bundle), system.options(), picture=False)
    processor = task.open(1, Store(tmp_path / "out"))
    case = Case("odd", {"scan": Source(head)})
    (result,) = processor.work([case], [processor.read(case)], lambda _: None)
    folder = tmp_path / "work"
    folder.mkdir()
    record = processor.save(case, result, folder)
    assert record.doubtful
    assert record.warnings[0] == f"{LINE}; look at it before you use it"
    assert sum(LINE in line for line in record.warnings) == 1


def test_programs_are_told(medrl, bundle, head, unfit, tmp_path):
    command = ("detect", head, "--model", bundle, "-o", tmp_path, "--no-picture", "--json")
    assert medrl(*command).json()["scans"][0]["doubt"] is None
    unfit.add(head.name)
    (scan,) = medrl(*command).json()["scans"]
    assert scan["doubt"] == LINE
    assert LINE not in scan["warnings"]


@pytest.mark.parametrize("name", ["MNI152Lin_T2w", "MNI152Lin_PDw", "MNI152Lin_T1w"])
def test_a_t2_head_is_for_another_model_and_a_t1_head_is_not(medrl, data_root, tmp_path, name):
    scan = data_root / "afids_templates" / "images" / f"{name}.nii.gz"
    ended = medrl("detect", scan, "-o", tmp_path, "--no-picture", "--json")
    (told,) = ended.json()["scans"]
    other = not name.endswith("T1w")
    assert told["model"] == ("head-any" if other else "brain-t1")
    assert any(line.startswith("searched by head-any") for line in told["warnings"]) == other
    assert told["doubt"] is None
