"""How usual what an encoder sees is: the distance of its features from those of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

#: What the names of its tensors in a bundle begin with.
PREFIX = "familiarity."
#: Parts of the training scans, each of which is judged by what was fitted on the others.
_FOLDS = 5
#: Fewer scans do not tell what is usual.
_LEAST_SCANS = 10
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

    def typical(self, features: Array, kind: NDArray[np.int64]) -> float:
        """The median distance, for what is judged as a whole: one scan, one answer."""
        return float(np.median(self(features, kind)))

    @staticmethod
    def fit(
        features: Array,
        kind: NDArray[np.int64],
        *,
        kinds: int,
        whole: NDArray[np.int64],
        scan: NDArray[np.int64],
        usual: float = 0.99,
        room: float = 1.1,
    ) -> Familiarity | None:
        """Fit to what an encoder makes of training scans.

        The limit is set by cross-validation: scans are judged by what was fitted on others.

        Args:
            features: (N, F).
            kind: (N,), 0 to `kinds` - 1; the mean of a kind that never occurs is that of all.
            kinds: How many there are.
            whole: (N,) number of what is judged as a whole.
            scan: (N,) number of the scan that it shows.
            usual: Share of what is judged in training that is taken for usual.
            room: How much stranger than that another scan may look.

        Returns:
            What was fitted; None of fewer scans than tell what is usual.
        """
        if len(np.unique(scan)) < _LEAST_SCANS:
            return None
        order = np.unique(scan, return_inverse=True)[1]
        values, typical = np.asarray(features, dtype=np.float64), []
        for fold in range(_FOLDS):
            own = order % _FOLDS == fold
            others = Familiarity._gaussians(values[~own], kind[~own], kinds)
            for number in np.unique(whole[own]):
                rows = own & (whole == number)
                typical.append(others.typical(values[rows], kind[rows]))
        found = Familiarity._gaussians(values, kind, kinds)
        return replace(found, limit=room * float(np.quantile(typical, usual)))

    @staticmethod
    def _gaussians(values: Array, kind: NDArray[np.int64], kinds: int) -> Familiarity:
        """Means and covariance, without a limit yet."""
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
        return Familiarity(means, directions / np.sqrt(spread), np.inf)

    def tensors(self, name: str = "") -> dict[str, Tensor]:
        """What a bundle stores, by name; of several, each has a name."""
        return {
            f"{PREFIX}{name}means": torch.from_numpy(self.means).float(),
            f"{PREFIX}{name}whitening": torch.from_numpy(self.whitening).float(),
            f"{PREFIX}{name}limit": torch.tensor([self.limit]),
        }

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], name: str = "") -> Familiarity | None:
        """What :meth:`tensors` returned; None if there is none of it.

        Raises:
            KeyError: If only part of it is there.
            ValueError: If the parts do not fit each other.
        """
        if f"{PREFIX}{name}means" not in tensors:
            return None
        means, whitening, limit = (
            tensors[f"{PREFIX}{name}{part}"].double().numpy()
            for part in ("means", "whitening", "limit")
        )
        if means.ndim != 2 or whitening.shape != (means.shape[1],) * 2 or limit.shape != (1,):
            raise ValueError("its parts do not fit each other")
        return Familiarity(means, whitening, float(limit[0]))
