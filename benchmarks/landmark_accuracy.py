"""How well `brain-t1` finds its landmarks in heads that it was not trained on.

IXI heads as they are, corrupted (pose, grid, scanner) and cut in half: errors, presence, what the
confidence is worth, CPU time, next to the mean position and atlases carried over by affine
registration. Figures for tuning come from --split val; the holdout is for the model that ships.
"""

from __future__ import annotations

import os

# Times are given for one thread: set before PyTorch and Numba load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from evaluation import ixi
from evaluation.images import Array, LabelledImage, corrupt, half
from evaluation.results import RESULTS, save

from medrl.evaluation import (
    Measurements,
    Table,
    auc,
    compare,
    confusion,
    interval_by_subject,
    measure,
    plain,
    reliability,
    summarize,
)
from medrl.landmark.baselines import AffineAtlas, MeanPosition
from medrl.landmark.detect import LandmarkDetector

#: Errors below this count as good; the confidence is the probability of it.
GOOD_MM = 4.0
#: Presence this near to a face of the scan is a matter of taste, and also counted without.
NEAR_FACE_MM = 4.0
LIMITS_MM = (5.0, 10.0)
COLUMNS = ("mean", "median", "p95", "max", "above_5", "above_10")
AGENTS = "agents"


@dataclass(frozen=True)
class Found:
    """What a method says of one landmark; a position if it calls it present."""

    position_world: Array
    present: bool = True
    confidence: float = float("nan")


Method = Callable[[LabelledImage], dict[str, Found]]


def corrupted(subject: str, count: int) -> Iterator[LabelledImage]:
    """Corrupted copies of a subject, the same ones in every run."""
    for index in range(count):
        head = corrupt(ixi.load(subject), np.random.default_rng([_number(subject), index, 1]))
        yield replace(head, name=f"{head.name} {index}")


def halves(subject: str, rounds: int) -> Iterator[LabelledImage]:
    """Halves of a subject: each axis and side once a round, the plane at random."""
    for index in range(rounds):
        rng = np.random.default_rng([_number(subject), index, 2])
        for axis in range(3):
            for keep_low in (True, False):
                head = half(ixi.load(subject), rng, axis=axis, keep_low=keep_low)
                yield replace(head, name=f"{head.name} {index} {axis} {keep_low}")


def agents(detector: LandmarkDetector) -> Method:
    """The model."""

    def detect(head: LabelledImage) -> dict[str, Found]:
        return {
            found.name: Found(found.position_world, found.status != "absent", found.confidence)
            for found in detector.detect(head.scan()).landmarks
        }

    return detect


def baseline(method: MeanPosition | AffineAtlas) -> Method:
    """A method that knows no model, and calls nothing absent."""
    return lambda head: {
        name: Found(point)
        for name, point in zip(ixi.LANDMARKS, method.predict(head.scan()), strict=True)
    }


def error_mm(head: LabelledImage, answer: dict[str, Found]) -> dict[str, float]:
    """Distances of landmarks that are in the scan; who calls one absent has missed it."""
    return {
        name: float(np.linalg.norm(answer[name].position_world - head.points_world[name]))
        for name in present(head)
        if answer[name].present
    }


def present(head: LabelledImage) -> list[str]:
    """Landmarks that are in the scan."""
    return [name for name, there in head.present.items() if there]


#: All that is measured of an answer, by landmark.
METRICS: dict[str, Callable[[LabelledImage, dict[str, Found]], dict[str, float]]] = {
    "error_mm": error_mm,
    "said_present": lambda _, answer: {n: float(found.present) for n, found in answer.items()},
    "confidence": lambda _, answer: {n: found.confidence for n, found in answer.items()},
    "margin_mm": lambda head, answer: {n: head.margin_mm(n) for n in answer},
}


def run(heads: list[LabelledImage], methods: dict[str, Method]) -> Measurements:
    """Measure methods on heads."""
    return measure(
        heads,
        methods,
        METRICS,
        groups=present,
        subject=lambda head: head.subject,
        clock=time.process_time,
        progress=lambda done, total, name: print(f"{done}/{total} {name}", flush=True),
    )


