"""How sure one may be of a registration: from what agents say of it to a probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: What is looked at, in order.
FEATURES = (
    "log predicted error, fine",
    "log predicted error, coarse",
    "log distance between agent and refinement",
)


@dataclass(frozen=True)
class Confidence:
    """A logistic model, fitted on validation scans to right and wrong answers.

    Attributes:
        weights: Of the features.
        bias: Constant.
        threshold: Probability below which an answer is not to be trusted.
    """

    weights: tuple[float, ...]
    bias: float
    threshold: float

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability (...) that the mean error is below 2 mm, from features (..., F)."""
        score = np.asarray(features) @ np.asarray(self.weights) + self.bias
        return np.asarray(1 / (1 + np.exp(-np.clip(score, -50, 50))), dtype=np.float64)
