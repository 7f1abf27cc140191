"""Landmarks carried over from labelled subjects by affine registration, and the mean position."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from evaluation import ixi
from evaluation.cases import Array, Case, center_of, move
from medrl.volume.space import lps_to_ras


def typical_subjects(count: int) -> tuple[str, ...]:
    """The training subjects whose landmark sets resemble the others most, the best atlases first.

    Sets are compared after centring and rotating one onto the other; the resemblance of a subject
    is the mean distance of its landmarks to everyone else's.
    """
    shapes = ixi.shapes("train")
    centered = shapes - shapes.mean(axis=1, keepdims=True)
    total = np.zeros(len(centered))
    for index, shape in enumerate(centered):
        u, _, vt = np.linalg.svd(np.einsum("ki,skj->sij", shape, centered))
        sign = np.sign(np.linalg.det(u @ vt))
        u[:, :, 2] *= sign[:, None]
        turned = centered @ np.swapaxes(u @ vt, 1, 2)
        total[index] = np.linalg.norm(turned - shape, axis=-1).mean()
    names = ixi.subjects("train")
    return tuple(names[index] for index in np.argsort(total)[:count])


def mean_positions(split: str) -> Array:
    """Mean training position from the scan's centre, the guess that looks at no voxel.

    Args:
        split: Where to guess.

    Returns:
        (S, K, 3) RAS mm, for the subjects of the split.
    """
    mean = (ixi.shapes("train") - _centers("train")).mean(axis=0)
    return np.asarray(mean + _centers(split))


def register_affine(atlas: sitk.Image, target: sitk.Image, *, seed: int = 1) -> sitk.Transform:
    """Register two heads: rigid, then affine; Mattes mutual information inside the atlas's head.

    Centres of mass give the start. Two resolutions, 8 and 4 mm for heads of 2 mm.

    Args:
        atlas: Fixed image.
        target: Moving image.
        seed: Of the sampled metric.

    Returns:
        The transform that maps points (LPS) of the atlas to the target.
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


def carry_over(atlas: Case, target: sitk.Image) -> dict[str, Array]:
    """Landmarks of an atlas subject at their places in another head, RAS mm."""
    transform = register_affine(atlas.image, target)
    return {name: move(point, transform) for name, point in atlas.points_world.items()}


def _centers(split: str) -> Array:
    """Centres of the scans of a split, (S, 1, 3) RAS mm."""
    centers = [lps_to_ras(center_of(ixi.load(subject).image)) for subject in ixi.subjects(split)]
    return np.stack(centers)[:, None]


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
    method.SetNumberOfThreads(1)
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
