"""What the found landmarks say of each other: a robust shape prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medrl.volume.procrustes import fit_points
from medrl.volume.space import apply_affine

Array = NDArray[np.float64]

#: Fewer points than this do not make a shape.
_LEAST = 6
#: The landmarks that are farthest off, of which one is rejected at a time.
_SUSPECTS = 5


@dataclass(frozen=True, eq=False)
class ShapeAssessment:
    """What the prior makes of K detected landmarks.

    Attributes:
        expected_world: (K, 3) RAS mm, where the trusted others expect each landmark; NaN where
            there are too few of them.
        residual_mm: (K,), distance between detection and expectation; NaN where not detected.
        mahalanobis: (K,), the same as a Mahalanobis distance per axis, about 1 for good detections.
        outlier: (K,) bool, rejected detections.
    """

    expected_world: Array
    residual_mm: Array
    mahalanobis: Array
    outlier: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """A Gaussian over landmark sets, free of position, rotation and size.

    The robust shape model over the found landmarks of Ghesu et al. 2017 (MICCAI), as a
    conditional Gaussian: the set is aligned to the mean shape by a similarity transform and every
    landmark is predicted from all others. While one is too far off, the landmark without
    which the rest fits best is rejected: a wrong point also makes its neighbours look wrong.

    Attributes:
        mean: (K, 3) mm, mean shape, centred.
        covariance: (3K, 3K) mm^2, of aligned shapes about the mean.
        limit: Mahalanobis distance above which a detection is rejected.
        noise_mm: Detection noise allowed for every landmark, per axis.
    """

    mean: Array
    covariance: Array
    limit: float = 2.5
    noise_mm: float = 1.5

    @staticmethod
    def fit(shapes_world: Array, *, limit: float = 2.5, noise_mm: float = 1.5) -> ShapePrior:
        """Fit mean and covariance by generalised Procrustes analysis.

        Args:
            shapes_world: (S, K, 3) RAS mm, labelled training shapes; incomplete ones (NaN) are
                left out.
            limit: Mahalanobis distance above which a detection is rejected.
            noise_mm: Detection noise allowed for every landmark, per axis.

        Returns:
            The prior, its covariance shrunk towards its diagonal (few shapes, many dimensions).
        """
        complete = shapes_world[~np.isnan(shapes_world).any(axis=(1, 2))]
        mean = complete[0] - complete[0].mean(axis=0)
        size = np.linalg.norm(mean)
        aligned = complete
        for _ in range(5):
            aligned = np.stack([apply_affine(fit_points(s, mean, scale=True), s) for s in complete])
            mean = aligned.mean(axis=0)
            mean = (mean - mean.mean(axis=0)) * size / np.linalg.norm(mean - mean.mean(axis=0))
        deviations = (aligned - mean).reshape(len(aligned), -1)
        covariance = deviations.T @ deviations / max(1, len(aligned) - 1)
        shrink = min(1.0, deviations.shape[1] / (10.0 * len(aligned)))
        covariance = (1 - shrink) * covariance + shrink * np.diag(np.diag(covariance))
        return ShapePrior(mean, covariance, limit, noise_mm)

    def assess(self, points_world: Array) -> ShapeAssessment:
        """Tell which of a set of detections do not fit the others.

        Args:
            points_world: (K, 3) RAS mm; NaN where a landmark was not found.

        Returns:
            The assessment. With fewer than six detections nothing is rejected.
        """
        count = len(self.mean)
        found: NDArray[np.bool_] = np.asarray(~np.isnan(points_world).any(axis=1))
        trusted: NDArray[np.bool_] = found.copy()
        expected = np.full((count, 3), np.nan)
        mahalanobis = np.full(count, np.nan)
        if trusted.sum() >= _LEAST:
            expected, mahalanobis = self._predict(points_world, trusted)
        while trusted.sum() > _LEAST and np.nanmax(mahalanobis[trusted]) > self.limit:
            suspects = np.argsort(np.where(trusted, -mahalanobis, np.inf))[:_SUSPECTS]
            options = []
            for suspect in suspects:
                rest = trusted.copy()
                rest[suspect] = False
                options.append((rest, *self._predict(points_world, rest)))
            trusted, expected, mahalanobis = min(options, key=lambda o: np.nansum(o[2][o[0]] ** 2))
        residual = np.linalg.norm(points_world - expected, axis=1)
        return ShapeAssessment(expected, residual, mahalanobis, found & ~trusted)

    def _predict(self, points_world: Array, trusted: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Expectation and Mahalanobis distance of every landmark given the trusted others.

        One inverse serves all: the blocks P_kk of the precision matrix P of the trusted set give
        the error of predicting each from the rest, P_kk^-1 (P d)_k with covariance P_kk^-1.
        """
        transform = fit_points(points_world[trusted], self.mean[trusted], scale=True)
        scale = np.cbrt(np.linalg.det(transform[:3, :3]))
        back: Array = np.asarray(np.linalg.inv(transform), dtype=np.float64)
        aligned = apply_affine(transform, points_world)
        count, rows = len(self.mean), np.flatnonzero(trusted)
        index = (3 * rows[:, None] + np.arange(3)).ravel()
        noise = (self.noise_mm * scale) ** 2
        precision = np.linalg.inv(
            self.covariance[np.ix_(index, index)] + noise * np.eye(len(index))
        )
        weighted = precision @ (aligned - self.mean)[rows].ravel()
        gain = self.covariance[:, index]
        prediction = self.mean + (gain @ weighted).reshape(count, 3)
        spread = _blocks(self.covariance - gain @ precision @ gain.T) + noise * np.eye(3)
        spread[rows] = np.linalg.inv(_blocks(precision))
        own_error = np.einsum("kij,kj->ki", spread[rows], weighted.reshape(-1, 3))
        prediction[rows] = aligned[rows] - own_error
        error = aligned - prediction
        whitened = np.linalg.solve(spread, error[..., None])[..., 0]
        mahalanobis = np.sqrt((error * whitened).sum(axis=1) / 3)
        return apply_affine(back, prediction), mahalanobis


def _blocks(matrix: Array) -> Array:
    """The (K, 3, 3) blocks on the diagonal of a matrix (3K, 3K)."""
    count = len(matrix) // 3
    each = np.arange(count)
    return matrix.reshape(count, 3, count, 3)[each, :, each]
