"""How well `brain-t1` finds its landmarks in heads that it was not trained on.

IXI heads as they are, corrupted (pose, grid, scanner) and cut in half: errors, presence, what the
confidence is worth, CPU time, next to the baselines of atlas_baseline.py. Figures for tuning come
from --split val; the holdout is for the model that ships.
"""

from __future__ import annotations

import os

# Times are given for one thread: set before PyTorch and Numba load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import atlas_baseline
import numpy as np
import SimpleITK as sitk
import torch
from evaluation import ixi
from evaluation.cases import Case, corrupt, half
from evaluation.results import RESULTS, environment, markdown, read, save
from evaluation.statistics import auc, auc_interval, confusion, reliability, summarize

from medrl.landmark.detect import Detection, LandmarkDetector

#: Errors below this count as good; the confidence is the probability of it.
GOOD_MM = 4.0
#: Presence this near to a face of the scan is a matter of taste, and also counted without.
NEAR_FACE_MM = 4.0
COLUMNS = ("mean_mm", "median_mm", "p95_mm", "max_mm", "above_5_mm_percent", "above_10_mm_percent")


@dataclass(frozen=True)
class Answer:
    """One landmark of one case, truth and answer."""

    case: str
    subject: str
    landmark: str
    present: bool
    margin_mm: float
    status: str
    confidence: float
    error_mm: float

    @property
    def said_present(self) -> bool:
        """Whether the model gave a position."""
        return self.status != "absent"


def compare(case: Case, subject: str, detection: Detection) -> list[Answer]:
    """Hold a detection against the truth, landmark by landmark."""
    answers = []
    for found in detection.landmarks:
        truth = case.points_world[found.name]
        margin = case.margin_mm(found.name)
        error = float(np.linalg.norm(found.position_world - truth))
        answers.append(
            Answer(
                case.name,
                subject,
                found.name,
                margin >= 0,
                margin,
                found.status,
                found.confidence,
                error if margin >= 0 and found.status != "absent" else float("nan"),
            )
        )
    return answers


def corrupted(subject: str, count: int) -> Iterator[Case]:
    """Corrupted copies of a subject, the same ones in every run."""
    for index in range(count):
        case = corrupt(ixi.load(subject), np.random.default_rng([_number(subject), index, 1]))
        yield replace(case, name=f"{case.name} {index}")


def halves(subject: str, rounds: int) -> Iterator[Case]:
    """Halves of a subject: each axis and side once a round, the plane at random."""
    for index in range(rounds):
        rng = np.random.default_rng([_number(subject), index, 2])
        for axis in range(3):
            for keep_low in (True, False):
                yield half(ixi.load(subject), rng, axis=axis, keep_low=keep_low)


def accuracy(answers: list[Answer]) -> dict[str, Any]:
    """Errors over the landmarks that are in the scans, all together and one by one."""
    present = [a for a in answers if a.present]
    by_name: dict[str, list[float]] = {}
    for answer in present:
        by_name.setdefault(answer.landmark, []).append(answer.error_mm)
    worst = sorted((a for a in present if a.error_mm > 5), key=lambda a: -a.error_mm)
    return {
        "all": summarize([a.error_mm for a in present]),
        "corrected_by_shape_prior": sum(a.status == "corrected" for a in answers),
        "landmarks": {name: summarize(errors) for name, errors in sorted(by_name.items())},
        "above_5_mm": [
            {
                "case": a.case,
                "landmark": a.landmark,
                "error_mm": a.error_mm,
                "status": a.status,
                "confidence": a.confidence,
            }
            for a in worst
        ],
    }


def trust(answers: list[Answer]) -> dict[str, Any]:
    """What the confidence is worth, on the answers that have an error."""
    judged = [a for a in answers if np.isfinite(a.error_mm)]
    bad = np.array([a.error_mm >= GOOD_MM for a in judged])
    doubt = 1 - np.array([a.confidence for a in judged])
    if not len(judged) or np.isnan(doubt).any():
        return {"judged": len(judged), "auc": None}
    return {
        "judged": len(judged),
        f"above_{GOOD_MM:g}_mm": int(bad.sum()),
        "auc": auc(doubt, bad),
        "auc_95_percent_interval": auc_interval(doubt, bad, [a.subject for a in judged]),
        "reliability": reliability(1 - doubt, ~bad),
    }


