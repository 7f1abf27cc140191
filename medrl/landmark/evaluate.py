"""How far a model's answers are from the labels, next to what needs no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.evaluation import (
    Evaluation,
    Measurements,
    Table,
    auc,
    compare,
    confusion,
    interval_by_subject,
    measure,
    reliability,
    summarize,
)
from medrl.landmark.confidence import GOOD_MM
from medrl.landmark.data import Sample
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.detection import Landmark
from medrl.volume.read import read
from medrl.volume.space import as_affine, depth_inside

Array = NDArray[np.float64]

AGENTS = "agents"
LIMITS_MM = (5.0, 10.0)
_COLUMNS = {
    "mean": "mean",
    "median": "median",
    "p95": "95 %",
    "max": "max",
    "above_5": "> 5 mm",
    "above_10": "> 10 mm",
}


class Baseline(Protocol):
    """Another way to guess landmarks."""

    name: str

    def predict(self, scan: MetaTensor) -> Array:
        """Guess the landmarks (K, 3) of a scan, RAS mm, NaN where there is no guess."""
        ...


@dataclass(frozen=True, eq=False)
class Labelled:
    """A scan and its labels.

    Attributes:
        name: Of the scan.
        scan: MetaTensor (1, I, J, K).
        points_world: Landmarks by name, each (3,) RAS mm, those outside the scan included.
        subject: Whose scan it is.
    """

    name: str
    scan: MetaTensor
    points_world: Mapping[str, Array]
    subject: str = ""

    @property
    def margins_mm(self) -> dict[str, float]:
        """Distance of each landmark from the nearest face of the scan; negative outside."""
        affine, shape = as_affine(self.scan.affine), tuple(self.scan.shape[1:])
        return {
            name: float(depth_inside(point, affine, shape))
            for name, point in self.points_world.items()
        }

    @property
    def present(self) -> list[str]:
        """Landmarks that are in the scan."""
        return [name for name, margin in self.margins_mm.items() if margin >= 0]


#: From a scan to its landmarks by name; one that is called absent, or left out, is a miss.
Method = Callable[[Labelled], Mapping[str, Landmark]]


def agents(detector: LandmarkDetector) -> Method:
    """The model as a method."""
    return lambda labelled: {
        found.name: found for found in detector.detect(labelled.scan).landmarks
    }


def guesses(baseline: Baseline, landmarks: Sequence[str]) -> Method:
    """A baseline as a method; it calls nothing absent."""

    def predict(labelled: Labelled) -> dict[str, Landmark]:
        found = zip(landmarks, baseline.predict(labelled.scan), strict=True)
        return {
            name: Landmark(name, point, "found", float("nan"), "")
            for name, point in found
            if np.isfinite(point).all()
        }

    return predict


def error_mm(labelled: Labelled, answer: Mapping[str, Landmark]) -> dict[str, float]:
    """Distances of the landmarks that are in the scan and were found."""
    return {
        name: float(np.linalg.norm(answer[name].position_world - labelled.points_world[name]))
        for name in labelled.present
        if name in answer and answer[name].status != "absent"
    }


def said_present(labelled: Labelled, answer: Mapping[str, Landmark]) -> dict[str, float]:
    """1 for a landmark that the method found, 0 for one that it calls absent."""
    return {
        name: float(name in answer and answer[name].status != "absent")
        for name in labelled.points_world
    }


def confidence(labelled: Labelled, answer: Mapping[str, Landmark]) -> dict[str, float]:
    """What the method says of each landmark; NaN if nothing."""
    return {
        name: answer[name].confidence if name in answer else float("nan")
        for name in labelled.points_world
    }


def measure_methods(
    samples: Sequence[Any],
    methods: Mapping[str, Method],
    *,
    load: Callable[[Any], Labelled] | None = None,
    **options: Any,
) -> Measurements:
    """Measure methods on labelled scans, by landmark.

    Args:
        samples: The scans, each with a name.
        methods: By name.
        load: Reads a scan and its labels.
        options: Of :func:`medrl.evaluation.measure`.
    """
    metrics: dict[str, Callable[[Labelled, Mapping[str, Landmark]], dict[str, float]]] = {
        "error_mm": error_mm,
        "said_present": said_present,
        "confidence": confidence,
        "margin_mm": lambda labelled, _: labelled.margins_mm,
    }
    return measure(samples, methods, metrics, load=load, groups=lambda one: one.present, **options)


def errors(measured: Measurements) -> dict[str, Any]:
    """Sums of the errors of one method: over all landmarks, and for each."""
    rows = measured.select(metric="error_mm")
    return {
        "all": summarize(rows.values, above=LIMITS_MM),
        "landmarks": {
            name: summarize(own.values, above=LIMITS_MM)
            for name, own in sorted(rows.by("group").items())
        },
    }


def presence(
    measured: Measurements, *, least_margin_mm: float = 0.0, method: str = AGENTS
) -> dict[str, int]:
    """How often a method told presence right.

    Args:
        measured: Its rows, and those of others.
        least_margin_mm: Leave out landmarks nearer to a face of the scan than this.
        method: Which.
    """
    said, margins = measured.column("said_present", method), measured.column("margin_mm", method)
    keys = [key for key, margin in margins.items() if abs(margin) >= least_margin_mm]
    return asdict(confusion([margins[key] >= 0 for key in keys], [said[key] > 0 for key in keys]))


def trust(measured: Measurements, *, good_mm: float = GOOD_MM) -> dict[str, Any]:
    """What the agents' confidence is worth, on the answers that have an error.

    Args:
        measured: Rows of the agents, and of others.
        good_mm: Answers that are off by less are good.

    Returns:
        How many were judged and how many of those are off by that and more; how well the
        confidence tells these (area under the ROC curve with its 95 % interval by subject), and
        whether it means what it says. None for what cannot be said.
    """
    sure = measured.column("confidence", AGENTS)
    rows = [r for r in measured.select(metric="error_mm", method=AGENTS).rows if r.value == r.value]
    good = np.array([row.value < good_mm for row in rows], dtype=bool)
    stated = np.array([sure[row.case, row.group] for row in rows])
    found: dict[str, Any] = {"judged": len(rows), "bad": int((~good).sum())}
    if not len(rows) or np.isnan(stated).any():
        return {**found, "auc": None, "auc_interval": None, "reliability": None}
    area = auc(stated, good)
    interval = interval_by_subject(
        lambda chosen: auc(stated[chosen], good[chosen]), [row.subject for row in rows]
    )
    told = {"auc": area, "auc_interval": interval} if area == area else {"auc": None}
    return {**found, "auc_interval": None, **told, "reliability": asdict(reliability(stated, good))}


def evaluate(
    detector: LandmarkDetector,
    samples: Sequence[Sample],
    *,
    baselines: Sequence[Baseline] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Search labelled scans and measure the errors.

    Args:
        detector: The model.
        samples: Labelled scans; landmarks that the model does not know are left out.
        baselines: Other guesses to measure on the same scans.
        progress: Called with the scans done, their number, and the name of the next.

    Returns:
        The figures. A scan that cannot be used is listed, the others go on.

    Raises:
        MedrlError: If no scan could be used or none of the model's landmarks is labelled.
    """
    names = detector.landmark_names
    if not any(set(names) & set(sample.points_world) for sample in samples):
        raise MedrlError("no scan is labelled with a landmark that the model knows")

    def load(sample: Sample) -> Labelled:
        known = {name: sample.points_world[name] for name in names if name in sample.points_world}
        return Labelled(sample.name, read(sample.image), known)

    methods = {baseline.name: guesses(baseline, names) for baseline in baselines}
    measured = measure_methods(
        samples, {AGENTS: agents(detector), **methods}, load=load, progress=progress
    )
    if not measured.select(method=AGENTS, metric="said_present").rows:
        raise MedrlError(f"no scan could be used: {measured.failures[0].reason}")
    by_method = {name: errors(rows) for name, rows in measured.by("method").items()}
    summary = {
        "scans": len(measured.unique("case")),
        "failed": {failure.case: failure.reason for failure in measured.failures},
        "methods": by_method,
        "agents_minus": {name: compare(measured, "error_mm", AGENTS, name) for name in methods},
        "presence": presence(measured),
        "confidence": trust(measured, good_mm=detector.model.settings.good_mm),
        "seconds": summarize(measured.select(metric="seconds", method=AGENTS).values),
    }
    by_landmark = [
        {"method": method, "landmark": landmark, **figures}
        for method, both in by_method.items()
        for landmark, figures in {"all": both["all"], **both["landmarks"]}.items()
    ]
    return Evaluation(
        summary=summary,
        tables=_tables(summary),
        lines=[_in_words(summary)],
        files={"landmarks.csv": by_landmark, "rows.csv": measured.records()},
        failed=[failure.reason for failure in measured.failures],
    )


