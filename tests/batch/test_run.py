"""Runs that are ended in every way and go on: what is there is whole, nothing is done twice."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from medrl.batch.discover import discover
from medrl.batch.run import plan, run
from medrl.batch.store import Store
from medrl.engines.local import LocalEngine
from medrl.errors import MedrlError
from medrl.systems import by_verb

STUB = Path(__file__).parent / "stubs" / "stub_task.py"


@pytest.fixture
def task(tmp_path):
    from stub_task import StubTask

    return StubTask(tmp_path / "log.txt")


def rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def logged(task):
    return task.log.read_text().split() if task.log.exists() else []


def whole(out):
    """Names of the cases that are there; nothing half is."""
    halves = [p for p in out.rglob("half.txt") if not (p.parent / "case.json").exists()]
    assert not [p for p in halves if ".medrl" not in p.parts]
    cases = [path for path in out.rglob("case.json") if ".medrl" not in path.parts]
    return sorted(path.parent.name for path in cases)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def start(task, scans, out, workers=1, flavour="plain"):
    """A run in a process group of its own, as a shell makes one."""
    arguments = [str(task.log), str(scans), str(out), str(workers), flavour]
    return subprocess.Popen(
        [sys.executable, str(STUB), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_every_case_is_done_once(task, scans, tmp_path):
    out, told = tmp_path / "out", []
    cases = discover(scans, by_verb("detect"))
    summary = run(task, cases, out, LocalEngine(2), on_end=told.append)
    assert (summary.done, summary.failed) == (6, 0)
    assert sorted(logged(task)) == [f"scan{n}" for n in range(6)] == whole(out)
    assert sorted(o.name for o in told) == whole(out)
    table = rows(out / "results.csv")
    assert [row["value"] for row in table] == [str(n) for n in range(6)]
    assert table[0]["warnings"] == "a warning"
    assert rows(out / "failures.csv") == []
    content = json.loads((out / "run.json").read_text())
    assert content["done"] == 6
    assert content["task"] == {"flavour": "plain"}
    # Once more: nothing is left to do.
    run(task, cases, out, LocalEngine(1))
    assert len(logged(task)) == 6


def test_what_fails_is_listed_and_the_rest_goes_on(task, scans, tmp_path):
    out = tmp_path / "out"
    for number, text in enumerate(("refuse", "bug", "memory", "crash")):
        (scans / f"scan{number}.nii.gz").write_text(text)
    cases = discover(scans, by_verb("detect"))
    summary = run(task, cases, out, LocalEngine(1))
    assert (summary.done, summary.failed) == (2, 4)
    assert whole(out) == ["scan4", "scan5"]
    why = {row["case"]: row["reason"] for row in rows(out / "failures.csv")}
    assert why["scan0"] == "this is no scan"
    assert why["scan1"].startswith("unexpected KeyError")
    assert "memory" in why["scan2"]
    assert "SIGKILL" in why["scan3"]
    # What has failed is left so, until it is to be tried again.
    before = len(logged(task))
    run(task, cases, out, LocalEngine(1))
    assert len(logged(task)) == before
    for number in range(4):
        (scans / f"scan{number}.nii.gz").write_text("5")
    assert run(task, cases, out, LocalEngine(1), retry=True).done == 6
    assert rows(out / "failures.csv") == []


def test_a_worker_that_dies_once_costs_nothing(task, scans, tmp_path):
    (scans / "scan2.nii.gz").write_text("crash once")
    summary = run(task, discover(scans, by_verb("detect")), tmp_path / "out", LocalEngine(1))
    assert (summary.done, summary.failed) == (6, 0)


def test_a_reader_that_hangs_is_given_up(task, scans, tmp_path):
    (scans / "scan1.nii.gz").write_text("hang")
    cases = discover(scans, by_verb("detect"))
    summary = run(task, cases, tmp_path / "out", LocalEngine(1), timeout=1.0)
    assert (summary.done, summary.failed) == (5, 1)
    (row,) = rows(tmp_path / "out" / "failures.csv")
    assert row["case"] == "scan1"
    assert "reading took longer than 1 s" in row["reason"]


def test_a_full_disk_ends_the_run_without_half_results(task, scans, tmp_path):
    out = tmp_path / "out"
    (scans / "scan3.nii.gz").write_text("full")
    cases = discover(scans, by_verb("detect"))
    with pytest.raises(MedrlError, match="No space left"):
        run(task, cases, out, LocalEngine(1))
    assert "scan3" not in whole(out)
    (scans / "scan3.nii.gz").write_text("3")
    assert run(task, cases, out, LocalEngine(1)).done == 6


def test_a_run_that_is_killed_goes_on_where_it_was(task, scans, tmp_path):
    out = tmp_path / "out"
    for number in range(6):
        (scans / f"scan{number}.nii.gz").write_text("slow")
    process = start(task, scans, out)
    wait_for(lambda: out.exists() and len(whole(out)) >= 2)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    wait_for(lambda: not alive(workers))
    done = whole(out)
    run(task, discover(scans, by_verb("detect")), out, LocalEngine(1))
    assert whole(out) == [f"scan{n}" for n in range(6)]
    again = [name for name in done if logged(task).count(name) > 1]
    assert not again


def alive(processes):
    """Whether any of some processes still runs."""
    return bool(psutil.wait_procs(processes, timeout=0)[1])


def children(process):
    """What a run has started: Python's own tracker of shared memory, then workers."""
    found = psutil.Process(process.pid).children(recursive=True)
    return sorted(found, key=lambda child: child.pid)


