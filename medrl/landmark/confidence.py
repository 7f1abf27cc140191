"""How sure an answer is: a calibrated probability that its error is small."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: An answer is good when its error is below this, where voxels of the finest scale are 2 mm.
GOOD_MM = 4.0
#: What the probability is conditioned on, one column each.
FEATURES = ("expected_error_mm", "spread_mm", "scale_jump_mm", "end_value", "mahalanobis")


@dataclass(frozen=True, eq=False)
class Confidence:
    """Logistic regression on what is known at the end of a search.

    The spread over starting points is not among the features: agents that start anywhere end in
    the same place, right or wrong. What tells is the network's own expected error, how much its
    estimates from neighbouring places differ (test-time perturbation), how far the last scale
    moved the answer, the best action value at the end (Ghesu 2016: high for absent landmarks),
    and how far the landmark lies from where the others expect it.

    Attributes:
        center: (F,) mean of the transformed features.
        scale: (F,) their standard deviation.
        weights: (F,).
        bias: Intercept.
        good_mm: An answer is good when its error is below this.
    """

    center: Array
    scale: Array
    weights: Array
    bias: float
    good_mm: float = GOOD_MM

    def __call__(self, features: Array) -> Array:
        """Probability that the error is below ``good_mm``.

        Args:
            features: (N, F), columns in the order of :data:`FEATURES`; NaN counts as the mean.

        Returns:
            (N,) in 0..1.
        """
        standard = (_transform(features, self.good_mm) - self.center) / self.scale
        logit = np.nan_to_num(standard) @ self.weights + self.bias
        return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float64)

    @staticmethod
    def fit(
        features: Array, error_mm: Array, *, good_mm: float = GOOD_MM, ridge: float = 1.0
    ) -> Confidence:
        """Fit on detections with known errors, of scans that the networks were not trained on.

        Args:
            features: (N, F).
            error_mm: (N,).
            good_mm: An answer is good when its error is below this.
            ridge: L2 penalty on the weights.

        Returns:
            The calibrated confidence: logistic regression on cases as they occur.
        """
        from medrl.evaluation import LogisticRegression

        found = LogisticRegression.fit(_transform(features, good_mm), error_mm < good_mm, l2=ridge)
        return Confidence(found.center, found.scale, found.weights, found.bias, good_mm)


def _transform(features: Array, good_mm: float) -> Array:
    """Logarithms of the positive ones: their tails are long."""
    values = np.array(features, dtype=np.float64)
    positive = [0, 1, 2, 4]
    values[:, positive] = np.log(np.maximum(values[:, positive], 0) + good_mm / 40)
    return values
