"""How sure an answer is: a calibrated probability that its error is small."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: What the probability is conditioned on, one column each.
FEATURES = ("expected_error_mm", "spread_mm", "scale_jump_mm", "end_value", "shape_surprise")
#: An answer is good when its error is below this.
GOOD_MM = 4.0


@dataclass(frozen=True, eq=False)
class Confidence:
    """Logistic regression on what is known at the end of a search.

    The spread over starting points is not among the features: agents that start anywhere end in
    the same place, right or wrong. What tells is the network's own expected error, how much its
    opinions from neighbouring places differ (test-time perturbation), how far the last scale
    moved the answer, the best action value at the end (Ghesu 2016: high for absent landmarks),
    and how far the landmark lies from where the others expect it.

    Attributes:
        center: (F,) mean of the transformed features.
        scale: (F,) their standard deviation.
        weights: (F,).
        bias: Intercept.
    """

    center: Array
    scale: Array
    weights: Array
    bias: float

    def __call__(self, features: Array) -> Array:
        """Probability that the error is below 4 mm.

        Args:
            features: (N, F), columns in the order of :data:`FEATURES`; NaN counts as the mean.

        Returns:
            (N,) in 0..1.
        """
        standard = (_transform(features) - self.center) / self.scale
        logit = np.nan_to_num(standard) @ self.weights + self.bias
        return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float64)

    @staticmethod
    def fit(features: Array, error_mm: Array, *, ridge: float = 1.0) -> Confidence:
        """Fit on detections with known errors, of scans that the networks were not trained on.

        Args:
            features: (N, F).
            error_mm: (N,).
            ridge: L2 penalty on the weights.

        Returns:
            The calibrated confidence (ridge logistic regression by Newton's method).
        """
        values = _transform(features)
        known = ~np.isnan(values)
        count = known.sum(axis=0).clip(min=1)
        center = np.where(known, values, 0.0).sum(axis=0) / count
        variance = np.where(known, (values - center) ** 2, 0.0).sum(axis=0) / count
        scale = np.sqrt(variance) + 1e-6
        design = np.nan_to_num((values - center) / scale)
        design = np.hstack([design, np.ones((len(design), 1))])
        good = (error_mm < GOOD_MM).astype(np.float64)
        penalty = np.diag([ridge] * features.shape[1] + [1e-3])
        theta = np.zeros(design.shape[1])
        for _ in range(50):
            p = 1 / (1 + np.exp(-design @ theta))
            gradient = design.T @ (p - good) + penalty @ theta
            hessian = (design * (p * (1 - p))[:, None]).T @ design + penalty
            step = np.linalg.solve(hessian, gradient)
            theta -= step
            if np.abs(step).max() < 1e-8:
                break
        return Confidence(center, scale, theta[:-1], float(theta[-1]))


def _transform(features: Array) -> Array:
    """Logarithms of the positive ones: their tails are long."""
    values = np.array(features, dtype=np.float64)
    positive = [0, 1, 2, 4]
    values[:, positive] = np.log(np.maximum(values[:, positive], 0) + 0.1)
    return values