#: How a run is told to end: by Ctrl-C in a terminal, which all its processes get; by `kill`; by a
#: scheduler.
ENDS = {
    "ctrl-c": lambda process: os.killpg(process.pid, signal.SIGINT),
    "sigint": lambda process: process.send_signal(signal.SIGINT),
    "sigterm": lambda process: process.send_signal(signal.SIGTERM),
    "slurm": lambda process: os.killpg(process.pid, signal.SIGTERM),
    "sighup": lambda process: process.send_signal(signal.SIGHUP),
}


def assert_ends(process, how):
    """It ends soon, says nothing of its own, and leaves no process; what hangs does for 600 s."""
    left = children(process)
    ENDS[how](process)
    assert process.wait(timeout=20) == 130
    assert process.stderr.read() == ""
    # Python's own tracker of shared memory goes a moment after the run.
    wait_for(lambda: not alive(left), seconds=10)


@pytest.mark.parametrize(("content", "how"), [("hang", "sigint"), *(("stuck", h) for h in ENDS)])
def test_an_interruption_ends_the_run_at_once(content, how, task, scans, tmp_path):
    out = tmp_path / "out"
    (scans / "scan1.nii.gz").write_text(content)
    process = start(task, scans, out)
    if content == "stuck":  # with it, whatever else its worker does
        wait_for(lambda: "scan1" in logged(task))
    else:
        wait_for(lambda: out.exists() and whole(out) == ["scan0"])
    assert_ends(process, how)
    done = whole(out)
    assert [row["case"] for row in rows(out / "results.csv")] == done
    (scans / "scan1.nii.gz").write_text("1")
    assert run(task, discover(scans, by_verb("detect")), out, LocalEngine(1)).done == 6
    assert all(logged(task).count(name) == 1 for name in done)


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_an_interruption_while_workers_load(how, task, scans, tmp_path):
    process = start(task, scans, tmp_path / "out", workers=2, flavour="stuck")
    wait_for(task.log.with_name("loading").exists)
    assert_ends(process, how)
    assert whole(tmp_path / "out") == []


@pytest.mark.parametrize("how", ["ctrl-c", "slurm"])
def test_an_interruption_while_workers_are_born(how, task, scans, tmp_path):
    process = start(task, scans, tmp_path / "out", workers=2)
    wait_for(lambda: len(children(process)) > 1)
    assert_ends(process, how)


def test_no_worker_outlives_a_run_that_is_killed_while_they_load(task, scans, tmp_path):
    process = start(task, scans, tmp_path / "out", workers=2, flavour="stuck")
    wait_for(task.log.with_name("loading").exists)
    left = children(process)
    process.kill()
    process.wait()
    wait_for(lambda: not alive(left), seconds=10)


def test_a_worker_that_is_killed_from_outside_costs_nothing(task, scans, tmp_path):
    out = tmp_path / "out"
    for number in range(6):
        (scans / f"scan{number}.nii.gz").write_text("slow")
    process = start(task, scans, out, workers=2)
    wait_for(lambda: out.exists() and len(whole(out)) >= 1)
    children(process)[-1].kill()
    assert process.wait(timeout=120) == 0
    assert whole(out) == [f"scan{n}" for n in range(6)]
    assert rows(out / "failures.csv") == []


def test_a_worker_that_dies_while_it_loads_is_replaced(task, scans, tmp_path):
    from stub_task import StubTask

    unlucky = StubTask(task.log, "unlucky")
    cases = discover(scans, by_verb("detect"))
    task.log.with_name("deaths").write_text("2")
    assert run(unlucky, cases, tmp_path / "out", LocalEngine(1)).done == 6
    # If none can, the run says so.
    task.log.with_name("deaths").write_text("100")
    with pytest.raises(MedrlError, match="end before they begin: SIGKILL, out of memory"):
        run(unlucky, cases, tmp_path / "other", LocalEngine(1))


