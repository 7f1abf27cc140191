"""How far a model's answers are from the labels, next to what needs no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.landmark.confidence import GOOD_MM
from medrl.landmark.data import Sample, points_array
from medrl.landmark.detect import LandmarkDetector
from medrl.volume.read import read
from medrl.volume.space import as_affine, inside

Array = NDArray[np.float64]

AGENTS = "agents"


class Baseline(Protocol):
    """Another way to guess landmarks."""

    name: str

    def predict(self, scan: MetaTensor) -> Array:
        """Guess the landmarks (K, 3) of a scan, RAS mm, NaN where there is no guess."""
        ...


@dataclass(frozen=True)
class Figures:
    """Summary of errors in mm.

    Attributes:
        count: Errors summed up.
        mean: Mean.
        median: Median.
        p95: 95th percentile.
        max: Largest.
        above_5: Share above 5 mm, 0 to 1.
        above_10: Share above 10 mm, 0 to 1.
    """

    count: int
    mean: float | None
    median: float | None
    p95: float | None
    max: float | None
    above_5: float | None
    above_10: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Errors of S scans and K landmarks.

    Attributes:
        scans: Names of the scans that could be read.
        landmarks: Names of the landmarks.
        errors_mm: (S, K) by method, the agents first; NaN where a landmark is not labelled, not in
            the scan, or the method gave no answer.
        present: (S, K) bool, labelled and within the scan.
        outside: (S, K) bool, labelled and outside the scan.
        status: (S, K), what the agents said: found, corrected or absent.
        confidence: (S, K), what the agents said; NaN unknown.
        seconds: (S,), time to search each scan.
        failed: What went wrong, by scan.
    """

    scans: tuple[str, ...]
    landmarks: tuple[str, ...]
    errors_mm: dict[str, Array]
    present: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    status: NDArray[np.str_]
    confidence: Array
    seconds: Array
    failed: dict[str, str]

    def summary(self) -> dict[str, Any]:
        """Everything a report needs, ready for JSON.

        Returns:
            Per method the figures over all landmarks and for each landmark; how often presence
            was told right; how well the confidence tells errors of 4 mm and more.
        """
        said = self.status != "absent"
        methods = {
            name: {
                "all": asdict(figures(errors)),
                "landmarks": {
                    landmark: asdict(figures(errors[:, k]))
                    for k, landmark in enumerate(self.landmarks)
                },
            }
            for name, errors in self.errors_mm.items()
        }
        return {
            "scans": len(self.scans),
            "failed": self.failed,
            "methods": methods,
            "presence": {
                "present_said_present": int((self.present & said).sum()),
                "present_said_absent": int((self.present & ~said).sum()),
                "absent_said_present": int((self.outside & said).sum()),
                "absent_said_absent": int((self.outside & ~said).sum()),
            },
            "confidence_auc": _auc(self.confidence, self.errors_mm[AGENTS]),
            "seconds_median": float(np.median(self.seconds)) if len(self.seconds) else None,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a scan, landmark and method: what a spreadsheet wants."""
        return [
            {
                "scan": scan,
                "landmark": landmark,
                "method": method,
                "error_mm": None if np.isnan(errors[s, k]) else float(errors[s, k]),
                "labelled": _place(self.present[s, k], self.outside[s, k]),
                "status": str(self.status[s, k]) if method == AGENTS else "",
                "confidence": float(self.confidence[s, k]) if method == AGENTS else None,
            }
            for method, errors in self.errors_mm.items()
            for s, scan in enumerate(self.scans)
            for k, landmark in enumerate(self.landmarks)
        ]


def evaluate(
    detector: LandmarkDetector,
    cases: Sequence[Sample],
    *,
    baselines: Sequence[Baseline] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Search labelled scans and measure the errors.

    Args:
        detector: The model.
        cases: Labelled scans.
        baselines: Other guesses to measure on the same scans.
        progress: Called with the scans done, their number, and the name of the next.

    Returns:
        The errors. A scan that cannot be used is listed, the others go on.

    Raises:
        MedrlError: If no scan could be used or none of the model's landmarks is labelled.
    """
    names = detector.landmark_names
    truths = [points_array(case, names) for case in cases]
    if not any(np.isfinite(truth).any() for truth in truths):
        raise MedrlError("no scan is labelled with a landmark that the model knows")
    methods = (AGENTS, *(baseline.name for baseline in baselines))
    errors: dict[str, list[Array]] = {method: [] for method in methods}
    scans, present, outside, status, confidence, seconds = [], [], [], [], [], []
    failed: dict[str, str] = {}
    for n, (case, truth) in enumerate(zip(cases, truths, strict=True)):
        if progress is not None:
            progress(n, len(cases), case.name)
        try:
            scan = read(case.image)
            detection = detector.detect(scan)
        except MedrlError as error:
            failed[str(case.image)] = str(error)
            continue
        labelled = np.isfinite(truth).all(axis=1)
        within = labelled & inside(
            np.nan_to_num(truth), as_affine(scan.affine), tuple(scan.shape[1:])
        )
        found = np.stack([lm.position_world for lm in detection.landmarks])
        said = np.array([lm.status for lm in detection.landmarks])
        guesses = {AGENTS: np.where((said != "absent")[:, None], found, np.nan)}
        guesses |= {baseline.name: baseline.predict(scan) for baseline in baselines}
        for method, guess in guesses.items():
            distance = np.linalg.norm(guess - truth, axis=1)
            errors[method].append(np.where(within, distance, np.nan))
        scans.append(case.name)
        present.append(within)
        outside.append(labelled & ~within)
        status.append(said)
        confidence.append(np.array([lm.confidence for lm in detection.landmarks]))
        seconds.append(detection.seconds)
    if progress is not None:
        progress(len(cases), len(cases), "")
    if not scans:
        raise MedrlError(f"no scan could be used: {next(iter(failed.values()))}")
    return Evaluation(
        scans=tuple(scans),
        landmarks=names,
        errors_mm={method: np.stack(rows) for method, rows in errors.items()},
        present=np.stack(present),
        outside=np.stack(outside),
        status=np.stack(status),
        confidence=np.stack(confidence),
        seconds=np.array(seconds),
        failed=failed,
    )


def figures(errors_mm: Array) -> Figures:
    """Sum up errors of any shape; NaN are left out."""
    given = np.asarray(errors_mm, dtype=np.float64)
    given = given[np.isfinite(given)]
    if not len(given):
        return Figures(0, None, None, None, None, None, None)
    return Figures(
        count=len(given),
        mean=float(given.mean()),
        median=float(np.median(given)),
        p95=float(np.percentile(given, 95)),
        max=float(given.max()),
        above_5=float((given > 5).mean()),
        above_10=float((given > 10).mean()),
    )


def _auc(confidence: Array, error_mm: Array) -> float | None:
    """Chance that a good answer has more confidence than a bad one (Mann-Whitney), or None."""
    known = np.isfinite(confidence) & np.isfinite(error_mm)
    good = error_mm < GOOD_MM
    yes, no = confidence[known & good], confidence[known & ~good]
    if not len(yes) or not len(no):
        return None
    wins = np.sign(yes[:, None] - no[None]).mean()
    return float(0.5 * (1 + wins))


def _place(present: bool, outside: bool) -> str:
    """Where a label is."""
    return "in the scan" if present else "outside the scan" if outside else "no"
