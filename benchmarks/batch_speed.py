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


def batch(heads: Path, out: Path, workers: int, cores: set[int]) -> dict[str, float]:
    """One run over all; whole time and rate."""
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
    return {
        "seconds": seconds,
        "scans_a_minute": 60 * under_way,
        **{f"{name}_s": float(np.median([s[name] for s in stages])) for name in stages[0]},
    }


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
        turns_s = sum(medrl("detect", head, "-o", root / "loop", cores={one}) for head in turns)
        loop_s = turns_s / len(turns) * len(heads)
        runs = {
            "one worker, one core": batch(root / "in", root / "one", 1, {one}),
            "two workers, two cores": batch(root / "in", root / "two", 2, two),
            "one worker, two cores": batch(root / "in", root / "overlapping", 1, two),
        }
    single, double, overlapping = runs.values()
    result = {
        "scans": options.count,
        "looped": len(turns),
        "loop_seconds": loop_s,
        "runs": runs,
        "over_loop": loop_s / single["seconds"],
        "two_workers_over_one": double["scans_a_minute"] / single["scans_a_minute"],
        "two_workers_over_one_whole": single["seconds"] / double["seconds"],
        "overlap_on_two_cores": overlapping["scans_a_minute"] / single["scans_a_minute"],
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
    if options.save:
        save(RESULTS / "batch_speed.json", result, {CLAIM: measured})


if __name__ == "__main__":
    main()
