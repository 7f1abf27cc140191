"""Probabilities that mean what they say: logistic regression, reliability, thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LogisticRegression:
    """Probability of an event: expit(weights . (features - center) / scale + bias).

    Attributes:
        center: (F,) mean of the features.
        scale: (F,) their spread.
        weights: (F,).
        bias: Intercept.
    """

    center: Array
    scale: Array
    weights: Array
    bias: float

    def __call__(self, features: ArrayLike) -> Array:
        """Probabilities (...) from features (..., F); a feature that is NaN counts as the mean."""
        standard = (np.asarray(features, dtype=np.float64) - self.center) / self.scale
        return np.asarray(expit(np.nan_to_num(standard) @ self.weights + self.bias))

    @classmethod
    def fit(
        cls, features: ArrayLike, event: ArrayLike, *, l2: float = 1.0, least_scale: float = 1e-6
    ) -> LogisticRegression:
        """Fit to cases as they occur: none weighs more than another.

        Minimises the log loss, summed over the cases, plus ``l2 / 2 |weights|^2`` for features
        brought to mean 0 and standard deviation 1 (the objective of scikit-learn with C = 1 / l2).

        Args:
            features: (N, F); NaN counts as the mean.
            event: (N,) booleans.
            l2: Penalty.
            least_scale: Features that vary less are not blown up.
        """
        x, y = np.asarray(features, dtype=np.float64), np.asarray(event, dtype=np.float64)
        known = ~np.isnan(x)
        count = known.sum(axis=0).clip(min=1)
        center = np.where(known, x, 0.0).sum(axis=0) / count
        spread = np.sqrt(np.where(known, (x - center) ** 2, 0.0).sum(axis=0) / count)
        scale = np.maximum(spread, least_scale)
        design = np.column_stack([np.nan_to_num((x - center) / scale), np.ones(len(x))])
        # The intercept is all but free; of one class alone it must stay finite.
        penalty = np.array([l2] * x.shape[1] + [1e-6])

        def loss(theta: Array) -> tuple[float, Array]:
            score = design @ theta
            value = np.logaddexp(0, score).sum() - y @ score + 0.5 * penalty @ theta**2
            return float(value), design.T @ (expit(score) - y) + penalty * theta

        def hessian(theta: Array) -> Array:
            p = expit(design @ theta)
            return np.asarray((design * (p * (1 - p))[:, None]).T @ design + np.diag(penalty))

        start = np.zeros(design.shape[1])
        options = {"gtol": 1e-8}
        theta = minimize(
            loss, start, jac=True, hess=hessian, method="trust-exact", options=options
        ).x
        return cls(center, scale, theta[:-1], float(theta[-1]))


@dataclass(frozen=True)
class ReliabilityBin:
    """Probabilities of about one size.

    Attributes:
        low: Where the bin begins.
        high: Where it ends.
        count: Probabilities in it.
        stated: Their mean.
        observed: Share of the event.
    """

    low: float
    high: float
    count: int
    stated: float
    observed: float


@dataclass(frozen=True)
class Reliability:
    """Whether probabilities mean what they say.

    Attributes:
        brier: Mean squared difference from what happened, 0 to 1.
        calibration_error: Mean distance of stated and observed over the bins, by count (expected
            calibration error).
        bins: Those that are not empty.
    """

    brier: float
    calibration_error: float
    bins: tuple[ReliabilityBin, ...]


def reliability(probability: ArrayLike, event: ArrayLike, *, bins: int = 10) -> Reliability:
    """Compare stated probabilities (N,) of an event with whether it happened (N,).

    Args:
        probability: 0 to 1.
        event: Booleans.
        bins: Number of bins of equal width.
    """
    stated, happened = (
        np.asarray(probability, dtype=np.float64),
        np.asarray(event, dtype=np.float64),
    )
    which = np.minimum((stated * bins).astype(int), bins - 1)
    table = []
    for index in np.unique(which):
        within = which == index
        mean, share = float(stated[within].mean()), float(happened[within].mean())
        edges = float(index / bins), float((index + 1) / bins)
        table.append(ReliabilityBin(*edges, int(within.sum()), mean, share))
    gap = sum(abs(b.stated - b.observed) * b.count for b in table) / max(1, len(stated))
    return Reliability(float(((stated - happened) ** 2).mean()), gap, tuple(table))


def choose_threshold(
    probability: ArrayLike, event: ArrayLike, *, false_alarms: float, at_most: float = 0.5
) -> float:
    """Probability below which an answer is not to be trusted.

    Args:
        probability: (N,) that the answer is right.
        event: (N,) booleans: whether it is.
        false_alarms: Share of the right answers that may fall below the threshold.
        at_most: Upper bound of the threshold.
    """
    right = np.asarray(probability, dtype=np.float64)[np.asarray(event, dtype=bool)]
    return float(min(at_most, np.quantile(right, false_alarms))) if len(right) else at_most