def presence(answers: list[Answer]) -> dict[str, Any]:
    """How often presence is told right, with and without landmarks close to the cut."""
    clear = [a for a in answers if abs(a.margin_mm) > NEAR_FACE_MM]
    return {
        "all": confusion([a.present for a in answers], [a.said_present for a in answers]),
        f"further_than_{NEAR_FACE_MM:g}_mm_from_the_face": confusion(
            [a.present for a in clear], [a.said_present for a in clear]
        ),
    }


def cpu_seconds(detector: LandmarkDetector, split: str) -> dict[str, float]:
    """CPU seconds for all landmarks, model loaded, scan in memory, one thread."""
    seconds = []
    for subject in ixi.subjects(split):
        scan = ixi.load(subject).scan()
        began = time.process_time()
        detector.detect(scan)
        seconds.append(time.process_time() - began)
    return {
        "median": float(np.median(seconds)),
        "min": min(seconds),
        "max": max(seconds),
        "scans": len(seconds),
    }


def main() -> None:
    """Measure everything and write the result and its figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="brain-t1", help="name or folder of the model")
    parser.add_argument("--split", choices=("val", "holdout"), default="holdout")
    parser.add_argument("--corruptions", type=int, default=4, help="corrupted copies a head")
    parser.add_argument("--half-rounds", type=int, default=1, help="rounds of six halves a head")
    parser.add_argument("--without-atlas", action="store_true", help="leave the baselines out")
    parser.add_argument(
        "--refresh", action="store_true", help="only renew the time and the baselines on file"
    )
    parser.add_argument("--out", type=Path, help="JSON file; by default in results/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    out = options.out or RESULTS / f"landmark_accuracy_{options.split}.json"
    detector = LandmarkDetector.load(options.model)
    subjects = ixi.subjects(options.split)
    detector.detect(ixi.load(subjects[0]).scan())  # compiles what is compiled on first use
    if options.refresh:
        result = read(out)
        result["cpu_s_per_scan"] = cpu_seconds(detector, options.split)
        if "baselines" in result:
            own = result["accuracy"]["as is"]["all"]["mean_mm"]
            result["baselines"] = _baselines(options.split, own)
        save(out, result)
        print(report(result))
        return

    answers: dict[str, list[Answer]] = {"as is": [], "corrupted": [], "halves": []}
    descriptions: dict[str, list[dict[str, object]]] = {subject: [] for subject in subjects}
    for number, subject in enumerate(subjects, 1):
        cases = {
            "as is": [ixi.load(subject)],
            "corrupted": corrupted(subject, options.corruptions),
            "halves": halves(subject, options.half_rounds),
        }
        for condition, group in cases.items():
            for case in group:
                answers[condition] += compare(case, subject, detector.detect(case.scan()))
                if condition == "corrupted":
                    descriptions[subject].append(case.description)
        print(f"{number}/{len(subjects)} heads", flush=True)

    result: dict[str, Any] = {
        "model": Path(options.model).name,
        "split": options.split,
        "heads": len(subjects),
        "cpu_s_per_scan": cpu_seconds(detector, options.split),
        "accuracy": {name: accuracy(group) for name, group in answers.items()},
        "confidence": {name: trust(group) for name, group in answers.items()},
        "presence": {name: presence(group) for name, group in answers.items()},
        "corruptions": descriptions,
    }
    if not options.without_atlas:
        own = result["accuracy"]["as is"]["all"]["mean_mm"]
        result["baselines"] = _baselines(options.split, own)
    result["environment"] = environment()
    save(out, result)
    _draw(out.with_suffix(".png"), answers, result)
    print(report(result))


def report(result: dict[str, Any]) -> str:
    """The result in words and tables."""
    rows: list[list[object]] = []
    for name, figures in result["accuracy"].items():
        total = figures["all"]
        rows.append([f"agents, {name}", total["count"], total["missing"], *_cells(total)])
    baselines = result.get("baselines", {})
    for name, figures in baselines.get("errors", {}).items():
        rows.append([name, figures["count"], 0, *_cells(figures)])
    parts = [
        f"IXI {result['split']}, {result['heads']} heads",
        markdown(["", "found", "missed", *COLUMNS], rows),
    ]
    if baselines:
        ratios = ", ".join(f"{r:.3f} of {n}" for n, r in baselines["mean_error_ratio"].items())
        parts.append(f"Mean error as a share of the baselines': {ratios}")
    for name in result["presence"]:
        told = result["presence"][name]["all"]
        parts.append(
            f"Presence, {name}: {told['right_percent']:.2f} % right "
            f"({told['present_said_absent']} missed, {told['absent_said_present']} made up)"
        )
    for name, figures in result["confidence"].items():
        if figures["auc"] is not None:
            calibration = figures["reliability"]["expected_calibration_error"]
            parts.append(
                f"Confidence, {name}: AUC {figures['auc']:.3f} for errors above {GOOD_MM:g} mm "
                f"({figures[f'above_{GOOD_MM:g}_mm']} of {figures['judged']}), "
                f"calibration error {calibration:.3f}"
            )
    parts.append(f"CPU: {result['cpu_s_per_scan']['median']:.3f} s a scan (median)")
    per_landmark = [
        [name, *_cells(figures)]
        for name, figures in result["accuracy"]["as is"]["landmarks"].items()
    ]
    parts.append(markdown(["as is", *COLUMNS], per_landmark))
    return "\n\n".join(parts)


def _baselines(split: str, own_mm: float) -> dict[str, Any]:
    """Baselines on the same heads, and the agents' mean error as a share of theirs."""
    errors = atlas_baseline.errors(split)
    _, seconds = atlas_baseline.predictions(split)
    return {
        "errors": {name: summarize(error) for name, error in errors.items()},
        "mean_error_ratio": {name: float(own_mm / error.mean()) for name, error in errors.items()},
        "cpu_s_per_registration_median": float(np.median(seconds)),
    }


