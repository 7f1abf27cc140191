"""Windows per second: medrl.roi.crop against MONAI, grid_sample, and a plain copy of the bytes.

Every contender fetches the same 64 windows from the same scan in turn, round after round, so that
whatever else the machine does slows all of them alike. Targets are judged by the best call of each,
what it can do when nothing interrupts it: on a busy machine, the median of torch's two threads,
which wait for each other, tells of the other jobs, and in medrl's favour. For the same reason the
plain copy is tried with one thread too, and the faster of both is the one to match. Run it with
``python benchmarks/roi_crop.py``; it writes ``benchmarks/results/roi_crop.json``.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation.results import RESULTS, print_table, save
from monai.data.meta_tensor import MetaTensor
from monai.transforms import SpatialCrop
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from medrl.roi import crop
from medrl.volume.pyramid import Pyramid

CLAIM = "Cropping is fast"
AGENTS, EXTENT, THREADS = 64, 160, 2
SIZES = (25, 45)

#: How many times the rate of each contender medrl has to reach.
TARGETS = {
    25: {"MONAI SpatialCrop": 40.0, "grid_sample": 20.0, "copy_": 0.25},
    45: {"MONAI SpatialCrop": 8.0, "copy_": 0.5},
}

ONE_THREAD = "copy_, 1 thread"

#: The fast contenders are timed more often per round.
REPEATS = {
    "MONAI SpatialCrop": 1,
    "grid_sample": 1,
    "medrl rotated": 1,
    "medrl sub-voxel": 3,
    "copy_": 40,
    ONE_THREAD: 40,
}


def cpu_name() -> str:
    """The processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def load() -> float | None:
    """Processes that want a core; torch's threads, which spin, suffer most where it is high."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def contenders(
    scan: torch.Tensor, centers: np.ndarray, size: int
) -> dict[str, Callable[[], torch.Tensor]]:
    """What is timed: each returns the windows (N, 1, S, S, S)."""
    pyramid = Pyramid((scan,), (1.0,), (np.eye(4),))
    whole = torch.from_numpy(centers)
    shifted = whole + 0.3
    rotations = torch.from_numpy(Rotation.random(AGENTS, random_state=0).as_matrix())
    image = MetaTensor(scan)
    out = torch.empty(AGENTS, 1, size, size, size)
    source = torch.rand_like(out)
    batch = scan.expand(AGENTS, -1, -1, -1, -1)
    steps = torch.arange(size) - size // 2
    offsets = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1)

    def by_monai() -> torch.Tensor:
        roi = (size, size, size)
        crops = (SpatialCrop(roi_center=center, roi_size=roi)(image) for center in centers)
        return torch.stack([window.as_tensor() for window in crops])

    def by_grid_sample() -> torch.Tensor:
        # grid_sample wants (x, y, z) = (k, j, i) in -1..1.
        places = whole.view(-1, 1, 1, 1, 3) + offsets
        grid = (places.flip(-1) * (2 / (EXTENT - 1)) - 1).to(torch.float32)
        return F.grid_sample(batch, grid, align_corners=True)

    return {
        "medrl": lambda: crop(pyramid, whole, size, out=out),
        "medrl, new memory": lambda: crop(pyramid, whole, size),
        "medrl sub-voxel": lambda: crop(pyramid, shifted, size, out=out),
        "medrl rotated": lambda: crop(pyramid, whole, size, rotation=rotations, out=out),
        "MONAI SpatialCrop": by_monai,
        "grid_sample": by_grid_sample,
        "copy_": lambda: out.copy_(source),
        ONE_THREAD: lambda: out.copy_(source),
    }


def measure(size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per call of every contender."""
    rng = np.random.default_rng(size)
    scan = torch.from_numpy(rng.random((1, EXTENT, EXTENT, EXTENT), dtype=np.float32))
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        # Windows stay inside: MONAI returns smaller ones at the border.
        centers = rng.integers(size // 2, EXTENT - size // 2, (AGENTS, 3))
        calls = contenders(scan, centers, size)
        if number == 0:
            agree(calls)
            continue
        for name, call in calls.items():
            torch.set_num_threads(1 if name == ONE_THREAD else THREADS)
            for _ in range(REPEATS.get(name, 40)):
                start = time.perf_counter()
                call()
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    return seconds


def agree(calls: dict[str, Callable[[], torch.Tensor]]) -> None:
    """Warm up, and check that all return the same windows."""
    windows = {name: call().clone() for name, call in calls.items()}
    for name in ("medrl, new memory", "MONAI SpatialCrop"):
        if not torch.equal(windows["medrl"], torch.as_tensor(windows[name])):
            raise SystemExit(f"{name} returns other windows than medrl.roi.crop")
    torch.testing.assert_close(windows["grid_sample"], windows["medrl"], rtol=0, atol=1e-3)


def measured(result: dict[str, Any]) -> str:
    """Speed of cropping next to the contenders."""
    parts = []
    for size, figures in result["sizes"].items():
        ratios = [
            f"{v['ratio']:.{0 if v['ratio'] > 10 else 2}f}x {name}"
            for name, v in figures["medrl_over"].items()
        ]
        parts.append(f"{size}^3: " + ", ".join(ratios))
    return "; ".join(parts)


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "roi_crop.json")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    result = {
        "what": f"{AGENTS} windows from one {EXTENT}^3 float32 scan on the CPU",
        "how": "contenders in turn within each round; targets judged by the best call of each",
        "numba": version("numba"),
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "threads": THREADS,
        "rounds": options.rounds,
        "load_before": load(),
        "sizes": {},
    }
    rows: list[list[object]] = []
    for size in SIZES:
        seconds = measure(size, options.rounds)
        rates = {name: AGENTS / float(np.median(times)) for name, times in seconds.items()}
        best = {name: AGENTS / min(times) for name, times in seconds.items()}
        targets = {}
        for name, target in TARGETS[size].items():
            theirs = max(best[name], best[ONE_THREAD] if name == "copy_" else 0.0)
            ratio = best["medrl"] / theirs
            targets[name] = {
                "target": target,
                "ratio": ratio,
                "ratio_of_medians": rates["medrl"] / rates[name],
                "met": ratio >= target,
            }
            rows.append([f"{size}^3", name, best["medrl"], theirs, ratio, target])
        result["sizes"][str(size)] = {
            "windows_per_second": rates,
            "windows_per_second_best": best,
            "medrl_over": targets,
        }
    result["load_after"] = load()
    save(options.out, result, {CLAIM: measured})
    print_table(["size", "against", "medrl /s", "theirs /s", "ratio", "needed"], rows)


if __name__ == "__main__":
    main()
