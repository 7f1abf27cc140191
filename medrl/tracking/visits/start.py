"""Where agents begin: a rigid, then an affine registration of the two scans.

Convention: matrices map world of the earlier scan to world of the later one, RAS mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume.itk import to_sitk
from medrl.volume.space import LPS_FROM_RAS

Matrix = NDArray[np.float64]

#: Voxels of the grids that are registered, in mm.
_SPACING_MM = 4.0
#: Values below this are no Hounsfield units: scanners pad with them.
_PADDING_HU, _AIR_HU, _DENSE_HU = -1100.0, -1000.0, 600.0
_BINS, _SHARE = 32, 0.3


@dataclass(frozen=True, eq=False)
class Start:
    """A registration of two scans.

    Attributes:
        rigid_world: (4, 4), earlier to later world.
        affine_world: (4, 4), the same with scales and shears.
        likeness: Mattes mutual information of the scans under the affine map, in nats.
    """

    rigid_world: Matrix
    affine_world: Matrix
    likeness: float


def register(earlier: MetaTensor, later: MetaTensor, *, seed: int = 1) -> Start:
    """Lay one scan over another of the same patient.

    Begins from the centres of the grids and from the centres of mass, and keeps the better rigid
    fit by Mattes' mutual information (SimpleITK, gradient descent over three resolutions); the
    affine map begins there.

    Args:
        earlier: MetaTensor (1, I, J, K), voxel to RAS mm.
        later: MetaTensor (1, I', J', K').
        seed: Of the samples.

    Returns:
        Both maps.

    Raises:
        MedrlError: If no start overlaps.
    """
    fixed, moving = (_coarse(scan) for scan in (earlier, later))
    kinds = sitk.CenteredTransformInitializerFilter.GEOMETRY, _MOMENTS
    found = []
    for kind in kinds:
        begin = sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), kind)
        try:
            found.append(_fit(fixed, moving, sitk.Euler3DTransform(begin), seed))
        except RuntimeError:
            continue
    if not found:
        raise MedrlError("the two scans cannot be laid over each other: nothing in them matches")
    _, rigid = min(found, key=lambda pair: pair[0])
    affine = sitk.AffineTransform(3)
    euler = sitk.Euler3DTransform(rigid)
    affine.SetMatrix(euler.GetMatrix())
    affine.SetTranslation(euler.GetTranslation())
    affine.SetCenter(euler.GetCenter())
    try:
        value, full = _fit(fixed, moving, affine, seed)
    except RuntimeError:
        value, full = min(pair[0] for pair in found), affine
    return Start(_world(rigid), _world(full), -value)


_MOMENTS = sitk.CenteredTransformInitializerFilter.MOMENTS


def tidy(scan: MetaTensor) -> MetaTensor:
    """The scan in units that agents look at: about 0 to 1, without padding (C, I, J, K) float32.

    Scans that reach down to air in Hounsfield units are cut at -1000 and 600 HU; others at their
    thousandths of lowest and highest values.
    """
    values = scan.detach().as_tensor().float()
    if float(values.min()) < -500:
        low, high = _AIR_HU, _DENSE_HU
    else:
        some = values.flatten()[:: max(1, values.numel() // 500_000)].double().numpy()
        low, high = np.quantile(some, (0.001, 0.999))
    scaled = ((values - low) / max(high - low, 1e-6)).clamp(0.0, 1.0)
    return MetaTensor(scaled, affine=scan.affine)


def _coarse(scan: MetaTensor) -> sitk.Image:
    """The tidied scan at about 4 mm, smoothed as that needs."""
    image = to_sitk(tidy(scan))
    spacing = np.array(image.GetSpacing())
    target = np.maximum(spacing, _SPACING_MM)
    smooth = [max(1e-3, 0.5 * t) if t > s else 1e-3 for s, t in zip(spacing, target, strict=True)]
    image = sitk.SmoothingRecursiveGaussian(image, smooth)
    size = np.array(image.GetSize())
    count = np.maximum(1, np.round(size * spacing / target)).astype(int)
    offset = ((count - 1) * target - (size - 1) * spacing) / 2
    direction = np.reshape(image.GetDirection(), (3, 3))
    origin = np.array(image.GetOrigin()) - direction @ offset
    return sitk.Resample(
        image,
        count.tolist(),
        sitk.Transform(),
        sitk.sitkLinear,
        origin.tolist(),
        target.tolist(),
        image.GetDirection(),
        0.0,
        sitk.sitkFloat32,
    )


def _fit(
    fixed: sitk.Image, moving: sitk.Image, begin: sitk.Transform, seed: int
) -> tuple[float, sitk.Transform]:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(_SHARE, seed)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 120, 0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(_shrinks(fixed))
    method.SetSmoothingSigmasPerLevel([4.0, 2.0, 0.0])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    method.SetNumberOfThreads(1)
    method.SetInitialTransform(begin, inPlace=True)
    method.Execute(fixed, moving)
    return float(method.GetMetricValue()), begin


def _shrinks(image: sitk.Image) -> Sequence[int]:
    return [2, 2, 1] if min(image.GetSize()) >= 24 else [1, 1, 1]


def _world(transform: sitk.Transform) -> Matrix:
    """RAS matrix (4, 4) of a linear transform."""
    corners = np.vstack([np.zeros(3), np.eye(3) * 100.0])
    moved = np.array([transform.TransformPoint(c.tolist()) for c in corners])
    matrix = np.eye(4)
    matrix[:3, :3] = (moved[1:] - moved[0]).T / 100.0
    matrix[:3, 3] = moved[0]
    return np.asarray(LPS_FROM_RAS @ matrix @ LPS_FROM_RAS)
