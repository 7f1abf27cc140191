"""How well `afids-t1` finds the 32 AFIDs where experts put them: on Colin27, which it never saw.

Its training points were carried from the other templates by registration. Next to it, in the same
run, the points of those templates carried to Colin27 by affine registration, averaged. Colin27 is
one head: the figures say whether points are where experts put them, not how they scatter.
"""

from __future__ import annotations

import os

# Times are given for one thread: set before PyTorch and Numba load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from evaluation.images import Array, LabelledImage, turned
from evaluation.ixi import data_root
from evaluation.results import RESULTS, save

from medrl.evaluation import plain
from medrl.evaluation.atlas import AffineAtlas
from medrl.landmark.detect import LandmarkDetector
from medrl.volume.read import read
from medrl_datasets import afids_templates

HOLDOUT = "Colin27_T1w_ch2"
#: Whole heads among the templates whose points were carried.
ATLASES = ("MNI152NLin2009aSym_T1w", "MNI152Lin_T1w", "MNI305_T1w")
#: Experts themselves agree least on these.
LEFT_OUT = ("R ventral occipital horn", "L ventral occipital horn")
COMMISSURES = ("AC", "PC")
TURNS = 6


def errors(found: Mapping[str, Array], truth: Mapping[str, Array]) -> dict[str, float]:
    """Distance of each point to the experts', mm; of absent ones there is none."""
    return {name: float(np.linalg.norm(found[name] - truth[name])) for name in found}


def told(off: Mapping[str, float]) -> dict[str, Any]:
    """What matters of the errors of one answer."""
    thirty = [error for name, error in off.items() if name not in LEFT_OUT]
    return {
        **{name: off.get(name) for name in COMMISSURES},
        "mean_of_30": float(np.mean(thirty)),
        "mean": float(np.mean(list(off.values()))),
        "max": float(max(off.values())),
        "found": len(off),
        "points": dict(off),
    }


def by_agents(detector: LandmarkDetector, head: LabelledImage) -> dict[str, Any]:
    """The model's answer."""
    scan, began = head.scan(), time.process_time()
    detection = detector.detect(scan)
    seconds = time.process_time() - began
    there = {lm.name: lm.position_world for lm in detection.landmarks if lm.status != "absent"}
    return {**told(errors(there, head.points_world)), "cpu_s": seconds}


def by_atlases(head: LabelledImage) -> dict[str, Any]:
    """The mean of the points that affine registration carries from the templates."""
    root = data_root() / "afids_templates"
    dataset = afids_templates.DATASET
    names, landmarks = afids_templates.LANDMARKS, dataset.landmarks(root)
    atlases = [
        (read(dataset.files(root, t)["image"]), np.array([landmarks[t][n] for n in names]))
        for t in ATLASES
    ]
    scan, began = head.scan(), time.process_time()
    carried = AffineAtlas(atlases, spacing=2.0).carry(scan)
    seconds = time.process_time() - began
    mean = np.mean([points for points in carried if points is not None], axis=0)
    off = errors(dict(zip(names, mean, strict=True)), head.points_world)
    return {**told(off), "cpu_s": seconds}


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="afids-t1", help="name or folder of the model")
    parser.add_argument("--out", type=Path, help="JSON file; by default in results/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    root = data_root() / "afids_templates"
    file = afids_templates.DATASET.files(root, HOLDOUT)["image"]
    points = dict(afids_templates.DATASET.landmarks(root)[HOLDOUT])
    head = LabelledImage(HOLDOUT, HOLDOUT, sitk.ReadImage(str(file), sitk.sitkFloat32), points)
    detector = LandmarkDetector.load(options.model)
    detector.detect(head.scan())  # compiles what is compiled on first use
    result = {
        "model": Path(options.model).name,
        "head": HOLDOUT,
        "agents": by_agents(detector, head),
        "turned": [
            by_agents(detector, turned(head, np.random.default_rng([seed, 7])))
            for seed in range(TURNS)
        ],
        "affine registration of three templates": by_atlases(head),
    }
    save(options.out or RESULTS / "landmark_afids.json", result, CLAIMS)
    print(in_words(plain(result)))


def in_words(result: dict[str, Any]) -> str:
    """AC, PC and the mean, next to the atlases."""
    parts = [
        f"{name}: AC {f['AC']:.2f}, PC {f['PC']:.2f}, mean of 30 {f['mean_of_30']:.2f}, "
        f"of 32 {f['mean']:.2f}, max {f['max']:.1f} mm, {f['cpu_s']:.1f} CPU-s"
        for name, f in result.items()
        if isinstance(f, dict)
    ]
    means = [f["mean_of_30"] for f in result["turned"]]
    parts.append(f"turned by any angle, {len(means)} times: mean of 30 up to {max(means):.2f} mm")
    return "; ".join(parts)


CLAIMS: dict[str, Callable[[dict[str, Any]], str]] = {
    "`afids-t1` finds the AFIDs on Colin27, an individual head that it never saw": in_words,
}


if __name__ == "__main__":
    main()
