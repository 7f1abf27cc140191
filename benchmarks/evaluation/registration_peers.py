"""Registration by SimpleITK, elastix, ANTs and greedy, each as a careful user would call it.

Every method is a function of the fixed scan, the moving scan and the kind of transform (``rigid``
or ``affine``), and returns the matrix (4, 4) from fixed to moving points, world RAS mm. Packages
are imported when called; :func:`missing` says which are not installed. One thread.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor

from evaluation.images import Array, direction_of
from medrl.volume.itk import to_sitk
from medrl.volume.space import LPS_FROM_RAS

# Read by ITK when elastix and ANTs load it.
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

#: What `Peer.run` is: fixed scan, moving scan, kind of transform to (4, 4) RAS mm.
Method = Callable[[MetaTensor, MetaTensor, str], Array]

#: Rigid and affine transforms have this many parameters in greedy.
_DEGREES = {"rigid": 6, "affine": 12}


@dataclass(frozen=True)
class Peer:
    """A way to register.

    Attributes:
        run: What does it.
        package: The package it needs besides SimpleITK, if any.
        settings: How it is called, in words.
    """

    run: Method
    package: str | None
    settings: str

    @property
    def missing(self) -> str | None:
        """Why it cannot run, or None."""
        if self.package is None:
            return None
        try:
            version(self.package)
        except PackageNotFoundError:
            return f"{self.package} is not installed"
        return None


def cpu_seconds() -> float:
    """CPU time of this process and of its children that ended, so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def from_lps(matrix: Array) -> Array:
    """A matrix (4, 4) of LPS points as one of RAS points."""
    return np.asarray(LPS_FROM_RAS @ matrix @ LPS_FROM_RAS)


def matrix_of(transform: sitk.Transform) -> Array:
    """A linear transform of SimpleITK as a matrix (4, 4), LPS mm."""
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint([0.0, 0.0, 0.0])
    for axis, unit in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(transform.TransformPoint(unit.tolist())) - matrix[:3, 3]
    return matrix


def _identity(fixed: MetaTensor, moving: MetaTensor, kind: str) -> Array:
    return np.eye(4)


def _mass_center(fixed: MetaTensor, moving: MetaTensor, kind: str) -> Array:
    return from_lps(matrix_of(_start(to_sitk(fixed), to_sitk(moving), "MOMENTS")))


def _start(fixed: sitk.Image, moving: sitk.Image, how: str) -> sitk.Euler3DTransform:
    """A shift of the scan's centre, or of its centre of mass, onto the other's."""
    mode = getattr(sitk.CenteredTransformInitializerFilter, how)
    start = sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), mode)
    return sitk.Euler3DTransform(start)


def _descend(
    fixed: sitk.Image,
    moving: sitk.Image,
    start: sitk.Transform,
    *,
    relaxation: float,
    step: float,
    smallest: float,
    levels: tuple[tuple[int, float, float], ...],
) -> float:
    """Change a transform in place by gradient descent on Mattes mutual information.

    Args:
        fixed: The scan that stays.
        moving: The scan to match.
        start: Where to begin; afterwards, the answer.
        relaxation: Factor of the step where the gradient turns.
        step: First step.
        smallest: Step at which to stop.
        levels: Shrink factor, sigma in mm, and share of voxels that are looked at.

    Returns:
        The metric reached, lower is better.
    """
    shrink, sigma, share = zip(*levels, strict=True)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel(share, seed=42)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step, smallest, 100, relaxation, 1e-10)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel(sigma)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(fixed, moving)
    return float(method.GetMetricValue())


_PATIENT: dict[str, Any] = {
    "relaxation": 0.85,
    "step": 2.0,
    "smallest": 1e-4,
    "levels": ((4, 4.0, 1.0), (2, 2.0, 0.2), (1, 1.0, 0.02)),
}
_TEXTBOOK: dict[str, Any] = {"relaxation": 0.5, "step": 1.0, "smallest": 1e-3}


def _sitk(how: str) -> Method:
    def run(fixed: MetaTensor, moving: MetaTensor, kind: str) -> Array:
        one, other = to_sitk(fixed), to_sitk(moving)
        rigid = _start(one, other, how)
        _descend(one, other, rigid, **_PATIENT)
        return from_lps(matrix_of(_loosened(one, other, rigid, kind)))

    return run


def _loosened(
    fixed: sitk.Image, moving: sitk.Image, rigid: sitk.Euler3DTransform, kind: str
) -> sitk.Transform:
    """The rigid answer, or the affine one that it leads to."""
    if kind == "rigid":
        return rigid
    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    _descend(fixed, moving, affine, **_PATIENT)
    return affine


