"""What a model must beat: the mean position, and atlases carried over by affine registration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.landmark.data import Sample, points_array
from medrl.landmark.shape import similarity
from medrl.volume.itk import to_sitk
from medrl.volume.read import read
from medrl.volume.resample import resample_isotropic
from medrl.volume.space import apply_affine, as_affine, lps_to_ras, ras_to_lps

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


class AffineAtlas:
    """Landmarks of labelled scans carried over by a SimpleITK affine registration, averaged.

    Rigid, then affine; Mattes mutual information inside the atlas's head, a quarter and then half
    of the resolution, start at the centres of mass. About 7 seconds a head of 2 mm and atlas.
    """

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
        self._spacing = spacing
        points = np.stack([points_array(case, landmarks) for case in training])
        complete = np.flatnonzero(~np.isnan(points).any(axis=(1, 2)))
        if not len(complete):
            raise MedrlError("no training scan has all landmarks: there is no atlas")
        order = complete[_most_typical(points[complete])][:count]
        self._atlases = [(self._load(read(training[n].image)), points[n]) for n in order]

    def predict(self, scan: MetaTensor) -> Array:
        """Carry the landmarks over.

        Args:
            scan: MetaTensor (1, I, J, K) with its affine (RAS mm).

        Returns:
            (K, 3) RAS mm; NaN where every registration failed.
        """
        target = self._load(scan)
        found = []
        for image, points in self._atlases:
            try:
                transform = register_affine(image, target)
            except RuntimeError:
                continue
            moved = [transform.TransformPoint(p) for p in ras_to_lps(points).tolist()]
            found.append(lps_to_ras(np.array(moved)))
        return np.mean(found, axis=0) if found else np.full_like(self._atlases[0][1], np.nan)

    def _load(self, scan: MetaTensor) -> sitk.Image:
        low = float(scan.as_tensor().min())
        return to_sitk(resample_isotropic(scan, spacing=self._spacing, background=low))


def register_affine(atlas: sitk.Image, target: sitk.Image, *, seed: int = 1) -> sitk.Transform:
    """Register two scans: rigid, then affine.

    Args:
        atlas: Fixed image.
        target: Moving image.
        seed: Of the sampled metric.

    Returns:
        The transform that maps points (LPS) of the atlas to the target.

    Raises:
        RuntimeError: If the optimiser fails, as SimpleITK says.
    """
    fixed, moving = (sitk.Cast(image, sitk.sitkFloat32) for image in (atlas, target))
    head = sitk.BinaryDilate(sitk.OtsuThreshold(fixed, 0, 1), [3, 3, 3])
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    rigid = sitk.Euler3DTransform(start)
    _optimize(fixed, moving, head, rigid, step=2.0, samples=(0.5, 0.10), iterations=100, seed=seed)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    _optimize(fixed, moving, head, affine, step=1.0, samples=(0.5, 0.15), iterations=150, seed=seed)
    return affine


def _most_typical(shapes: Array) -> NDArray[np.intp]:
    """Order of landmark sets (S, K, 3) by their mean distance to all others after alignment."""
    distance = np.zeros(len(shapes))
    for n, shape in enumerate(shapes):
        for other in shapes:
            moved = apply_affine(similarity(other, shape), other) if len(shape) > 2 else other
            distance[n] += float(np.linalg.norm(moved - shape, axis=1).mean())
    return np.argsort(distance, kind="stable")


def _optimize(
    fixed: sitk.Image,
    moving: sitk.Image,
    mask: sitk.Image,
    transform: sitk.Transform,
    *,
    step: float,
    samples: tuple[float, float],
    iterations: int,
    seed: int,
) -> None:
    """Optimise a transform in place at a quarter and at half of the resolution."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(mask)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel(list(samples), seed)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step, 1e-3, iterations, 0.6, 1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
