"""Summaries, paired differences with intervals by subject, and how well a score separates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import mannwhitneyu

from medrl.evaluation.measurements import Measurements

Array = NDArray[np.float64]

#: Limits in mm of the shares of large errors.
LIMITS_MM = (5.0, 10.0)


def summarize(values: ArrayLike, *, above: Sequence[float] = ()) -> dict[str, float | None]:
    """Sum up values of any shape, ready for JSON.

    Args:
        values: Errors or scores; NaN is a miss.
        above: Limits.

    Returns:
        ``count`` of the values, ``missed``; ``mean``, ``median``, ``p95``, ``min`` and ``max`` of
        the values, None if there are none; and for each limit ``above_LIMIT``, the share (0 to 1)
        of values above it, misses included: no answer is no better than a bad one.
    """
    every = np.asarray(values, dtype=np.float64).ravel()
    given = every[~np.isnan(every)]
    figures: dict[str, float | None] = {"count": len(given), "missed": len(every) - len(given)}
    reducers: dict[str, Callable[[Array], float]] = {
        "mean": np.mean,
        "median": np.median,
        "p95": lambda a: np.percentile(a, 95),
        "min": np.min,
        "max": np.max,
    }
    figures |= {name: float(f(given)) if len(given) else None for name, f in reducers.items()}
    for limit in above:
        large = (given > limit).sum() + len(every) - len(given)
        figures[f"above_{limit:g}"] = float(large / len(every)) if len(every) else None
    return figures


@dataclass(frozen=True)
class Difference:
    """A method minus another one, on the same cases.

    Attributes:
        mean: Mean difference.
        low: Lower end of its 95 % interval.
        high: Upper end.
        pairs: Cases and groups that both methods answered.
        missed: Those that either of them missed; they are in no mean.
    """

    mean: float
    low: float
    high: float
    pairs: int
    missed: int = 0


def compare(measured: Measurements, metric: str, method: str, other: str) -> Difference:
    """How much more a method's values are than another's on the same cases and groups.

    Args:
        measured: Rows of both.
        metric: Which.
        method: Its name.
        other: Name of what it is compared with.
    """
    one, two = measured.column(metric, method), measured.column(metric, other)
    whose = {(row.case, row.group): row.subject for row in measured.rows}
    both = [key for key in one if key in two]
    difference = np.array([one[key] - two[key] for key in both], dtype=np.float64)
    known = ~np.isnan(difference)
    subjects = [whose[key] for key, good in zip(both, known, strict=True) if good]
    found = paired_bootstrap(difference[known], subjects)
    return Difference(found.mean, found.low, found.high, found.pairs, int((~known).sum()))


def paired_bootstrap(
    differences: ArrayLike, subjects: Sequence[str], *, seed: int = 0
) -> Difference:
    """Mean of paired differences (N,) with its 95 % interval over resampled subjects.

    Args:
        differences: (N,), none of them NaN.
        subjects: Whom each belongs to; those of one subject are drawn together.
        seed: Of the resampling.

    Returns:
        The difference; all NaN if there is none.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return Difference(float("nan"), float("nan"), float("nan"), 0)
    low, high = interval_by_subject(lambda rows: float(values[rows].mean()), subjects, seed=seed)
    return Difference(float(values.mean()), low, high, len(values))


def interval_by_subject(
    statistic: Callable[[NDArray[np.intp]], float],
    subjects: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % bootstrap interval (percentiles) of a statistic, drawing whole subjects.

    Args:
        statistic: From numbers of rows, some of them several times, to a value; resamples for
            which it is NaN are left out.
        subjects: The subject of every row.
        resamples: How many.
        seed: Of the drawing.

    Returns:
        Lower and upper end; of one subject alone NaN, as nothing is known of others.
    """
    _, group = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    members = [np.flatnonzero(group == g) for g in range(int(group.max(initial=-1)) + 1)]
    if len(members) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(len(members), size=(resamples, len(members)))
    drawn = [statistic(np.concatenate([members[n] for n in chosen])) for chosen in draws]
    if np.isnan(drawn).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def auc(score: ArrayLike, positive: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores higher than a negative.

    Args:
        score: (N,); ties count half.
        positive: (N,) booleans.

    Returns:
        The Mann-Whitney U over the number of pairs; NaN if there are no positives or no negatives.
    """
    scores, truth = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    yes, no = scores[truth], scores[~truth]
    if not len(yes) or not len(no):
        return float("nan")
    return float(mannwhitneyu(yes, no, method="asymptotic").statistic / (len(yes) * len(no)))


@dataclass(frozen=True)
class Confusion:
    """How often something is told right.

    Attributes:
        true_positive: Is so and was said.
        false_negative: Is so and was denied.
        false_positive: Is not so and was said.
        true_negative: Is not so and was denied.
    """

    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int

    @property
    def accuracy(self) -> float:
        """Share told right; NaN of nothing."""
        right = self.true_positive + self.true_negative
        total = right + self.false_negative + self.false_positive
        return right / total if total else float("nan")


def confusion(truth: ArrayLike, said: ArrayLike) -> Confusion:
    """Count what is, and what was said, booleans of one shape."""
    is_so, told = np.asarray(truth, dtype=bool), np.asarray(said, dtype=bool)
    counts = [(is_so & told), (is_so & ~told), (~is_so & told), (~is_so & ~told)]
    return Confusion(*(int(count.sum()) for count in counts))
