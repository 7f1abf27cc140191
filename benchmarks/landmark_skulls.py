"""How well `mouse-skull-ct` finds its points in skulls that it was not trained on, in any pose.

Micro-CT of mouse heads as they are, each in a pose of its own, and turned by any angle: errors, the
worst point, CPU time, next to how well shapes can be aligned at all, and to an atlas that starts
from the right pose and is registered by SimpleITK with a B-spline. Figures for tuning come
from --split val; the holdout is for the model that ships.
"""

from __future__ import annotations

import os

# Times are given for one thread: set before PyTorch and Numba load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from evaluation.images import LabelledImage, turned
from evaluation.ixi import data_root
from evaluation.results import RESULTS, save
from numpy.typing import NDArray

from medrl.evaluation import compare, plain, summarize
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.detection import Landmark
from medrl.landmark.evaluate import AGENTS, Labelled, Method, agents, errors, measure_methods, trust
from medrl.volume.itk import to_sitk
from medrl.volume.procrustes import fit_points, lay_straight
from medrl.volume.space import apply_affine, lps_to_ras, ras_to_lps
from medrl_datasets import get

ALIGNED = "mean shape, aligned to the true points"
ATLAS = "atlas by rigid, affine and B-spline registration from the right pose"
#: Of the B-spline: control points a side, iterations, how much coarser than the scans.
MESH, ITERATIONS, SHRINK = 8, 30, 2


def skulls(split: str) -> list[LabelledImage]:
    """The specimens of a split as they are."""
    dataset, root = get("mouse_skull_ct"), data_root() / "mouse_skull_ct"
    points = dataset.landmarks(root)
    return [
        LabelledImage(
            entry["subject"],
            entry["subject"],
            sitk.ReadImage(entry["image"], sitk.sitkFloat32),
            dict(points[entry["subject"]]),
        )
        for entry in dataset.datalist(root)[split]
    ]


def all_ways(skull: LabelledImage, count: int) -> Iterator[LabelledImage]:
    """Copies of a skull turned by any angle, the same ones in every run."""
    for index in range(count):
        copy = turned(skull, np.random.default_rng([*skull.subject.encode(), index]))
        yield LabelledImage(f"{copy.name} {index}", copy.subject, copy.image, copy.points_world)


def aligned(names: tuple[str, ...]) -> Method:
    """The best that a mean shape without scale can do: it is laid onto the true points."""
    training = [skull.points_world for skull in skulls("training")]
    _, mean = lay_straight(np.array([[points[name] for name in names] for points in training]))

    def predict(labelled: Labelled) -> Mapping[str, Landmark]:
        truth = np.array([labelled.points_world[name] for name in names])
        found = apply_affine(fit_points(mean, truth, scale=False), mean)
        return {
            n: Landmark(n, p, "found", float("nan"), "") for n, p in zip(names, found, strict=True)
        }

    return predict


def carried(names: tuple[str, ...]) -> Method:
    """The most typical training skull, registered from the pose that the true points give."""
    training = skulls("training")
    shapes = np.array([[one.points_world[name] for name in names] for one in training])
    matrices, mean = lay_straight(shapes)
    off = [
        np.linalg.norm(apply_affine(m, shape) - mean, axis=1).mean()
        for m, shape in zip(matrices, shapes, strict=True)
    ]
    atlas, points = training[int(np.argmin(off))].image, shapes[int(np.argmin(off))]

    def predict(labelled: Labelled) -> Mapping[str, Landmark]:
        truth = np.array([labelled.points_world[name] for name in names])
        right = fit_points(ras_to_lps(points), ras_to_lps(truth), scale=False)
        transform = registered(atlas, to_sitk(labelled.scan), right)
        found = [transform.TransformPoint(place) for place in ras_to_lps(points).tolist()]
        return {
            n: Landmark(n, p, "found", float("nan"), "")
            for n, p in zip(names, lps_to_ras(np.array(found)), strict=True)
        }

    return predict