def _sitk_multistart(fixed: MetaTensor, moving: MetaTensor, kind: str) -> Array:
    """125 orientations at four-fold shrinkage, descents from the best five, one fine descent."""
    one, other = to_sitk(fixed), to_sitk(moving)
    center = _start(one, other, "MOMENTS")
    coarse = [sitk.Shrink(sitk.DiscreteGaussian(scan, 9.0), [4, 4, 4]) for scan in (one, other)]
    metric = sitk.ImageRegistrationMethod()
    metric.SetMetricAsMattesMutualInformation(32)
    metric.SetMetricSamplingStrategy(metric.NONE)
    metric.SetInterpolator(sitk.sitkLinear)
    starts: list[tuple[float, sitk.Euler3DTransform]] = []
    for angles in product(np.deg2rad([-60, -30, 0, 30, 60]).tolist(), repeat=3):
        start = sitk.Euler3DTransform(center)
        start.SetRotation(*angles)
        metric.SetInitialTransform(start)
        try:
            starts.append((metric.MetricEvaluate(*coarse), start))
        except RuntimeError:  # too little overlap
            continue
    starts.sort(key=lambda entry: entry[0])
    ends: list[tuple[float, sitk.Euler3DTransform]] = []
    for _, start in starts[:5]:
        end = sitk.Euler3DTransform(start)
        try:
            ends.append((_descend(*coarse, end, levels=((1, 0.0, 1.0),), **_TEXTBOOK), end))
        except RuntimeError:
            continue
    best = min(ends, key=lambda entry: entry[0])[1]
    _descend(one, other, best, levels=((2, 1.0, 0.2), (1, 0.0, 0.02)), **_TEXTBOOK)
    return from_lps(matrix_of(_loosened(one, other, best, kind)))


def _elastix(fixed: MetaTensor, moving: MetaTensor, kind: str) -> Array:
    import itk

    def convert(scan: MetaTensor) -> Any:
        source = to_sitk(scan)
        image = itk.image_from_array(sitk.GetArrayFromImage(source))
        image.SetSpacing(source.GetSpacing())
        image.SetOrigin(source.GetOrigin())
        image.SetDirection(itk.matrix_from_array(direction_of(source)))
        return image

    parameters = itk.ParameterObject.New()
    for stage in ("rigid", "affine")[: 1 + (kind == "affine")]:
        parameters.AddParameterMap(parameters.GetDefaultParameterMap(stage))
    _, answer = itk.elastix_registration_method(
        convert(fixed),
        convert(moving),
        parameter_object=parameters,
        log_to_console=False,
        number_of_threads=1,
    )
    matrix = np.eye(4)
    for number in range(answer.GetNumberOfParameterMaps()):
        entry = answer.GetParameterMap(number)
        transforms = {
            "EulerTransform": sitk.Euler3DTransform,
            "AffineTransform": sitk.AffineTransform,
        }
        make = transforms[entry["Transform"][0]]
        transform = make() if make is sitk.Euler3DTransform else make(3)
        center = [float(value) for value in entry["CenterOfRotationPoint"]]
        transform.SetFixedParameters(center + [0.0] * (len(transform.GetFixedParameters()) - 3))
        transform.SetParameters([float(value) for value in entry["TransformParameters"]])
        matrix = matrix_of(transform) @ matrix
    return from_lps(matrix)


def _ants(fixed: MetaTensor, moving: MetaTensor, kind: str) -> Array:
    import ants

    def convert(scan: MetaTensor) -> Any:
        source = to_sitk(scan)
        array = sitk.GetArrayFromImage(source).transpose(2, 1, 0)
        place = source.GetOrigin(), source.GetSpacing(), direction_of(source)
        return ants.from_numpy(np.ascontiguousarray(array), *place)

    with tempfile.TemporaryDirectory() as folder:
        answer = ants.registration(
            convert(fixed),
            convert(moving),
            type_of_transform=kind.capitalize(),
            outprefix=str(Path(folder) / "ants"),
            random_seed=1,
        )
        (path,) = answer["fwdtransforms"]
        return from_lps(matrix_of(sitk.ReadTransform(path)))


def _greedy(start: str) -> Method:
    def run(fixed: MetaTensor, moving: MetaTensor, kind: str) -> Array:
        from picsl_greedy import Greedy3D

        greedy = Greedy3D()
        greedy.execute(
            f"-i fixed moving -a -dof {_DEGREES[kind]} -m NMI -n 100x50x10 -o answer "
            f"-threads 1 -V 0 {start}",
            fixed=to_sitk(fixed),
            moving=to_sitk(moving),
            answer=None,
        )
        return np.array(greedy["answer"], dtype=np.float64)

    return run


_DESCENT = "Mattes, steps relaxed by 0.85, shrinkage 4/2/1; affine after rigid"
PEERS = {
    "identity": Peer(_identity, None, "nothing is done"),
    "mass-center": Peer(_mass_center, None, "centres of mass are matched"),
    "sitk-geometry": Peer(_sitk("GEOMETRY"), None, f"from the scans' centres; {_DESCENT}"),
    "sitk-moments": Peer(_sitk("MOMENTS"), None, f"from the centres of mass; {_DESCENT}"),
    "sitk-multistart": Peer(
        _sitk_multistart, None, "125 orientations within 60 degrees, five coarse descents, one fine"
    ),
    "elastix": Peer(_elastix, "itk-elastix", "its default rigid map; affine: then its affine map"),
    "ants": Peer(_ants, "antspyx", "type_of_transform Rigid or Affine"),
    "greedy-centers": Peer(
        _greedy("-ia-image-centers"), "picsl-greedy", "NMI, 100x50x10, from the scans' centres"
    ),
    "greedy-search": Peer(
        _greedy("-ia-image-centers -search 2000 any 30"),
        "picsl-greedy",
        "NMI, 100x50x10, best of 2000 poses, any angle and 30 mm, about the scans' centres",
    ),
}