def test_a_case_that_hangs_among_others_is_found_out(task, scans, tmp_path):
    from stub_task import StubTask

    (scans / "scan2.nii.gz").write_text("stuck")
    several = StubTask(task.log, batch_size=4)
    cases = discover(scans, by_verb("detect"))
    summary = run(several, cases, tmp_path / "out", LocalEngine(1), timeout=1.5)
    assert (summary.done, summary.failed) == (5, 1)
    (row,) = rows(tmp_path / "out" / "failures.csv")
    assert (row["case"], row["reason"]) == ("scan2", "working took longer than 1.5 s (--timeout)")


def test_the_cores_that_are_granted_are_divided_among_the_workers(monkeypatch):
    from medrl.engines import local

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 6, 7, 9, 11})
    assert local.threads_of(2) == 3
    assert local.threads_of(4) == 1
    assert local.threads_of(9) == 1


def test_two_runs_on_one_folder(task, scans, tmp_path):
    store = Store(tmp_path / "out")
    cases = discover(scans, by_verb("detect"))
    with store.locked(), pytest.raises(MedrlError, match=f"another run .*process {os.getpid()}"):
        run(task, cases, tmp_path / "out", LocalEngine(1))
    assert not logged(task)
    assert run(task, cases, tmp_path / "out", LocalEngine(1)).done == 6


def test_results_of_another_task_are_not_mixed(task, scans, tmp_path):
    from stub_task import StubTask

    cases = discover(scans, by_verb("detect"))
    run(task, cases, tmp_path / "out", LocalEngine(1))
    with pytest.raises(MedrlError, match="flavour"):
        run(StubTask(task.log, "other"), cases, tmp_path / "out", LocalEngine(1))


def test_another_scan_under_the_same_name_is_done_anew(task, scans, tmp_path):
    out = tmp_path / "out"
    for number in range(1, 6):
        (scans / f"scan{number}.nii.gz").unlink()
    assert run(task, discover(scans, by_verb("detect")), out, LocalEngine(1)).done == 1
    # The folder has moved: that is no other scan.
    moved = discover(scans.rename(tmp_path / "moved"), by_verb("detect"))
    assert plan(moved, out).todo == ()
    (tmp_path / "moved" / "scan0.nii.gz").rename(tmp_path / "moved" / "scan0.nii")
    (tmp_path / "moved" / "scan0.nii").write_text("7")
    other = discover(tmp_path / "moved", by_verb("detect"))
    assert [case.name for case in other] == ["scan0"]
    assert run(task, other, out, LocalEngine(1)).done == 1
    assert [row["value"] for row in rows(out / "results.csv")] == ["7"]


def test_odd_files_fail_or_work_alone(task, scans, tmp_path):
    out = tmp_path / "out"
    shown = os.fsencode(scans) + b"/Sch\xe4del.nii.gz"
    with open(shown, "wb") as stream:
        stream.write(b"8")
    (scans / "scan1.nii.gz").unlink()
    (scans / "scan1.nii.gz").symlink_to("annex/objects/x")
    (scans / "notes.txt").write_text("x")
    found = discover(scans, by_verb("detect"))
    (scans / "scan2.nii.gz").unlink()  # between planning and running
    options = {"where": str(scans)}
    ended = run(task, found, out, LocalEngine(1), options=options, left_out=found.left_out)
    assert (ended.done, ended.failed) == (5, 2)
    assert {row["case"] for row in rows(out / "failures.csv")} == {"scan1", "scan2"}
    assert "Sch%e4del" in whole(out)
    (left,) = rows(out / "left_out.csv")
    assert (Path(left["path"]).name, left["reason"]) == ("notes.txt", "no scan by its name")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Left out" in page
    assert "Sch%e4del" in page


def test_shards_share_a_folder(task, scans, tmp_path):
    out = tmp_path / "out"
    cases = discover(scans, by_verb("detect"))
    run(task, cases[::2], out, LocalEngine(1), shard="1/2")
    run(task, cases[1::2], out, LocalEngine(1), shard="2/2")
    assert whole(out) == [f"scan{n}" for n in range(6)]
    assert len(logged(task)) == 6
    assert plan(cases, out).todo == ()
    # The tables are of the whole folder.
    assert len(rows(out / "results.csv")) == 6


def test_the_report_shows_what_stands_out_first_and_takes_no_text_for_html(task, scans, tmp_path):
    values = ("1.0", "1.1", "0.9", "1.05", "0.95", "9")
    (scans / "scan3.nii.gz").rename(scans / "scan&3.nii.gz")
    for file, value in zip(sorted(scans.iterdir()), values, strict=True):
        file.write_text(value)
    run(task, discover(scans, by_verb("detect")), tmp_path / "out", LocalEngine(1))
    page = (tmp_path / "out" / "report.html").read_text()
    shown = page[page.index("Scans, what stands out first") :]
    names = [part.split("<")[0] for part in shown.split('/">')[1:]]
    assert names[0] == "scan5"
    assert len(names) == 6
    assert shown.count('card out"') == 1
    assert "scan&amp;3" in names
    assert "scan&3" not in page
