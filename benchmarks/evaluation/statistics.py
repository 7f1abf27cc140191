"""Error summaries, presence, and what a confidence is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]


def summarize(errors_mm: ArrayLike) -> dict[str, float]:
    """Mean, median, 95 %, maximum and shares of large errors.

    Args:
        errors_mm: Errors of any shape, mm; NaN (no answer) is left out and counted.

    Returns:
        The figures; shares in percent of the answers given.
    """
    errors = np.asarray(errors_mm, dtype=np.float64).ravel()
    given = errors[~np.isnan(errors)]
    if not len(given):
        return {"count": 0, "missing": len(errors)}
    return {
        "count": len(given),
        "missing": len(errors) - len(given),
        "mean_mm": float(given.mean()),
        "median_mm": float(np.median(given)),
        "p95_mm": float(np.percentile(given, 95)),
        "max_mm": float(given.max()),
        "above_5_mm_percent": float(100 * (given > 5).mean()),
        "above_10_mm_percent": float(100 * (given > 10).mean()),
    }


def confusion(present: ArrayLike, said_present: ArrayLike) -> dict[str, float]:
    """How often presence is told right.

    Args:
        present: Truth, booleans.
        said_present: Answers, booleans of the same shape.

    Returns:
        Counts of the four outcomes, and the percentages told right.
    """
    truth = np.asarray(present, dtype=bool).ravel()
    said = np.asarray(said_present, dtype=bool).ravel()
    right = truth == said
    return {
        "present_said_present": int((truth & said).sum()),
        "present_said_absent": int((truth & ~said).sum()),
        "absent_said_present": int((~truth & said).sum()),
        "absent_said_absent": int((~truth & ~said).sum()),
        "right_percent": float(100 * right.mean()) if len(right) else float("nan"),
        "present_right_percent": float(100 * right[truth].mean()) if truth.any() else float("nan"),
        "absent_right_percent": (
            float(100 * right[~truth].mean()) if (~truth).any() else float("nan")
        ),
    }


def auc(score: ArrayLike, positive: ArrayLike) -> float:
    """Area under the ROC curve: chance that a positive scores higher than a negative.

    Args:
        score: (N,), higher means more likely positive; ties count half.
        positive: (N,) booleans.

    Returns:
        The area (Mann-Whitney U over the number of pairs); NaN if a class is empty.
    """
    truth = np.asarray(positive, dtype=bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(np.asarray(score, dtype=np.float64))
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auc_interval(
    score: ArrayLike, positive: ArrayLike, groups: Sequence[object], *, rounds: int = 1000
) -> tuple[float, float]:
    """95 % bootstrap interval of the AUC, drawing whole groups (subjects): (low, high)."""
    scores, truth = np.asarray(score), np.asarray(positive, dtype=bool)
    _, group = np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)
    members = [np.flatnonzero(group == g) for g in range(group.max() + 1)]
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(rounds):
        drawn = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        areas.append(auc(scores[drawn], truth[drawn]))
    if np.isnan(areas).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(areas, [2.5, 97.5])
    return float(low), float(high)


def reliability(probability: ArrayLike, outcome: ArrayLike, *, bins: int = 10) -> dict[str, object]:
    """Do the probabilities mean what they say?

    Args:
        probability: (N,) stated probability of the outcome.
        outcome: (N,) booleans.
        bins: Bins of equal width over 0..1.

    Returns:
        Brier score, expected calibration error, and per bin its range, count, mean probability
        and share of the outcome. Empty bins are left out.
    """
    stated = np.asarray(probability, dtype=np.float64)
    happened = np.asarray(outcome, dtype=np.float64)
    which = np.minimum((stated * bins).astype(int), bins - 1)
    table, gap = [], 0.0
    for index in range(bins):
        inside = which == index
        if not inside.any():
            continue
        mean, share = float(stated[inside].mean()), float(happened[inside].mean())
        gap += abs(mean - share) * inside.mean()
        table.append(
            {
                "from": index / bins,
                "to": (index + 1) / bins,
                "count": int(inside.sum()),
                "stated": mean,
                "observed": share,
            }
        )
    return {
        "brier": float(((stated - happened) ** 2).mean()),
        "expected_calibration_error": float(gap),
        "bins": table,
    }
