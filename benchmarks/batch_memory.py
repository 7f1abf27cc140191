"""The memory of a worker of `medrl batch detect` over hundreds of scans.

One worker works through copies of the MNI152 template at 2 mm, for a few landmarks, pictures
included; its resident memory and that of the run that feeds it are looked at all the while. Flat
means: from the 20th scan on, no twenty scans' median is more than 5 % above that of the first
twenty of them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from evaluation.batches import write_heads
from evaluation.results import RESULTS, print_table, save

CLAIM = "A worker's memory stays flat"
COUNT, BIN = 500, 20
#: Largest growth after the first scans (%).
TARGET = 5.0
_LANDMARKS = ("Putamen_L_centroid", "Putamen_R_centroid", "CC_genu_anterior")
_MEDRL = str(Path(sys.executable).with_name("medrl"))


def watch(heads: Path, out: Path, count: int) -> tuple[list[tuple[int, float, float]], float]:
    """Run a batch; (scans done, MiB of the worker, MiB of the run) again and again, and seconds."""
    began = time.perf_counter()
    command = [_MEDRL, "batch", "detect", str(heads), str(out), "--landmarks", *_LANDMARKS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    run, seen = psutil.Process(process.pid), []
    while process.poll() is None:
        try:
            # Beside the worker there is Python's own small tracker of shared memory.
            worker = max(child.memory_info().rss for child in run.children())
            own = run.memory_info().rss
        except (psutil.Error, ValueError):
            continue  # it is beginning or ending
        done = sum(1 for _ in out.glob("*/case.json"))
        if 0 < done < count:
            seen.append((done, worker / 2**20, own / 2**20))
        time.sleep(0.25)
    if process.returncode != 0:
        raise SystemExit(f"the batch ended with {process.returncode}")
    return seen, time.perf_counter() - began


def measured(result: dict[str, Any]) -> str:
    """Memory of a worker and how it grows."""
    return (
        f"{result['worker_mib']:.0f} MiB after 20 scans, {result['growth_percent']:+.1f} % at most "
        f"over {result['scans']}"
    )


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=COUNT, help="scans")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_heads(root / "in", options.count, spacing=2)
        seen, seconds = watch(root / "in", root / "out", options.count)
    bins: dict[int, list[tuple[float, float]]] = {}
    for done, worker, run in seen:
        bins.setdefault(done // BIN * BIN, []).append((worker, run))
    rows = [
        [first, *(statistics.median(values) for values in zip(*held, strict=True))]
        for first, held in sorted(bins.items())
    ]
    print_table(["scans done", "worker, MiB", "run, MiB"], rows)
    after = [float(row[1]) for row in rows if row[0] >= BIN]
    growth = 100 * (max(after) / after[0] - 1)
    print(f"growth after {BIN} scans: {growth:.1f} % (target {TARGET:g})")
    if options.save:
        result = {
            "scans": options.count,
            "seconds": seconds,
            "mib_by_scans_done": {str(first): [worker, run] for first, worker, run in rows},
            "worker_mib": after[0],
            "most_mib": max(worker for _, worker, _ in seen),
            "growth_percent": growth,
            "target_percent": TARGET,
        }
        save(RESULTS / "batch_memory.json", result, {CLAIM: measured})


if __name__ == "__main__":
    main()
