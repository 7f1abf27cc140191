"""Agents that walk next to a part detector with a spatial model (Tompson et al. 2014).

Both learned on the same scans with the same augmentation. IXI heads as they are, corrupted and cut
in half, and skulls of mice: errors, outliers, presence, CPU time, memory; the part detector also
without what its maps say of each other. Figures for tuning come from --split val.
"""

from __future__ import annotations

import os

# Times are given for one thread: set before PyTorch and Numba load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from evaluation import ixi
from evaluation.images import LabelledImage
from evaluation.results import RESULTS, save
from landmark_accuracy import corrupted, halves
from landmark_skulls import skulls

from medrl.evaluation import compare, plain, summarize
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.evaluate import (
    AGENTS,
    Labelled,
    Method,
    agents,
    errors,
    measure_methods,
    presence,
)
from medrl.landmark.parts.model import PartModel

PARTS, ALONE = "part detector", "part detector without spatial model"
#: Errors above this many mm are outliers.
OUTLIER_MM = {"heads": 10.0, "skulls": 2.0}
#: Says in a process of its own how much memory it took at most, MiB.
_MEMORY = """
import sys
from pathlib import Path
from medrl import LandmarkDetector
LandmarkDetector.load(sys.argv[1], alone=True).detect(sys.argv[2])
(line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in one]
print(int(line.split()[1]) / 1024)
"""


def methods_of(walking: str, parts: str) -> dict[str, Method]:
    """Agents, the part detector, and that without messages."""
    detector = LandmarkDetector.load(parts)
    if not isinstance(detector.model, PartModel):
        raise SystemExit(f"{parts} is no part detector")
    silent = LandmarkDetector(replace(detector.model, spatial=None))
    return {
        AGENTS: agents(LandmarkDetector.load(walking, alone=True)),
        PARTS: agents(detector),
        ALONE: agents(silent),
    }


def measured(heads: Sequence[LabelledImage], methods: dict[str, Method], kind: str) -> Any:
    """Figures of all methods on some scans."""
    found = measure_methods(
        heads,
        methods,
        load=lambda head: Labelled(head.name, head.scan(), head.points_world, head.subject),
        subject=lambda head: head.subject,
        clock=time.process_time,
        progress=lambda done, total, name: print(f"{done}/{total} {name}", flush=True),
    )
    error = {method: found.select(metric="error_mm", method=method) for method in methods}
    return {
        "error_mm": {name: errors(found.select(method=name))["all"] for name in methods},
        "outliers": {
            name: int((rows.values > OUTLIER_MM[kind]).sum()) for name, rows in error.items()
        },
        "presence": {name: presence(found, method=name) for name in methods},
        "agents_minus_parts": compare(found, "error_mm", AGENTS, PARTS),
        "cpu_s": {
            name: summarize(found.select(method=name, metric="seconds").values)["mean"]
            for name in methods
        },
    }


def memory_mib(model: str, scan: Path) -> float:
    """Most memory of a process that searches one scan."""
    command = [sys.executable, "-c", _MEMORY, model, str(scan)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", nargs=2, default=("brain-t1", "brain-t1-parts"))
    parser.add_argument("--skulls", nargs=2, default=("mouse-skull-ct", "mouse-skull-ct-parts"))
    parser.add_argument("--split", choices=("val", "holdout"), default="holdout")
    parser.add_argument("--corruptions", type=int, default=2, help="corrupted copies a head")
    parser.add_argument("--out", type=Path, help="JSON file; by default in results/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    subjects = ixi.subjects(options.split)
    heads = methods_of(*options.heads)
    mice = methods_of(*options.skulls)
    scan = ixi.data_root() / "ixi_brain_t1" / "t1" / f"{subjects[0]}.nii.gz"
    result = {
        "models": [*options.heads, *options.skulls],
        "split": options.split,
        "heads": measured([ixi.load(s) for s in subjects], heads, "heads"),
        "corrupted heads": measured(
            [h for s in subjects for h in corrupted(s, options.corruptions)], heads, "heads"
        ),
        "half heads": measured([h for s in subjects for h in halves(s, 1)], heads, "heads"),
        "skulls": measured(
            skulls({"val": "validation", "holdout": "test"}[options.split]), mice, "skulls"
        ),
        "memory_mib": {name: memory_mib(name, scan) for name in options.heads},
    }
    save(options.out or RESULTS / f"landmark_parts_{options.split}.json", result, CLAIMS)
    print(*(words(plain(result)) for words in CLAIMS.values()), sep="\n")


def in_words(result: dict[str, Any]) -> str:
    """Errors, outliers and presence of each method on each kind of scan."""
    parts = []
    for kind in ("heads", "corrupted heads", "half heads", "skulls"):
        each = []
        for name, error in result[kind]["error_mm"].items():
            told = result[kind]["presence"][name]
            right = (told["true_positive"] + told["true_negative"]) / sum(told.values())
            limit = OUTLIER_MM["skulls" if kind == "skulls" else "heads"]
            each.append(
                f"{name} {error['mean']:.2f} mm, {result[kind]['outliers'][name]} of "
                f"{error['count']} above {limit:g}, presence {right:.1%}, "
                f"{result[kind]['cpu_s'][name]:.1f} CPU-s"
            )
        parts.append(f"{kind}: {'; '.join(each)}")
    memory = ", ".join(f"{name} {mib:.0f} MiB" for name, mib in result["memory_mib"].items())
    return f"{'. '.join(parts)}. Memory: {memory}"


CLAIMS: dict[str, Callable[[dict[str, Any]], str]] = {
    "Agents next to a part detector with a spatial model": in_words,
}


if __name__ == "__main__":
    main()
