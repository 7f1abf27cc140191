"""What a model must beat: the mean position, and atlases carried over by affine registration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.evaluation.atlas import AffineAtlas
from medrl.landmark.data import Sample, points_array
from medrl.volume.procrustes import fit_points
from medrl.volume.read import read
from medrl.volume.space import apply_affine, as_affine

Array = NDArray[np.float64]


class MeanPosition:
    """The mean of the training landmarks relative to the scan's centre: looks at no image."""

    name = "mean position"

    def __init__(self, training: Sequence[Sample], landmarks: Sequence[str]) -> None:
        """Average the training points.

        Args:
            training: Labelled scans.
            landmarks: Names, K of them.
        """
        points = np.stack(
            [points_array(case, landmarks) - _center(read(case.image)) for case in training]
        )
        counts = np.isfinite(points).sum(axis=0)
        total = np.nansum(points, axis=0)
        self._mean: Array = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)

    def predict(self, scan: MetaTensor) -> Array:
        """Points (K, 3) RAS mm, NaN for one that was never labelled; they move with the scan."""
        return self._mean + _center(scan)


def _center(scan: MetaTensor) -> Array:
    """The middle (3,) of a scan's field of view, RAS mm."""
    return apply_affine(as_affine(scan.affine), (np.array(scan.shape[1:]) - 1) / 2)


class LandmarkAtlas:
    """Landmarks of labelled scans carried over by affine registration, averaged."""

    def __init__(
        self, training: Sequence[Sample], landmarks: Sequence[str], *, count: int, spacing: float
    ) -> None:
        """Read the atlases: the training cases whose landmark sets are most typical.

        Args:
            training: Labelled cases.
            landmarks: Names, K of them.
            count: Number of atlases.
            spacing: Voxel size that scans are brought to first, mm.

        Raises:
            MedrlError: If no training case has all landmarks.
        """
        self.name = "affine atlas" if count == 1 else f"affine, mean of {count} atlases"
        points = np.stack([points_array(case, landmarks) for case in training])
        complete = np.flatnonzero(~np.isnan(points).any(axis=(1, 2)))
        if not len(complete):
            raise MedrlError("no training scan has all landmarks: there is no atlas")
        order = complete[_most_typical(points[complete])][:count]
        self._atlas = AffineAtlas(
            [(read(training[n].image), points[n]) for n in order], spacing=spacing
        )
        self._landmarks = len(landmarks)

    def predict(self, scan: MetaTensor) -> Array:
        """Carry the landmarks over.

        Args:
            scan: MetaTensor (1, I, J, K) with its affine (RAS mm).

        Returns:
            (K, 3) RAS mm; NaN where every registration failed.
        """
        found = [points for points in self._atlas.carry(scan) if points is not None]
        return np.mean(found, axis=0) if found else np.full((self._landmarks, 3), np.nan)


def _most_typical(shapes: Array) -> NDArray[np.intp]:
    """Order of landmark sets (S, K, 3) by their mean distance to all others after alignment."""
    distance = np.zeros(len(shapes))
    for n, shape in enumerate(shapes):
        for other in shapes:
            moved = (
                apply_affine(fit_points(other, shape, scale=True), other)
                if len(shape) > 2
                else other
            )
            distance[n] += float(np.linalg.norm(moved - shape, axis=1).mean())
    return np.argsort(distance, kind="stable")