def _draw(path: Path, answers: dict[str, list[Answer]], result: dict[str, Any]) -> None:
    """Errors as they accumulate, per landmark, and the reliability of the confidence."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    curves = {
        f"agents, {name}": np.array([a.error_mm for a in group if np.isfinite(a.error_mm)])
        for name, group in answers.items()
    }
    if "baselines" in result:
        for name, error in atlas_baseline.errors(result["split"]).items():
            if "world" not in name:
                curves[name] = error.ravel()
    for name, errors in curves.items():
        style = "-" if name.startswith("agents") else "--"
        share = 100 * np.arange(1, len(errors) + 1) / len(errors)
        left.plot(np.sort(errors), share, style, label=f"{name} ({errors.mean():.2f} mm)")
    left.set(xlim=(0, 15), ylim=(0, 100), xlabel="error (mm)", ylabel="landmarks (%)")
    left.grid(alpha=0.3)
    left.legend(loc="lower right", fontsize=8, title="mean")

    names = sorted({a.landmark for a in answers["as is"]})
    groups = [
        [a.error_mm for a in answers["as is"] if a.landmark == n and np.isfinite(a.error_mm)]
        for n in names
    ]
    middle.boxplot(groups, orientation="horizontal", tick_labels=names, widths=0.6)
    middle.tick_params(axis="y", labelsize=7)
    middle.set(xlabel="error (mm), heads as they are")
    middle.grid(axis="x", alpha=0.3)

    right.plot([0, 1], [0, 1], "k:", linewidth=1)
    for name, figures in result["confidence"].items():
        if figures["auc"] is None:
            continue
        bins = figures["reliability"]["bins"]
        right.scatter(
            [b["stated"] for b in bins],
            [b["observed"] for b in bins],
            s=[12 * np.sqrt(b["count"]) for b in bins],
            alpha=0.6,
            label=f"{name} (AUC {figures['auc']:.2f})",
        )
    right.set(xlabel="confidence (area: root of the count)")
    right.set(
        ylabel=f"share of errors below {GOOD_MM:g} mm", xlim=(-0.02, 1.05), ylim=(-0.02, 1.05)
    )
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _cells(figures: dict[str, float]) -> list[object]:
    return [figures.get(column, float("nan")) for column in COLUMNS]


def _number(subject: str) -> int:
    """The subject's IXI number, as a seed."""
    return int(subject[3:6])


if __name__ == "__main__":
    main()