def registered(fixed: sitk.Image, moving: sitk.Image, start: NDArray[np.float64]) -> sitk.Transform:
    """From points (LPS) of one scan to the other's: affine, then B-spline; mutual information."""
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(start[:3, :3].ravel().tolist())
    affine.SetTranslation(start[:3, 3].tolist())
    middle = [size // 2 for size in fixed.GetSize()]
    affine.SetCenter(fixed.TransformIndexToPhysicalPoint(middle))
    # About another centre the same mapping has another translation.
    centre = np.array(affine.GetCenter())
    affine.SetTranslation((start[:3, :3] @ centre + start[:3, 3] - centre).tolist())
    method = _registration(fixed)
    method.SetOptimizerAsGradientDescentLineSearch(1.0, 40, 1e-5, 6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(fixed, moving)
    spline = sitk.BSplineTransformInitializer(fixed, [MESH] * 3)
    method = _registration(fixed)
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(numberOfIterations=ITERATIONS)
    method.SetShrinkFactorsPerLevel([SHRINK])
    method.SetSmoothingSigmasPerLevel([SHRINK / 2])
    method.SetInitialTransform(spline, inPlace=True)
    method.Execute(fixed, moving)
    return sitk.CompositeTransform([affine, spline])


def _registration(fixed: sitk.Image) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, seed=1)
    # Most of a scan is air: the skull and what is near it counts.
    method.SetMetricFixedMask(sitk.BinaryDilate(sitk.OtsuThreshold(fixed, 0, 1), [4, 4, 4]))
    method.SetInterpolator(sitk.sitkLinear)
    return method


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mouse-skull-ct", help="name or folder of the model")
    parser.add_argument("--split", choices=("val", "holdout"), default="holdout")
    parser.add_argument("--turns", type=int, default=24, help="copies a skull that are turned")
    parser.add_argument("--out", type=Path, help="JSON file; by default in results/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = LandmarkDetector.load(options.model)
    own = skulls({"val": "validation", "holdout": "test"}[options.split])
    detector.detect(own[0].scan())  # compiles what is compiled on first use
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    methods: dict[str, Method] = {
        AGENTS: agents(detector),
        ALIGNED: aligned(detector.landmark_names),
    }
    atlas = {ATLAS: carried(detector.landmark_names)}
    measured = {
        name: measure_methods(
            heads,
            methods | (atlas if name == "as is" else {}),
            load=lambda head: Labelled(head.name, head.scan(), head.points_world, head.subject),
            subject=lambda head: head.subject,
            clock=time.process_time,
            progress=lambda done, total, name: print(f"{done}/{total} {name}", flush=True),
        )
        for name, heads in {
            "as is": own,
            "turned": [copy for skull in own for copy in all_ways(skull, options.turns)],
        }.items()
    }
    result = {
        "model": Path(options.model).name,
        "split": options.split,
        "specimens": len(own),
        "accuracy": {
            name: {method: errors(rows) for method, rows in found.by("method").items()}
            for name, found in measured.items()
        },
        "agents_minus": {
            name: compare(found, "error_mm", AGENTS, ALIGNED) for name, found in measured.items()
        },
        "confidence": {
            name: trust(found, good_mm=detector.model.settings.good_mm)
            for name, found in measured.items()
        },
        "agents_minus_atlas": compare(measured["as is"], "error_mm", AGENTS, ATLAS),
        "cpu_s": {
            name: summarize(found.select(method=AGENTS, metric="seconds").values)
            for name, found in measured.items()
        },
        "cpu_s_atlas": summarize(measured["as is"].select(method=ATLAS, metric="seconds").values),
    }
    save(options.out or RESULTS / f"landmark_skulls_{options.split}.json", result, CLAIMS)
    print(in_words(plain(result)))


def in_words(result: dict[str, Any]) -> str:
    """Errors as the skulls are and turned, and how long it takes."""
    parts = []
    for name, methods in result["accuracy"].items():
        f = methods[AGENTS]["all"]
        parts.append(
            f"{name}: mean {f['mean']:.3f} mm, median {f['median']:.3f}, 95 % {f['p95']:.3f}, "
            f"max {f['max']:.2f}, {f['missed']} missed"
        )
    for method in (ALIGNED, ATLAS):
        parts.append(f"{method}: {result['accuracy']['as is'][method]['all']['mean']:.2f} mm")
    own, other = result["cpu_s"]["as is"]["mean"], result["cpu_s_atlas"]["mean"]
    parts.append(f"{own:.1f} CPU-s a skull, the atlas {other:.0f}")
    return "; ".join(parts)


CLAIMS: dict[str, Callable[[dict[str, Any]], str]] = {
    "The model finds 45 points on skulls of mice in any pose": in_words,
}


if __name__ == "__main__":
    main()
