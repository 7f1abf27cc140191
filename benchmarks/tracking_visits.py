"""How well points are found again: in a later CT of lungs, in a later FLAIR, through a breath.

Nothing here was trained or tuned on: models and settings come from bent training scans of other
sets (``recipes/visits``). Baselines in the same run: the registration agents begin from (rigid,
affine) and SimpleITK's B-spline on top of it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from evaluation.results import RESULTS, save
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from medrl.evaluation.statistics import auc
from medrl.tracking.visits.follow import Follower
from medrl.tracking.visits.start import register, tidy
from medrl.volume.itk import to_sitk
from medrl.volume.pyramid import build_pyramid
from medrl.volume.read import read
from medrl.volume.similarity import normalized_mutual_information
from medrl.volume.space import (
    LPS_FROM_RAS,
    apply_affine,
    as_affine,
    inside,
    lps_to_ras,
    ras_to_lps,
    voxel_to_world,
)
from medrl_datasets import ct_lung_pair, ms_multimodal

Array = NDArray[np.float64]

#: A point further off than this is wrong, mm.
WRONG_MM = 5.0
PHASES = 10
#: B-splines are run up to this phase: the others move as much again, in the reverse order.
SPLINED = PHASES // 2 + 1


def summary(errors: Array) -> dict[str, float]:
    """Figures of errors (N,) in mm."""
    return {
        "mean_mm": float(errors.mean()),
        "median_mm": float(np.median(errors)),
        "p95_mm": float(np.quantile(errors, 0.95)),
        "max_mm": float(errors.max()),
        "above_5mm": int((errors > WRONG_MM).sum()),
    }


def distances(found: Array, truth: Array) -> Array:
    """(N,) mm."""
    return np.asarray(np.linalg.norm(found - truth, axis=1))


def bspline(
    earlier: MetaTensor, later: MetaTensor, points: Array, start: Array, *, spacing: float
) -> Array:
    """Points (N, 3) RAS mm by SimpleITK: a B-spline every 32 mm on top of a linear start.

    Mattes mutual information, L-BFGS-B, over two resolutions.
    """
    fixed, moving = (to_sitk(_isotropic(scan, spacing)) for scan in (earlier, later))
    linear = sitk.AffineTransform(3)
    lps = LPS_FROM_RAS @ start @ LPS_FROM_RAS
    linear.SetMatrix(lps[:3, :3].ravel().tolist())
    linear.SetTranslation(lps[:3, 3].tolist())
    linear.SetCenter([0.0, 0.0, 0.0])
    size = [
        max(1, round(n * s / 32.0))
        for n, s in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)
    ]
    spline = sitk.BSplineTransformInitializer(fixed, size, order=3)
    for shrink, smooth in ((3, 6.0), (1, 0.0)):
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(1.0 if shrink > 1 else 0.08, 1)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMovingInitialTransform(linear)
        method.SetInitialTransform(spline, inPlace=True)
        method.SetShrinkFactorsPerLevel([shrink])
        method.SetSmoothingSigmasPerLevel([smooth])
        method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
        method.SetOptimizerAsLBFGSB(numberOfIterations=50, maximumNumberOfFunctionEvaluations=80)
        method.SetNumberOfThreads(1)
        method.Execute(fixed, moving)
    moved = [linear.TransformPoint(spline.TransformPoint(p.tolist())) for p in ras_to_lps(points)]
    return lps_to_ras(np.array(moved))


def _isotropic(scan: MetaTensor, spacing: float) -> MetaTensor:
    pyramid = build_pyramid(tidy(scan), spacings=(spacing,))
    return MetaTensor(pyramid.levels[0], affine=torch.from_numpy(pyramid.affines[0]))


def lungs(follower: Follower, root: Path, *, splines: bool) -> dict[str, Any]:
    """The 51 points of the lung pair, one date to the other, with all methods."""
    data = root / ct_lung_pair.CARD.name
    marks = ct_lung_pair.DATASET.landmarks(data)
    points, truth = (np.array(list(marks[date].values())) for date in ("baseline", "followup"))
    scans = [
        read(ct_lung_pair.DATASET.files(data, date)["image"]) for date in ("baseline", "followup")
    ]
    began = time.perf_counter()
    start = register(*scans)
    seconds = {"registration": time.perf_counter() - began}
    found = follower.follow(*scans, points, names=list(marks["baseline"]), start=start)
    seconds["medrl"] = found.seconds
    answers = {
        "no registration": points,
        "rigid": apply_affine(start.rigid_world, points),
        "affine": apply_affine(start.affine_world, points),
        "medrl": found.points_world,
    }
    if splines:
        began = time.perf_counter()
        answers["SimpleITK B-spline"] = bspline(*scans, points, start.affine_world, spacing=4.0)
        seconds["bspline"] = time.perf_counter() - began
    errors = {name: distances(answer, truth) for name, answer in answers.items()}
    reverse = follower.follow(scans[1], scans[0], truth, names=list(marks["baseline"]))
    errors["medrl, later to earlier"] = distances(reverse.points_world, points)
    wrong = errors["medrl"] > WRONG_MM
    both = np.concatenate([errors["medrl"], errors["medrl, later to earlier"]])
    sure = np.concatenate([found.confidence, reverse.confidence])
    return {
        "methods": {name: summary(one) for name, one in errors.items()},
        "auc_above_5mm": auc(-found.confidence, wrong) if wrong.any() else None,
        "auc_above_5mm_both_directions": auc(-sure, both > WRONG_MM),
        "auc_above_3mm_both_directions": auc(-sure, both > 3.0),
        "mean_confidence": float(np.nanmean(found.confidence)),
        "share_within_5mm": float((~wrong).mean()),
        "errors_mm": errors["medrl"].tolist(),
        "confidence": found.confidence.tolist(),
        "seconds": seconds,
    }


@dataclass(frozen=True, eq=False)
class _Between:
    """The reference map (4, 4) between two visits, and how it was read."""

    matrix: Array
    reading: str


def reference_between(root: Path, first: MetaTensor, second: MetaTensor) -> _Between:
    """From visit 1 to visit 2 by the reference affines, RAS mm.

    The files do not say which way they lead; the two readings are told apart by the mutual
    information of the scans.
    """
    one, two = (
        ras_matrix(root / "patient01" / f"study{n}_FLAIR_to_common_space.txt") for n in (1, 2)
    )
    readings = {
        "scan to common": np.linalg.inv(two) @ one,
        "common to scan": two @ np.linalg.inv(one),
    }
    likeness = {name: likeness_of(first, second, m) for name, m in readings.items()}
    best = max(likeness, key=lambda name: likeness[name])
    return _Between(readings[best], f"{best} {likeness}")


def ras_matrix(path: Path) -> Array:
    """An ITK affine in a text file, as (4, 4) in RAS mm."""
    transform = sitk.ReadTransform(str(path))
    numbers = np.array(transform.GetParameters())
    center = np.array(transform.GetFixedParameters())
    matrix = np.eye(4)
    matrix[:3, :3] = numbers[:9].reshape(3, 3)
    matrix[:3, 3] = numbers[9:] + center - matrix[:3, :3] @ center
    return np.asarray(LPS_FROM_RAS @ matrix @ LPS_FROM_RAS)


def likeness_of(first: MetaTensor, second: MetaTensor, matrix: Array) -> float:
    """Normalised mutual information of two scans under a map."""
    axes = [np.arange(0, n, step) for n, step in zip(first.shape[1:], (3, 3, 1), strict=True)]
    voxels = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    world = apply_affine(matrix, voxel_to_world(voxels, as_affine(first.affine)))
    own = first.as_tensor()[0].numpy()[tuple(voxels.T)]
    places = apply_affine(np.linalg.inv(as_affine(second.affine)), world)
    there = map_coordinates(second.as_tensor()[0].numpy(), places.T, order=1, cval=np.nan)
    both = ~np.isnan(there)
    return normalized_mutual_information(own[both], there[both]) or 0.0


def brain_points(scan: MetaTensor, count: int, seed: int = 1) -> Array:
    """Points (N, 3) RAS mm spread over the inside of a head."""
    values = scan.as_tensor()[0].numpy()
    head = values > np.quantile(values, 0.7)
    world = voxel_to_world(np.argwhere(head)[::7], as_affine(scan.affine))
    middle = np.median(world, axis=0)
    world = world[np.linalg.norm((world - middle) / (55.0, 70.0, 50.0), axis=1) < 1.0]
    generator = np.random.default_rng(seed)
    chosen = [world[generator.integers(len(world))]]
    for _ in range(count - 1):
        apart = np.linalg.norm(world[:, None] - np.array(chosen)[None], axis=2).min(axis=1)
        chosen.append(world[apart.argmax()])
    return np.array(chosen)


def visits(follower: Follower, root: Path) -> dict[str, Any]:
    """25 points inside the brain, from one FLAIR to the next."""
    data = root / ms_multimodal.CARD.name
    files = ms_multimodal.DATASET.files(data, "patient01")
    scans = [read(files[key]) for key in ("image", "followup")]
    between = reference_between(data, *scans)
    points = brain_points(scans[0], 60)
    truth = apply_affine(between.matrix, points)
    within = inside(truth, scans[1].affine, tuple(scans[1].shape[1:]))
    points, truth = points[within][:25], truth[within][:25]
    began = time.perf_counter()
    start = register(*scans)
    seconds = {"registration": time.perf_counter() - began}
    found = follower.follow(*scans, points, start=start)
    seconds["medrl"] = found.seconds
    answers = {
        "no registration": points,
        "rigid": apply_affine(start.rigid_world, points),
        "affine": apply_affine(start.affine_world, points),
        "medrl": found.points_world,
    }
    errors = {name: distances(answer, truth) for name, answer in answers.items()}
    return {
        "points": len(points),
        "reference": between.reading,
        "methods": {name: summary(one) for name, one in errors.items()},
        "within_1mm": float((errors["medrl"] <= 1.0).mean()),
        "errors_mm": errors["medrl"].tolist(),
        "confidence": found.confidence.tolist(),
        "seconds": seconds,
    }


@dataclass(frozen=True, eq=False)
class Breath:
    """A breath: the field is analytic backwards, from a phase to the first.

    Down and a little forward, as a sinus over the cycle; nothing at the apex, everything at the
    diaphragm, fading to the chest wall.

    Attributes:
        apex, base: Heights in mm (RAS z) between which it grows.
        middle: (2,) mm, the axis of the chest (x, y).
        radius: (2,) mm, where it has faded to exp(-1/2).
        depth_mm: Largest displacement.
    """

    apex: float
    base: float
    middle: Array
    radius: Array
    depth_mm: float = 15.0

    def back(self, points: Array, phase: int) -> Array:
        """What lies at (N, 3) in a phase lay so far from there in the first."""
        amount = self.depth_mm * np.sin(np.pi * phase / PHASES) ** 2
        share = np.clip((self.apex - points[:, 2]) / (self.apex - self.base), 0.0, 1.0)
        rises = share**2 * (3 - 2 * share)
        wall = np.exp(-0.5 * (((points[:, :2] - self.middle) / self.radius) ** 2).sum(axis=1))
        size = amount * rises * wall
        return size[:, None] * np.array([0.0, -0.25, 1.0]) / np.hypot(0.25, 1.0)

    def forward(self, points: Array, phase: int) -> Array:
        """Where points (N, 3) of the first phase are, by fixed-point iteration."""
        found = points.copy()
        for _ in range(200):
            found = points - self.back(found, phase)
        return found


def breath_of(points: Array) -> Breath:
    """A breath of the lungs that hold these points."""
    low, high = points.min(axis=0), points.max(axis=0)
    return Breath(
        apex=float(high[2] + 15),
        base=float(low[2] - 15),
        middle=(low + high)[:2] / 2,
        radius=(high - low)[:2] * 0.75,
    )


def phase_of(scan: MetaTensor, breath: Breath, phase: int, seed: int) -> MetaTensor:
    """The scan in a phase: bent, lighter where it is stretched, with noise of its own."""
    affine, shape = as_affine(scan.affine), tuple(scan.shape[1:])
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = voxel_to_world(voxels.reshape(-1, 3), affine)
    places = apply_affine(np.linalg.inv(affine), world + breath.back(world, phase))
    values = map_coordinates(
        scan.as_tensor()[0].numpy().clip(-1000, None), places.T, order=3, mode="nearest"
    ).reshape(shape)
    lung = (values < -300) & (values > -1000)
    values = values - lung * 40.0 * np.sin(np.pi * phase / PHASES) ** 2
    values += np.random.default_rng(seed).normal(0.0, 20.0, shape)
    return MetaTensor(torch.from_numpy(values[None].astype(np.float32)), affine=scan.affine)


def breathing(follower: Follower, root: Path, *, splines: bool) -> dict[str, Any]:
    """The 51 points through ten phases of a breath that is known."""
    data = root / ct_lung_pair.CARD.name
    points = np.array(list(ct_lung_pair.DATASET.landmarks(data)["baseline"].values()))
    scan = read(ct_lung_pair.DATASET.files(data, "baseline")["image"])
    breath = breath_of(points)
    frames = [phase_of(scan, breath, phase, phase) for phase in range(PHASES)]
    truths = [breath.forward(points, phase) for phase in range(PHASES)]
    began = time.perf_counter()
    found = follower.through_time(frames, points)
    seconds = {"medrl": time.perf_counter() - began}
    errors = {
        "none": np.array([distances(points, t) for t in truths[1:]]),
        "medrl": np.array(
            [distances(f.points_world, t) for f, t in zip(found, truths[1:], strict=True)]
        ),
    }
    if splines:
        began = time.perf_counter()
        errors["SimpleITK B-spline, phases 1 to 5"] = np.array(
            [
                distances(bspline(frames[0], frame, points, np.eye(4), spacing=4.0), truth)
                for frame, truth in zip(frames[1:SPLINED], truths[1:SPLINED], strict=True)
            ]
        )
        seconds["bspline"] = time.perf_counter() - began
    return {
        "largest_motion_mm": float(errors["none"].max()),
        "methods": {name: summary(one.ravel()) for name, one in errors.items()},
        "mean_by_phase_mm": {name: one.mean(axis=1).tolist() for name, one in errors.items()},
        "points_within_1_5mm_throughout": {
            name: float((one.max(axis=0) <= 1.5).mean()) for name, one in errors.items()
        },
        "seconds": seconds,
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDRL_DATA", "../shared/data"))
    parser.add_argument("--model", default="visits")
    parser.add_argument("--out", type=Path, default=RESULTS / "tracking_visits.json")
    parser.add_argument("--parts", nargs="+", default=["lungs", "visits", "breathing"])
    parser.add_argument("--no-splines", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    follower = Follower.load(options.model)
    result: dict[str, Any] = {"model": follower.manifest["name"]}
    if "lungs" in options.parts:
        result["lungs"] = lungs(follower, options.data, splines=not options.no_splines)
        print(result["lungs"], flush=True)
    if "visits" in options.parts:
        result["visits"] = visits(follower, options.data)
        print(result["visits"], flush=True)
    if "breathing" in options.parts:
        result["breathing"] = breathing(follower, options.data, splines=not options.no_splines)
        print(result["breathing"], flush=True)
    save(options.out, result, _CLAIMS if len(options.parts) == 3 else None)


_CLAIMS = {
    "points of a lung in a later CT": lambda r: (
        f"{r['lungs']['methods']['medrl']['mean_mm']:.2f} mm "
        f"(B-spline {r['lungs']['methods']['SimpleITK B-spline']['mean_mm']:.2f})"
    ),
    "points of a brain in a later FLAIR": lambda r: (
        f"{r['visits']['methods']['medrl']['mean_mm']:.2f} mm from the reference"
    ),
    "points of a lung through a breath": lambda r: (
        f"{r['breathing']['methods']['medrl']['mean_mm']:.2f} mm"
    ),
}


if __name__ == "__main__":
    main()