def accuracy(measured: Measurements) -> dict[str, Any]:
    """Errors of a method, all together and one by one."""
    errors = measured.select(metric="error_mm")
    sums = {
        name: summarize(part.values, above=LIMITS_MM) for name, part in errors.by("group").items()
    }
    worst = sorted((row for row in errors.rows if row.value > 5), key=lambda row: -row.value)
    return {
        "all": summarize(errors.values, above=LIMITS_MM),
        "landmarks": dict(sorted(sums.items())),
        "above_5_mm": [[row.case, row.group, row.value] for row in worst],
    }


def trust(measured: Measurements) -> dict[str, Any]:
    """What the agents' confidence is worth, on the answers that have an error."""
    errors = measured.select(metric="error_mm", method=AGENTS)
    sure = measured.column("confidence", AGENTS)
    judged = [row for row in errors.rows if np.isfinite(row.value)]
    bad = np.array([row.value >= GOOD_MM for row in judged])
    doubt = 1 - np.array([sure[row.case, row.group] for row in judged])
    if not len(judged) or np.isnan(doubt).any():
        return {"judged": len(judged), "auc": None}
    interval = interval_by_subject(
        lambda rows: auc(doubt[rows], bad[rows]), [row.subject for row in judged]
    )
    return {
        "judged": len(judged),
        f"above_{GOOD_MM:g}_mm": int(bad.sum()),
        "auc": auc(doubt, bad),
        "auc_95_percent_interval": interval,
        "reliability": reliability(1 - doubt, ~bad),
    }


def presence(measured: Measurements) -> dict[str, Any]:
    """How often the agents tell presence right, with and without landmarks close to the cut."""
    said, margins = measured.column("said_present", AGENTS), measured.column("margin_mm", AGENTS)
    result: dict[str, Any] = {}
    for name, least in (("all", 0.0), (f"further_than_{NEAR_FACE_MM:g}_mm", NEAR_FACE_MM)):
        keys = [key for key, margin in margins.items() if abs(margin) >= least]
        told = confusion([margins[key] >= 0 for key in keys], [said[key] > 0 for key in keys])
        result[name] = {"counts": told, "accuracy": told.accuracy}
    return result


def main() -> None:
    """Measure everything and write the result and its figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="brain-t1", help="name or folder of the model")
    parser.add_argument("--split", choices=("val", "holdout"), default="holdout")
    parser.add_argument("--corruptions", type=int, default=4, help="corrupted copies a head")
    parser.add_argument("--half-rounds", type=int, default=1, help="rounds of six halves a head")
    parser.add_argument("--atlases", type=int, default=3, help="0 leaves the affine atlases out")
    parser.add_argument("--out", type=Path, help="JSON file; by default in results/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    out = options.out or RESULTS / f"landmark_accuracy_{options.split}.json"
    subjects = ixi.subjects(options.split)
    own = {AGENTS: agents(LandmarkDetector.load(options.model))}
    own[AGENTS](ixi.load(subjects[0]))  # compiles what is compiled on first use
    training = ixi.samples("train")
    others: list[MeanPosition | AffineAtlas] = [MeanPosition(training, ixi.LANDMARKS)]
    for count in {1, options.atlases} - {0} if options.atlases else ():
        others.append(AffineAtlas(training, ixi.LANDMARKS, count=count, spacing=2.0))
    whole = {**own, **{method.name: baseline(method) for method in others}}
    measured = {
        "as is": run([ixi.load(s) for s in subjects], whole),
        "corrupted": run([h for s in subjects for h in corrupted(s, options.corruptions)], own),
        "halves": run([h for s in subjects for h in halves(s, options.half_rounds)], own),
    }
    seconds = measured["as is"].select(metric="seconds").by("method")
    result = {
        "model": Path(options.model).name,
        "split": options.split,
        "heads": len(subjects),
        "accuracy": {
            condition: {method: accuracy(rows) for method, rows in found.by("method").items()}
            for condition, found in measured.items()
        },
        "agents_minus": {
            method: compare(measured["as is"], "error_mm", AGENTS, method)
            for method in whole
            if method != AGENTS
        },
        "confidence": {name: trust(found) for name, found in measured.items()},
        "presence": {name: presence(found) for name, found in measured.items()},
        "cpu_s": {method: summarize(rows.values) for method, rows in seconds.items()},
    }
    save(out, result, CLAIMS)
    draw(out.with_suffix(".png"), measured, result)
    print(report(plain(result)))


def report(result: dict[str, Any]) -> str:
    """The errors as tables."""
    rows = [
        [f"{method}, {condition}", f["count"], f["missed"], *(f[c] for c in COLUMNS)]
        for condition, methods in result["accuracy"].items()
        for method, f in ((method, figures["all"]) for method, figures in methods.items())
    ]
    landmarks = [
        [name, *(figures[column] for column in COLUMNS)]
        for name, figures in result["accuracy"]["as is"][AGENTS]["landmarks"].items()
    ]
    return "\n\n".join(
        [
            *(f"{claim}: {words(result)}" for claim, words in CLAIMS.items()),
            Table("", ["", "found", "missed", *COLUMNS], rows, digits=3).markdown(),
            Table("", ["as is", *COLUMNS], landmarks, digits=3).markdown(),
        ]
    )


def in_words(result: dict[str, Any]) -> str:
    """Errors, and their share of the baselines'."""
    parts = []
    for name in ("as is", "corrupted"):
        f = result["accuracy"][name][AGENTS]["all"]
        parts.append(
            f"{name}: mean {f['mean']:.2f} mm, {f['above_5']:.1%} above 5 mm, "
            f"{f['above_10']:.1%} above 10 mm, max {f['max']:.1f} mm"
        )
    for name, figures in result["accuracy"]["as is"].items():
        if name != AGENTS:
            parts.append(f"{name} {figures['all']['mean']:.2f} mm")
    return "; ".join(parts)


