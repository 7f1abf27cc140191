"""The last millimetre: SimpleITK's gradient descent on mutual information."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.registration.transforms import Kind
from medrl.volume.itk import to_sitk
from medrl.volume.resample import resample_isotropic, resample_onto
from medrl.volume.space import as_affine, spacing_of, voxel_to_world
from medrl.volume.transform_files import from_itk, to_itk

#: Voxels that scans are brought to: a head at 2 mm.
_VOXELS = 1.1e6
#: Of two resolutions: how much coarser, smoothing in voxels, samples, steps, first step in mm.
_SCHEDULE = ((2, 1.0, 30_000, 60, 2.0), (1, 0.5, 60_000, 50, 0.5))
_BINS = 40
_SEED = 1


def refine(
    fixed: MetaTensor,
    moving: MetaTensor,
    initial_world: ArrayLike,
    *,
    kind: Kind = "rigid",
    fixed_mask: MetaTensor | None = None,
    moving_mask: MetaTensor | None = None,
) -> NDArray[np.float64]:
    """Improve a registration that is nearly right.

    Mattes mutual information (Mattes et al. 2003) and regular-step gradient descent on two
    resolutions; one thread and fixed seeds, so that the answer is the same every time.

    Args:
        fixed: MetaTensor (1, I, J, K) with its affine.
        moving: The same.
        initial_world: (4, 4) fixed world to moving world, RAS mm, of the kind wanted.
        kind: What may change.
        fixed_mask: Where the fixed scan counts, on any grid.
        moving_mask: Where the moving scan counts.

    Returns:
        (4, 4) fixed world to moving world, RAS mm.

    Raises:
        MedrlError: If the scans do not overlap enough for mutual information.
    """
    light = [_lighter(scan) for scan in (fixed, moving)]
    images = [sitk.Cast(to_sitk(scan), sitk.sitkFloat32) for scan in light]
    masks = [
        None if mask is None else _onto(mask, scan)
        for mask, scan in zip((fixed_mask, moving_mask), light, strict=True)
    ]
    middle = (np.asarray(light[0].shape[1:]) - 1) / 2
    center = voxel_to_world(middle, light[0].affine)
    transform = to_itk(initial_world, kind=kind, center_world=center)
    total = float(np.prod(images[0].GetSize()))
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    # The metric listens to this number only, and sums in another order with every other one.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        for shrink, sigma, samples, steps, step in _SCHEDULE:
            method = sitk.ImageRegistrationMethod()
            method.SetMetricAsMattesMutualInformation(_BINS)
            method.SetMetricSamplingStrategy(method.RANDOM)
            share = min(1.0, samples * shrink**3 / total)
            method.SetMetricSamplingPercentage(share, seed=_SEED)
            method.SetInterpolator(sitk.sitkLinear)
            method.SetOptimizerAsRegularStepGradientDescent(
                step, 5e-3 * step, steps, relaxationFactor=0.7
            )
            method.SetOptimizerScalesFromPhysicalShift()
            seen = [_smaller(image, shrink, sigma) for image in images]
            if masks[0] is not None:
                method.SetMetricFixedMask(masks[0])
            if masks[1] is not None:
                method.SetMetricMovingMask(masks[1])
            method.SetInitialTransform(transform, inPlace=True)
            method.Execute(*seen)
    except RuntimeError as error:
        raise MedrlError(
            "the scans do not overlap enough to be refined: leave refinement out, or give a better "
            "start"
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return from_itk(transform)


def _lighter(scan: MetaTensor) -> MetaTensor:
    """A scan with about as many voxels as a head has at 2 mm, if it has many more."""
    spacing = spacing_of(scan.affine)
    volume = float(np.prod(spacing * np.asarray(scan.shape[1:])))
    wanted = (volume / _VOXELS) ** (1 / 3)
    if float(spacing.min()) > 0.8 * wanted:
        return scan
    return resample_isotropic(scan, spacing=wanted, background=float(scan.as_tensor().min()))


def _onto(mask: MetaTensor, scan: MetaTensor) -> sitk.Image:
    """A mask on a scan's grid."""
    shape = (scan.shape[1], scan.shape[2], scan.shape[3])
    onto = resample_onto(mask, affine=as_affine(scan.affine), shape=shape)
    return sitk.Cast(to_sitk(onto) > 0.5, sitk.sitkUInt8)


def _smaller(image: sitk.Image, shrink: int, sigma: float) -> sitk.Image:
    """Smooth by some voxels and keep every so many."""
    smooth = sitk.SmoothingRecursiveGaussian(
        image, [sigma * spacing for spacing in image.GetSpacing()]
    )
    return sitk.Shrink(smooth, [shrink] * 3) if shrink > 1 else smooth
