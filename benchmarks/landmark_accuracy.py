"""How well `brain-t1` finds its landmarks in heads that it was not trained on.

IXI heads as they are, turned by any angle, corrupted (pose, grid, scanner) and cut in half: errors,
presence, what the confidence is worth, CPU time, next to the mean position and atlases carried over
by affine registration. Figures for tuning come from --split val; the holdout is for the model that
ships.
"""

from __future__ import annotations

import os

# Times are given for one thread: set before PyTorch and Numba load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from evaluation import ixi
from evaluation.images import LabelledImage, corrupt, half, turned
from evaluation.results import RESULTS, save

from medrl.evaluation import Measurements, Table, compare, plain, summarize
from medrl.landmark.baselines import LandmarkAtlas, MeanPosition
from medrl.landmark.confidence import GOOD_MM
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.evaluate import (
    AGENTS,
    Labelled,
    Method,
    agents,
    errors,
    guesses,
    measure_methods,
    presence,
    trust,
)

#: Presence this near to a face of the scan is a matter of taste, and also counted without.
NEAR_FACE_MM = 4.0
COLUMNS = ("mean", "median", "p95", "max", "above_5", "above_10")


def corrupted(subject: str, count: int) -> Iterator[LabelledImage]:
    """Corrupted copies of a subject, the same ones in every run."""
    for index in range(count):
        head = corrupt(ixi.load(subject), np.random.default_rng([_number(subject), index, 1]))
        yield replace(head, name=f"{head.name} {index}")


def turned_about(subject: str, count: int) -> Iterator[LabelledImage]:
    """A subject turned by any angle, the same ones in every run."""
    for index in range(count):
        head = turned(ixi.load(subject), np.random.default_rng([_number(subject), index, 3]))
        yield replace(head, name=f"{head.name} {index}")


def halves(subject: str, rounds: int) -> Iterator[LabelledImage]:
    """Halves of a subject: each axis and side once a round, the plane at random."""
    for index in range(rounds):
        rng = np.random.default_rng([_number(subject), index, 2])
        for axis in range(3):
            for keep_low in (True, False):
                head = half(ixi.load(subject), rng, axis=axis, keep_low=keep_low)
                yield replace(head, name=f"{head.name} {index} {axis} {keep_low}")


def run(heads: Sequence[LabelledImage], methods: dict[str, Method]) -> Measurements:
    """Measure methods on heads; seconds are the processor's."""
    return measure_methods(
        heads,
        methods,
        load=lambda head: Labelled(head.name, head.scan(), head.points_world, head.subject),
        subject=lambda head: head.subject,
        clock=time.process_time,
        progress=lambda done, total, name: print(f"{done}/{total} {name}", flush=True),
    )


def accuracy(measured: Measurements) -> dict[str, Any]:
    """Errors of a method, all together and one by one, and the large ones."""
    rows = measured.select(metric="error_mm").rows
    large = sorted((row for row in rows if row.value > 5), key=lambda row: -row.value)
    return {
        **errors(measured),
        "above_5_mm": [[row.case, row.group, row.value] for row in large],
    }


def main() -> None:
    """Measure everything and write the result and its figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="brain-t1", help="name or folder of the model")
    parser.add_argument("--split", choices=("val", "holdout"), default="holdout")
    parser.add_argument("--corruptions", type=int, default=4, help="corrupted copies a head")
    parser.add_argument("--turns", type=int, default=3, help="copies a head that are turned")
    parser.add_argument("--half-rounds", type=int, default=1, help="rounds of six halves a head")
    parser.add_argument("--atlases", type=int, default=3, help="0 leaves the affine atlases out")
    parser.add_argument("--out", type=Path, help="JSON file; by default in results/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    out = options.out or RESULTS / f"landmark_accuracy_{options.split}.json"
    subjects = ixi.subjects(options.split)
    detector = LandmarkDetector.load(options.model)
    detector.detect(ixi.load(subjects[0]).scan())  # compiles what is compiled on first use
    own = {AGENTS: agents(detector)}
    training = ixi.samples("train")
    others: list[MeanPosition | LandmarkAtlas] = [MeanPosition(training, ixi.LANDMARKS)]
    for count in {1, options.atlases} - {0} if options.atlases else ():
        others.append(LandmarkAtlas(training, ixi.LANDMARKS, count=count, spacing=2.0))
    whole = {**own, **{other.name: guesses(other, ixi.LANDMARKS) for other in others}}
    measured = {
        "as is": run([ixi.load(s) for s in subjects], whole),
        "corrupted": run([h for s in subjects for h in corrupted(s, options.corruptions)], own),
        "turned": run([h for s in subjects for h in turned_about(s, options.turns)], own),
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
        "presence": {
            name: {
                f"further_than_{margin:g}_mm_from_a_face": presence(found, least_margin_mm=margin)
                for margin in (0.0, NEAR_FACE_MM)
            }
            for name, found in measured.items()
        },
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
    for name in ("as is", "turned", "corrupted"):
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
    low, high = figures["auc_interval"]
    error = figures["reliability"]["calibration_error"]
    return f"AUC {figures['auc']:.3f} ({low:.2f} to {high:.2f}), calibration error {error:.3f}"


def presence_in_words(result: dict[str, Any]) -> str:
    """Share of landmarks whose presence in half heads is told right."""
    told = next(iter(result["presence"]["halves"].values()))
    return f"{(told['true_positive'] + told['true_negative']) / sum(told.values()):.1%} right"


CLAIMS: dict[str, Callable[[dict[str, Any]], str]] = {
    "The model finds 25 landmarks in heads it has not seen, also corrupted ones": in_words,
    "It tells which landmarks are not in half a head": presence_in_words,
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
            bins = figures["reliability"]["bins"]
            right.scatter(
                [b["stated"] for b in bins],
                [b["observed"] for b in bins],
                s=[12 * np.sqrt(b["count"]) for b in bins],
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
