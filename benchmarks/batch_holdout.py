"""`medrl batch detect` over the holdout heads, as a lab would run it; and what its table is worth.

The command is run as a user runs it, in a process of its own, on the list that `medrl datasets
export` writes. Halfway it is killed (SIGKILL), and the same command goes on. Errors are read from
`results.csv`, next to those of the mean position of the training heads' landmarks.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from evaluation.ixi import LANDMARKS, data_root, load, shapes, subjects
from evaluation.results import RESULTS, save

CLAIM = "A lab's run: the holdout heads, killed halfway and resumed"
_MEDRL = (str(Path(sys.executable).with_name("medrl")),)


def export(folder: Path) -> Path:
    """The list of heads, with the holdout as its test part."""
    root = data_root() / "ixi_brain_t1"
    command = [*_MEDRL, "datasets", "export", "ixi_brain_t1", "--root", str(root), "-o"]
    subprocess.run([*command, str(folder)], check=True, capture_output=True)
    return folder / "datalist.json"


def run(datalist: Path, out: Path, workers: int, *, kill_after: int | None = None) -> float:
    """Run the batch, or kill it when so many scans are done; seconds that it took."""
    command = [*_MEDRL, "batch", "detect", str(datalist), str(out), "--split", "test"]
    began = time.perf_counter()
    log = out.with_suffix(".log")
    with log.open("a") as said:
        process = subprocess.Popen(
            [*command, "--workers", str(workers)], stdout=said, stderr=said, text=True
        )
        while kill_after is not None and process.poll() is None:
            if len(list(out.glob("*/case.json"))) >= kill_after:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.05)
        code = process.wait()
    if kill_after is None and code != 0:
        raise SystemExit(f"the batch ended with {code}: {log.read_text()}")
    return time.perf_counter() - began


def errors(out: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], Counter[str]]:
    """Distances (mm) from the labels of what was found, of the mean position, rows of a scan."""
    mean = dict(zip(LANDMARKS, shapes("train").mean(axis=0), strict=True))
    found, baseline = [], []
    with (out / "results.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    heads = {subject: load(subject).points_world for subject in subjects("holdout")}
    for row in rows:
        truth = heads[row["case"]][row["landmark"]]
        if row["status"] != "absent":
            found.append(np.linalg.norm([float(row[axis]) for axis in "xyz"] - truth))
            baseline.append(np.linalg.norm(mean[row["landmark"]] - truth))
    return np.array(found), np.array(baseline), Counter(row["case"] for row in rows)


def measured(result: dict[str, Any]) -> str:
    """Errors of the table of a batch next to the mean position, and what a kill cost."""
    return (
        f"{result['scans']} heads, {result['scans_per_minute']:.0f} a minute with "
        f"{result['workers']} workers, start included; {result['landmarks']['found']} of "
        f"{result['landmarks']['of']} landmarks, mean error {result['error_mm']['mean']:.2f} mm "
        f"(mean position {result['mean_position_error_mm']['mean']:.1f} mm); killed after "
        f"{result['killed']['done_before']} and resumed: the same rows"
    )


def main() -> None:
    """Run, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="write the committed result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        datalist = export(Path(scratch) / "ixi")
        whole, broken = Path(scratch) / "whole", Path(scratch) / "broken"
        seconds = run(datalist, whole, options.workers)
        run(datalist, broken, options.workers, kill_after=10)
        before = len(list(broken.glob("*/case.json")))
        after = run(datalist, broken, options.workers)
        distances, baseline, per_scan = errors(whole)
        *_, again = errors(broken)
        facts = json.loads((whole / "run.json").read_text(encoding="utf-8"))
        working = [stages["working"] for stages in facts["seconds"].values()]
    assert per_scan == again, "the resumed run has other rows"
    result = {
        "workers": options.workers,
        "scans": len(per_scan),
        "seconds": seconds,
        "scans_per_minute": 60 * len(per_scan) / seconds,
        "working_seconds_median": float(np.median(working)),
        "landmarks": {"found": len(distances), "of": len(per_scan) * len(LANDMARKS)},
        "error_mm": {"mean": distances.mean(), "max": distances.max()},
        "mean_position_error_mm": {"mean": baseline.mean(), "max": baseline.max()},
        "killed": {"done_before": before, "seconds_after": after, "rows_are_the_same": True},
    }
    print(json.dumps(result, indent=1, default=float))
    if options.save:
        save(RESULTS / "batch_holdout.json", result, {CLAIM: measured})


if __name__ == "__main__":
    main()
