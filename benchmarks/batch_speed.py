"""`medrl batch detect` against a shell loop of `medrl detect`, and two workers against one.

All in one run, over the same copies of the MNI152 template, pictures included, one thread a
process. The loop and one worker have one and the same core; two workers have two. One worker on
two cores tells what it gains by reading, working and writing at the same time. What is said of the
whole time holds Python's start and the loading of the model; the rate is that of a run under way,
from the first scan of every worker to the last scan. The loop's time is that of its first scans,
times as many.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from evaluation.batches import write_heads
from evaluation.results import RESULTS, print_table, save

CLAIM = "A batch is faster than a shell loop, and two workers than one"
COUNT = 32
#: The loop is so slow, and each of its turns so much like the others, that it gets only these.
LOOPED = 8
#: What a run must reach: times the speed of the loop, and of one worker.
TARGETS = {"over_loop": 3.0, "two_workers_over_one": 1.8}
_MEDRL = str(Path(sys.executable).with_name("medrl"))
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def medrl(*arguments: str | Path, cores: set[int]) -> float:
    """Run the command on some cores with one thread; seconds that it took."""
    began = time.perf_counter()
    subprocess.run(
        [_MEDRL, *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | dict.fromkeys(_ONE_THREAD, "1"),
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return time.perf_counter() - began


def positions(table: Path) -> dict[tuple[str, str], list[str]]:
    """Where the landmarks are, by scan and name."""
    with table.open(encoding="utf-8") as stream:
        return {
            (row.get("case", table.stem), row.get("landmark") or row["name"]): [
                row[axis] for axis in "xyz"
            ]
            for row in csv.DictReader(stream)
        }


def loop(heads: list[Path], out: Path, cores: set[int]) -> tuple[float, dict[Any, list[str]]]:
    """One process a scan; seconds, and what was found."""
    seconds = sum(medrl("detect", head, "-o", out, cores=cores) for head in heads)
    found: dict[Any, list[str]] = {}
    for table in out.glob("*.csv"):
        found |= positions(table)
    return seconds, found


def batch(
    heads: Path, out: Path, workers: int, cores: set[int]
) -> tuple[dict[str, float], dict[Any, list[str]]]:
    """One run over all; whole time and rate, and what was found."""
    log = out.with_suffix(".log")
    seconds = medrl(
        *("batch", "detect", heads, out, "--workers", str(workers), "--json-log", log), cores=cores
    )
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    ends = [
        datetime.fromisoformat(event["time"]).timestamp()
        for event in events
        if event["event"] == "case" and event["status"] == "done"
    ]
    stages = [event["seconds"] for event in events if event["event"] == "case"]
    under_way = (len(ends) - workers) / (ends[-1] - ends[workers - 1])
    told = {
        "seconds": seconds,
        "scans_a_minute": 60 * under_way,
        **{f"{name}_s": float(np.median([s[name] for s in stages])) for name in stages[0]},
    }
    return told, positions(out / "results.csv")


def differ(found: list[dict[Any, list[str]]]) -> float:
    """Largest distance (mm along an axis) between answers of the runs; they must be the same."""
    first, *others = found
    worst = 0.0
    for other in others:
        if set(other) != set(first):
            raise SystemExit("the runs have found different landmarks")
        for key, place in first.items():
            if [p == "" for p in place] != [p == "" for p in other[key]]:
                raise SystemExit(f"{key}: is absent in one run only")
            pairs = zip(place, other[key], strict=True)
            worst = max([worst, *(abs(float(a) - float(b)) for a, b in pairs if a)])
    return worst


def measured(result: dict[str, Any]) -> str:
    """Times the speed of the loop, and of one worker."""
    runs = ", ".join(f"{k} {v['scans_a_minute']:.0f}/min" for k, v in result["runs"].items())
    return (
        f"{result['over_loop']:.1f}x over the loop ({result['scans']} scans, start and all); two "
        f"workers {result['two_workers_over_one']:.2f}x one; {runs}"
    )


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=COUNT, help="scans")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    one, *more = sorted(os.sched_getaffinity(0))
    if not more:
        raise SystemExit("this takes two cores")
    two = {one, more[0]}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        heads = write_heads(root / "in", options.count)
        medrl("info", cores=two)  # what is read from disk the first time is no run's fault
        turns = heads[:LOOPED]
        turns_s, looped = loop(turns, root / "loop", {one})
        loop_s = turns_s / len(turns) * len(heads)
        runs, found = {}, []
        for name, workers, cores in (
            ("one worker, one core", 1, {one}),
            ("two workers, two cores", 2, two),
            ("one worker, two cores", 1, two),
        ):
            runs[name], answers = batch(root / "in", root / name.replace(" ", "-"), workers, cores)
            found.append(answers)
    single, double, overlapping = runs.values()
    batched = {key: place for key, place in found[0].items() if key in looped}
    result = {
        "scans": options.count,
        "looped": len(turns),
        "loop_seconds": loop_s,
        "runs": runs,
        "over_loop": loop_s / single["seconds"],
        "two_workers_over_one": double["scans_a_minute"] / single["scans_a_minute"],
        "two_workers_over_one_whole": single["seconds"] / double["seconds"],
        "overlap_on_two_cores": overlapping["scans_a_minute"] / single["scans_a_minute"],
        "answers_differ_mm": max(differ(found), differ([looped, batched])),
        "targets": TARGETS,
    }
    rows: list[list[object]] = [
        ["medrl detect, a process a scan", loop_s, 60 * options.count / loop_s]
    ]
    rows += [[name, run["seconds"], run["scans_a_minute"]] for name, run in runs.items()]
    print_table(["run", "s, start and all", "scans/min"], rows)
    for name in (*TARGETS, "two_workers_over_one_whole", "overlap_on_two_cores"):
        target = f" (target {TARGETS[name]:g})" if name in TARGETS else ""
        print(f"{name}: {result[name]:.2f}{target}")
    print(f"answers differ by {result['answers_differ_mm']:.4f} mm at most")
    if options.save:
        save(RESULTS / "batch_speed.json", result, {CLAIM: measured})


if __name__ == "__main__":
    main()