def _tables(summary: Mapping[str, Any]) -> list[Table]:
    """The figures of every method, and those of the agents for each landmark."""
    methods = summary["methods"]
    _, *others = methods
    overall = [[method, *_cells(both["all"])] for method, both in methods.items()]
    single = [
        [landmark, *_cells(figures), *(methods[m]["landmarks"][landmark]["mean"] for m in others)]
        for landmark, figures in methods[AGENTS]["landmarks"].items()
    ]
    title = f"Error in mm, {summary['scans']} scans"
    return [
        Table(title, ["method", *_COLUMNS.values()], overall),
        Table("", ["landmark", *_COLUMNS.values(), *others], single),
    ]


def _cells(figures: Mapping[str, Any]) -> list[object]:
    shares = {name: figures[name] for name in ("above_5", "above_10")}
    shown = {name: "-" if share is None else f"{share:.1%}" for name, share in shares.items()}
    return [shown.get(name, figures[name]) for name in _COLUMNS]


def _in_words(summary: Mapping[str, Any]) -> str:
    """How presence was told, and what the confidence is worth."""
    told = summary["presence"]
    inside = told["true_positive"] + told["false_negative"]
    outside = told["false_positive"] + told["true_negative"]
    line = f"of {inside} landmarks in the scans, {told['false_negative']} called absent"
    if outside:
        line += f"; of {outside} outside, {told['false_positive']} called present"
    if summary["confidence"]["auc"] is not None:
        line += f"; confidence tells errors above 4 mm with AUC {summary['confidence']['auc']:.3f}"
    return line
