"""Evaluation cases made of real scans by SimpleITK, independent of what models were trained with.

Convention: landmarks are world RAS mm, as everywhere in medrl; SimpleITK's images and transforms
are LPS. A change of the scan carries its landmarks along exactly, in world coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medrl.volume.itk import from_sitk
from medrl.volume.space import lps_to_ras, ras_to_lps

Array = NDArray[np.float64]

#: How the grid of a corrupted scan lies: along the world, turned with the head, or on its own.
GRIDS = ("straight", "with the head", "on its own")


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """A scan and where its landmarks are.

    Attributes:
        name: Subject and what was done to it.
        subject: Whose it is.
        image: The scan.
        points_world: Landmark name to (3,) RAS mm, also of landmarks outside the scan.
        description: What was done, in numbers.
    """

    name: str
    subject: str
    image: sitk.Image
    points_world: dict[str, Array]
    description: dict[str, object] = field(default_factory=dict)

    @property
    def present(self) -> dict[str, bool]:
        """Whether each landmark lies in the scan, outermost voxels counted to their faces."""
        return {name: self.margin_mm(name) >= 0 for name in self.points_world}

    def margin_mm(self, landmark: str) -> float:
        """Distance from a landmark to the nearest face of the scan, negative outside, in mm."""
        point = ras_to_lps(self.points_world[landmark])
        index = np.array(self.image.TransformPhysicalPointToContinuousIndex(point.tolist()))
        size, spacing = np.array(self.image.GetSize()), np.array(self.image.GetSpacing())
        return float((np.minimum(index + 0.5, size - 0.5 - index) * spacing).min())

    def scan(self) -> MetaTensor:
        """The scan as medrl takes it: (1, I, J, K) float32 with its affine (RAS mm)."""
        return from_sitk(sitk.Cast(self.image, sitk.sitkFloat32))


@dataclass(frozen=True)
class Corruption:
    """How bad corrupted scans get.

    Attributes:
        rotation_deg: Largest rotation of the head about each axis, uniform.
        shift_mm: Largest shift of the head in the field of view along each axis, uniform.
        in_plane_mm: Voxel size in plane.
        slice_mm: Slice thickness, a whole multiple of ``in_plane_mm``.
        bias: Largest log amplitude of the bias field.
        noise: Range of the noise's standard deviation, relative to bright tissue.
    """

    rotation_deg: float = 30.0
    shift_mm: float = 20.0
    in_plane_mm: float = 1.0
    slice_mm: float = 3.0
    bias: float = 0.3
    noise: tuple[float, float] = (0.02, 0.08)


def turned(case: LabelledImage, rng: Generator) -> LabelledImage:
    """Turn a scan in the world by any angle, all rotations being equally likely.

    Voxels stay as they are; the grid turns with the head.
    """
    rotation = Rotation.random(random_state=rng).as_matrix()
    center = center_of(case.image)
    image = sitk.Image(case.image)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    image.SetDirection((rotation @ direction).ravel().tolist())
    image.SetOrigin((rotation @ (np.array(image.GetOrigin()) - center) + center).tolist())
    points = {
        name: lps_to_ras(rotation @ (ras_to_lps(point) - center) + center)
        for name, point in case.points_world.items()
    }
    return replace(case, name=f"{case.name} turned", image=image, points_world=points)


def corrupt(
    case: LabelledImage, rng: Generator, corruption: Corruption | None = None
) -> LabelledImage:
    """Put the head in another pose, on another grid, through a worse scanner.

    The head is turned and shifted in the world and the field of view keeps its extent, so
    corners of the old one may be lost. The grid lies straight, or is turned with the head (an
    oblique header over an upright picture), or is turned on its own. Slices are averages over
    their thickness along a random axis. Bias field and noise (Rician or Gaussian) follow, and the
    array is stored with random axis order and flips.

    Args:
        case: A scan with its landmarks.
        rng: Source of all randomness.
        corruption: How bad.

    Returns:
        The corrupted case.
    """
    how = corruption or Corruption()
    center = center_of(case.image)
    pose = sitk.Euler3DTransform()
    pose.SetCenter(center.tolist())
    angles = np.deg2rad(rng.uniform(-how.rotation_deg, how.rotation_deg, 3))
    pose.SetRotation(*angles.tolist())
    pose.SetTranslation(rng.uniform(-how.shift_mm, how.shift_mm, 3).tolist())

    grid = str(rng.choice(GRIDS))
    direction = np.eye(3)
    if grid == "with the head":
        direction = np.array(pose.GetMatrix()).reshape(3, 3)
    elif grid == "on its own":
        turn = sitk.Euler3DTransform()
        turn.SetRotation(*np.deg2rad(rng.uniform(-30, 30, 3)).tolist())
        direction = np.array(turn.GetMatrix()).reshape(3, 3)

    thick_axis = int(rng.integers(3))
    factors = [1, 1, 1]
    factors[thick_axis] = round(how.slice_mm / how.in_plane_mm)
    size = np.ceil(extent_of(case.image) / how.in_plane_mm).astype(int)
    size[thick_axis] -= size[thick_axis] % factors[thick_axis]
    origin = center - direction @ ((size - 1) / 2 * how.in_plane_mm)
    image = sitk.Resample(
        sitk.Cast(case.image, sitk.sitkFloat32),
        size.tolist(),
        pose.GetInverse(),
        sitk.sitkLinear,
        origin.tolist(),
        [how.in_plane_mm] * 3,
        direction.ravel().tolist(),
    )
    image = sitk.BinShrink(image, factors)
    image, noise = _scanner(image, rng, how)
    image = _store(image, rng)
    turned = np.rad2deg(angles).round(1).tolist()
    description: dict[str, object] = {
        "rotation_deg": turned,
        "shift_mm": np.round(pose.GetTranslation(), 1).tolist(),
        "grid": grid,
        "noise": noise,
    }
    points = {name: move(point, pose) for name, point in case.points_world.items()}
    return LabelledImage(f"{case.name} corrupted", case.subject, image, points, description)


def half(
    case: LabelledImage,
    rng: Generator,
    *,
    axis: int | None = None,
    keep_low: bool | None = None,
    share: tuple[float, float] = (0.4, 0.6),
) -> LabelledImage:
    """Cut the scan by a plane near its middle and keep one part.

    Args:
        case: A scan with its landmarks.
        rng: Source of all randomness.
        axis: Array axis across which to cut; at random if left out.
        keep_low: Keep the part with the low indices; at random if left out.
        share: Range of the part that is kept, uniform.

    Returns:
        The cropped case; its landmarks stay where they are in the world.
    """
    axis = int(rng.integers(3)) if axis is None else axis
    keep_low = bool(rng.integers(2)) if keep_low is None else keep_low
    size, start = list(case.image.GetSize()), [0, 0, 0]
    start[axis], size[axis] = kept = half_of(size[axis], rng, keep_low=keep_low, share=share)
    image = sitk.RegionOfInterest(case.image, size, start)
    description: dict[str, object] = {"axis": axis, "keep_low": keep_low, "slices": kept[1]}
    return replace(case, name=f"{case.name} half", image=image, description=description)


def half_of(
    size: int, rng: Generator, *, keep_low: bool, share: tuple[float, float] = (0.4, 0.6)
) -> tuple[int, int]:
    """Where the part of an axis that is kept starts, and how long it is, in voxels.

    Args:
        size: Of the whole axis.
        rng: Source of all randomness.
        keep_low: Keep the part with the low indices.
        share: Range of the part that is kept, uniform.
    """
    kept = round(size * float(rng.uniform(*share)))
    return (0 if keep_low else size - kept), kept


def move(point_world: Array, transform: sitk.Transform) -> Array:
    """Move a point (3,) in RAS mm by a transform of SimpleITK (LPS)."""
    return lps_to_ras(transform.TransformPoint(ras_to_lps(point_world).tolist()))


def direction_of(image: sitk.Image) -> Array:
    """Direction cosines (3, 3), columns are the array axes in LPS."""
    return np.array(image.GetDirection()).reshape(3, 3)


def center_of(image: sitk.Image) -> Array:
    """Centre of a scan (3,), LPS mm."""
    middle = (np.array(image.GetSize()) - 1) / 2
    return np.array(image.TransformContinuousIndexToPhysicalPoint(middle.tolist()))


def extent_of(image: sitk.Image) -> Array:
    """Extent (3,) of a scan along the world axes that its array axes are closest to, mm."""
    world_axis = np.abs(direction_of(image)).argmax(axis=0)
    extent = np.empty(3)
    extent[world_axis] = np.array(image.GetSize()) * np.array(image.GetSpacing())
    return extent


def _scanner(
    image: sitk.Image, rng: Generator, how: Corruption
) -> tuple[sitk.Image, dict[str, object]]:
    """Bias field and noise."""
    array = sitk.GetArrayFromImage(image)
    bright = float(np.percentile(array[array > array.mean()], 75))
    array = array * np.exp(_smooth_field(array.shape, rng) * rng.uniform(0.3, 1.0) * how.bias)
    sigma = float(rng.uniform(*how.noise)) * bright
    kind = str(rng.choice(["Rician", "Gaussian"]))
    noise = rng.standard_normal((2, *array.shape), dtype=np.float32) * np.float32(sigma)
    array = np.hypot(array + noise[0], noise[1]) if kind == "Rician" else array + noise[0]
    noisy = sitk.GetImageFromArray(array.astype(np.float32))
    noisy.CopyInformation(image)
    return noisy, {"kind": kind, "sigma_of_bright": round(sigma / bright, 3)}


def _smooth_field(shape: tuple[int, ...], rng: Generator) -> NDArray[np.float32]:
    """A random cubic polynomial over the grid, largest absolute value 1."""
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    field = np.zeros(shape, dtype=np.float32)
    for i in range(4):
        for j in range(4 - i):
            for k in range(4 - i - j):
                if i + j + k:
                    plane = np.multiply.outer(x**i, y**j) * np.float32(rng.standard_normal())
                    field += np.multiply.outer(plane, z**k)
    return field / np.abs(field).max()


def _store(image: sitk.Image, rng: Generator) -> sitk.Image:
    """Another order and other directions of the array axes; every voxel keeps its place."""
    order = [int(axis) for axis in rng.permutation(3)]
    flips = [bool(flip) for flip in rng.integers(2, size=3)]
    return sitk.Flip(sitk.PermuteAxes(image, order), flips, False)
