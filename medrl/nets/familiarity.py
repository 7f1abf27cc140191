"""How usual what an encoder sees is: the distance of its features from those of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

#: What the names of its tensors in a bundle begin with.
PREFIX = "familiarity."
#: Share of the covariance that is replaced by as much variance in every direction: features that
#: never fire in training would make any other input infinitely far.
_SHRINKAGE = 0.05


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Gaussians of one covariance over an encoder's features, one for each kind of place.

    The confidence score of Lee et al. (NeurIPS 2018): the Mahalanobis distance to the mean of the
    kind that a place is said to be. Squared and divided by the number of features, it is about 1
    for what the Gaussians were fitted on.

    Attributes:
        means: (K, F), of each kind.
        whitening: (F, F), brings deviations from the mean to unit variance.
        limit: Distance up to which nothing is unusual.
    """

    means: Array
    whitening: Array
    limit: float

    def __call__(self, features: Array, kind: NDArray[np.int64]) -> Array:
        """Distances (N,) of features (N, F) from what is usual for their kinds (N,)."""
        deviation = (np.asarray(features, dtype=np.float64) - self.means[kind]) @ self.whitening
        return np.asarray((deviation**2).mean(axis=1))

    @staticmethod
    def fit(
        features: Array, kind: NDArray[np.int64], *, kinds: int, limit: float = np.inf
    ) -> Familiarity:
        """Fit to what an encoder makes of training scans.

        Args:
            features: (N, F).
            kind: (N,), 0 to `kinds` - 1; the mean of a kind that never occurs is that of all.
            kinds: How many there are.
            limit: See the attributes.
        """
        values = np.asarray(features, dtype=np.float64)
        counts = np.bincount(kind, minlength=kinds)
        means = np.tile(values.mean(axis=0), (kinds, 1))
        for number in np.flatnonzero(counts):
            means[number] = values[kind == number].mean(axis=0)
        deviation = values - means[kind]
        covariance = deviation.T @ deviation / len(values)
        level = float(np.trace(covariance)) / len(covariance)
        covariance = (1 - _SHRINKAGE) * covariance
        covariance += _SHRINKAGE * max(level, 1e-12) * np.eye(len(covariance))
        spread, directions = np.linalg.eigh(covariance)
        return Familiarity(means, directions / np.sqrt(spread), limit)

    def tensors(self) -> dict[str, Tensor]:
        """What a bundle stores, by name."""
        return {
            f"{PREFIX}means": torch.from_numpy(self.means).float(),
            f"{PREFIX}whitening": torch.from_numpy(self.whitening).float(),
            f"{PREFIX}limit": torch.tensor([self.limit]),
        }

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> Familiarity | None:
        """What :meth:`tensors` returned; None if there is none of it.

        Raises:
            KeyError: If only part of it is there.
            ValueError: If the parts do not fit each other.
        """
        if f"{PREFIX}means" not in tensors:
            return None
        means, whitening, limit = (
            tensors[f"{PREFIX}{name}"].double().numpy() for name in ("means", "whitening", "limit")
        )
        if means.ndim != 2 or whitening.shape != (means.shape[1],) * 2 or limit.shape != (1,):
            raise ValueError("its parts do not fit each other")
        return Familiarity(means, whitening, float(limit[0]))
