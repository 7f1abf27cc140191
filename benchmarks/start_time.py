"""How long the command takes from start to end: `medrl detect` of one 2 mm head, `medrl --help`.

    python benchmarks/start_time.py

Writes benchmarks/results/start_time.json. Processor seconds are those of the whole process, which
does not depend on what else the machine is doing as wall clock does; the least of the runs counts.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nilearn.datasets import load_mni152_template

_RESULTS = Path(__file__).parent / "results" / "start_time.json"
_COMMAND = [sys.executable, "-c", "from medrl.cli import main; raise SystemExit(main())"]
#: What a command may take: processor seconds of a detection, seconds of the help.
_LIMITS = {"detect_cpu_s": 6.0, "help_wall_s": 0.3}


def measure(arguments: list[str]) -> tuple[float, float]:
    """Processor and wall seconds of the command."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*_COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall


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
        "detect_cpu_s": round(min(cpu for cpu, _ in detections), 2),
        "detect_wall_s": round(min(wall for _, wall in detections), 2),
        "help_wall_s": round(min(wall for _, wall in helps), 3),
        "limits": _LIMITS,
    }
    _RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
