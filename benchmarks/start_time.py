"""How long the command takes from start to end: `medrl detect` of one 2 mm head, `medrl --help`.

    python benchmarks/start_time.py

Writes benchmarks/results/start_time.json. Processor seconds are those of the whole process, which
does not depend on what else the machine is doing as wall clock does; the least of the runs counts.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from evaluation.results import RESULTS, save
from nilearn.datasets import load_mni152_template

CLAIM = "The command starts quickly"
_COMMAND = [sys.executable, "-c", "from medrl.cli import main; raise SystemExit(main())"]
#: What a command may take: processor seconds of a detection, seconds of the help.
_LIMITS = {"detect_cpu_s": 6.0, "help_wall_s": 0.3}


def measure(arguments: list[str]) -> tuple[float, float]:
    """Processor and wall seconds of the command."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*_COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall


def measured(result: dict[str, Any]) -> str:
    """Seconds next to their limits."""
    limits = result["limits"]
    return (
        f"`medrl detect` of a 2 mm head {result['detect_cpu_s']:.1f} CPU-s (limit "
        f"{limits['detect_cpu_s']:g}), `medrl --help` {result['help_wall_s']:.2f} s (limit "
        f"{limits['help_wall_s']:g})"
    )


def main(runs: int = 5) -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder) / "mni152.nii.gz"
        load_mni152_template(resolution=2).to_filename(head)
        detections = [measure(["detect", str(head), "-o", folder]) for _ in range(runs)]
    helps = [measure(["--help"]) for _ in range(runs)]
    result = {
        "runs": runs,
        "cores": os.cpu_count(),
        "detect_cpu_s": min(cpu for cpu, _ in detections),
        "detect_wall_s": min(wall for _, wall in detections),
        "help_wall_s": min(wall for _, wall in helps),
        "limits": _LIMITS,
    }
    save(RESULTS / "start_time.json", result, {CLAIM: measured})
    print(measured(result))


if __name__ == "__main__":
    main()