def confidence_in_words(result: dict[str, Any]) -> str:
    """Area under the curve, and calibration, on corrupted heads."""
    figures = result["confidence"]["corrupted"]
    if figures["auc"] is None:
        return "the model has none"
    low, high = figures["auc_95_percent_interval"]
    error = figures["reliability"]["calibration_error"]
    return f"AUC {figures['auc']:.3f} ({low:.2f} to {high:.2f}), calibration error {error:.3f}"


CLAIMS: dict[str, Callable[[dict[str, Any]], str]] = {
    "The model finds 25 landmarks in heads it has not seen, also corrupted ones": in_words,
    "It tells which landmarks are not in half a head": lambda result: (
        f"{result['presence']['halves']['all']['accuracy']:.1%} right"
    ),
    "Its confidence tells errors above 4 mm under corruption": confidence_in_words,
    "It takes a fraction of a second on one thread": lambda result: (
        f"{result['cpu_s'][AGENTS]['median']:.2f} CPU-s (median)"
    ),
}


def draw(path: Path, measured: dict[str, Measurements], result: dict[str, Any]) -> None:
    """Errors as they accumulate, per landmark, and the reliability of the confidence."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    for condition, found in measured.items():
        for method, rows in found.select(metric="error_mm").by("method").items():
            errors = np.sort(rows.values[np.isfinite(rows.values)])
            # Misses are never reached.
            share = 100 * np.arange(1, len(errors) + 1) / len(rows.values)
            label = f"{method}, {condition} ({errors.mean():.2f} mm)"
            left.plot(errors, share, "-" if method == AGENTS else "--", label=label)
    left.set(xlim=(0, 15), ylim=(0, 100), xlabel="error (mm)", ylabel="landmarks (%)")
    left.legend(loc="lower right", fontsize=8, title="mean")

    own = measured["as is"].select(metric="error_mm", method=AGENTS).by("group")
    groups = [rows.values[np.isfinite(rows.values)] for _, rows in sorted(own.items())]
    middle.boxplot(groups, orientation="horizontal", tick_labels=sorted(own), widths=0.6)
    middle.tick_params(axis="y", labelsize=7)
    middle.set(xlabel="error (mm), heads as they are")

    right.plot([0, 1], [0, 1], "k:", linewidth=1)
    for name, figures in result["confidence"].items():
        if figures["auc"] is not None:
            bins = figures["reliability"].bins
            right.scatter(
                [b.stated for b in bins],
                [b.observed for b in bins],
                s=[12 * np.sqrt(b.count) for b in bins],
                alpha=0.6,
                label=f"{name} (AUC {figures['auc']:.2f})",
            )
    right.set(xlabel="confidence (area: root of the count)", xlim=(-0.02, 1.05))
    right.set(ylabel=f"share of errors below {GOOD_MM:g} mm", ylim=(-0.02, 1.05))
    right.legend(fontsize=8)
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _number(subject: str) -> int:
    """The subject's IXI number, as a seed."""
    return int(subject[3:6])


if __name__ == "__main__":
    main()
