"""Heads in known poses and other contrasts: the recipe of the registration stress cases.

A pose maps points of the fixed scan to points of the moving one: turned about the fixed grid's
centre, then shifted. The moving scan is the same anatomy in that pose, on the same 2 mm grid (so
parts leave the field of view), in another contrast, with a bias field and Rician noise. Everything
here is SimpleITK and NumPy, in LPS mm; it shares nothing with what models are trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import SimpleITK as sitk
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from evaluation import ixi
from evaluation.images import Array, center_of, direction_of
from medrl.volume.space import apply_affine
from medrl_datasets import mni152

#: Largest angle (degrees) and shift (mm) about and along each axis; ANY is uniform on SO(3).
BANDS = {"10": 10.0, "30": 30.0, "60": 60.0}
ANY = "any"
ANY_SHIFT_MM = 60.0
CONTRASTS = ("T1 remapped", "pseudo-T2")

#: Poses are drawn anew until this share of the points lies in the moving scan.
LEAST_VISIBLE = 0.6
NOISE = 0.03
BIAS = 0.3
#: Intensity above which a voxel counts as head, where white matter is about 0.85.
_HEAD = 0.05
#: The pseudo-T2 curve: fluid bright, grey matter between, white matter dark.
_T1_LEVELS = (0.05, 0.30, 0.62, 0.85, 1.0)
_T2_LEVELS = (0.95, 0.90, 0.55, 0.30, 0.22)
_CODES = {**{band: int(band) for band in BANDS}, ANY: 180}


@dataclass(frozen=True, eq=False)
class Head:
    """An anatomy that cases are made of.

    Attributes:
        name: Template or subject.
        image: T1-weighted intensities, white matter about 0.85, on the anatomy's own grid.
        grid: Where fixed and moving scans are sampled, 2 mm.
        smoothing_mm: Sigma of the smoothing before sampling; 0 where the grids agree.
        points: (100, 3) LPS mm, in the brain.
        seed: First number of every seed of its cases.
    """

    name: str
    image: sitk.Image
    grid: sitk.Image
    smoothing_mm: float
    points: Array
    seed: int

    @property
    def fixed(self) -> sitk.Image:
        """The scan that stays."""
        return self._sampled(self.image, sitk.Transform()) * 255.0

    def moving(self, pose: Array, contrast: str, rng: Generator) -> sitk.Image:
        """The scan in another pose.

        Args:
            pose: (4, 4) fixed to moving points, LPS mm.
            contrast: One of :data:`CONTRASTS`.
            rng: Source of the contrast, the bias field and the noise, in this order.
        """
        array = sitk.GetArrayFromImage(self.image)
        curve = _remapped if contrast == CONTRASTS[0] else _pseudo_t2
        image = sitk.GetImageFromArray(_biased(curve(array, rng), array > _HEAD, rng))
        image.CopyInformation(self.image)
        clean = sitk.GetArrayFromImage(self._sampled(image, to_sitk_affine(np.linalg.inv(pose))))
        real, imaginary = (rng.normal(0, NOISE, clean.shape) for _ in range(2))
        noisy = np.sqrt((clean + real) ** 2 + imaginary**2)
        scan = sitk.GetImageFromArray((noisy * 1000).astype(np.float32))
        scan.CopyInformation(self.grid)
        return scan

    def visible(self, pose: Array) -> float:
        """Share of the points that a pose leaves between the moving scan's voxel centres."""
        spacing, last = np.array(self.grid.GetSpacing()), np.array(self.grid.GetSize()) - 1
        offset = apply_affine(pose, self.points) - np.array(self.grid.GetOrigin())
        index = offset @ direction_of(self.grid) / spacing
        return float(((index >= 0) & (index <= last)).all(axis=1).mean())

    def _sampled(self, image: sitk.Image, transform: sitk.Transform) -> sitk.Image:
        if self.smoothing_mm:
            image = sitk.DiscreteGaussian(image, self.smoothing_mm**2)
        return sitk.Resample(image, self.grid, transform, sitk.sitkLinear, 0.0)


@lru_cache(maxsize=1)
def template() -> Head:
    """The MNI152 template without skull, 1 mm, sampled at 2 mm."""
    (case,) = mni152.DATASET.datalist(mni152.installed_root())["test"]
    scan = sitk.ReadImage(case["image"], sitk.sitkFloat32)
    array = sitk.GetArrayFromImage(scan)
    array = array / array.max()
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(scan)
    grid = sitk.Image([(n + 1) // 2 for n in scan.GetSize()], sitk.sitkFloat32)
    grid.SetSpacing([2.0, 2.0, 2.0])
    grid.SetDirection(scan.GetDirection())
    grid.SetOrigin(scan.TransformContinuousIndexToPhysicalPoint([0.5, 0.5, 0.5]))
    return Head("MNI152", image, grid, 0.85, _points(array > 0.2, scan), 2026)


@lru_cache(maxsize=2)
def subject(name: str) -> Head:
    """A whole head of IXI on its own 2 mm grid; the points lie in labelled regions."""
    scan = sitk.Cast(ixi.load(name).image, sitk.sitkFloat32)
    array = sitk.GetArrayFromImage(scan)
    brain = sitk.GetArrayFromImage(ixi_labels(name)) > 0
    array *= np.float32(0.85 / np.percentile(array[brain], 90))
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(scan)
    return Head(name, image, image, 0.0, _points(brain, scan), 2027)


def ixi_labels(name: str) -> sitk.Image:
    """The label map of a subject of IXI, on the grid of its scan."""
    return sitk.ReadImage(str(ixi.data_root() / "ixi_brain_t1" / "labels" / f"{name}.nii.gz"))


def draw_pose(head: Head, band: str, number: int) -> Array:
    """A pose (4, 4), fixed to moving points, LPS mm; always the same for the same arguments.

    In bands with a limit, some angle and some shift exceed half of it.
    """
    rng = np.random.default_rng([head.seed, _CODES[band], number])
    while True:
        if band == ANY:
            rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
            shift = rng.uniform(-ANY_SHIFT_MM, ANY_SHIFT_MM, 3)
        else:
            limit = BANDS[band]
            angles, shift = rng.uniform(-limit, limit, 3), rng.uniform(-limit, limit, 3)
            if min(np.abs(angles).max(), np.abs(shift).max()) < limit / 2:
                continue
            rotation = turn(angles)
        pose = about(rotation, shift, center_of(head.grid))
        if head.visible(pose) >= LEAST_VISIBLE:
            return pose


def appearance_rng(head: Head, band: str, number: int, contrast: str) -> Generator:
    """Source of the randomness of a moving scan's voxels."""
    return np.random.default_rng([head.seed, _CODES[band], number, CONTRASTS.index(contrast)])


def turn(angles_deg: Sequence[float] | Array) -> Array:
    """Rotation (3, 3) about y, then x, then z, as SimpleITK's Euler3DTransform does it."""
    x, y, z = angles_deg
    return np.asarray(Rotation.from_euler("yxz", [y, x, z], degrees=True).as_matrix())


def about(rotation: Array, shift: Array, center: Array) -> Array:
    """Matrix (4, 4) of a rotation about a centre, followed by a shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = center + shift - rotation @ center
    return matrix


def angle_deg(matrix: Array) -> float:
    """Angle by which a rigid transform (4, 4) turns."""
    return float(np.rad2deg(Rotation.from_matrix(matrix[:3, :3]).magnitude()))


def to_sitk_affine(matrix: Array) -> sitk.AffineTransform:
    """A matrix (4, 4), LPS mm, as a transform of SimpleITK."""
    return sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())


def sample(mask: NDArray[np.bool_], scan: sitk.Image, rng: Generator, count: int = 100) -> Array:
    """Centres of random voxels of a mask (K, J, I), (count, 3) LPS mm."""
    index = np.argwhere(mask)[:, ::-1]
    index = index[rng.choice(len(index), count, replace=False)]
    step = direction_of(scan) * np.array(scan.GetSpacing())
    return np.asarray(np.array(scan.GetOrigin()) + index @ step.T)


def _points(mask: NDArray[np.bool_], scan: sitk.Image) -> Array:
    return sample(mask, scan, np.random.default_rng(12345))


_Curve = Callable[[NDArray[np.float32], Generator], Array]


def _remapped(array: NDArray[np.float32], rng: Generator) -> Array:
    """A random increasing curve of five pieces over a random power of the intensity."""
    gamma = rng.uniform(0.6, 1.6)
    rise = np.cumsum([0, *rng.uniform(0.4, 1.6, 5)])
    bright = max(1.0, float(np.percentile(array, 99.9)))
    relative = (array if bright == 1 else array / np.float32(bright)) ** gamma
    return np.interp(relative, np.linspace(0, 1, 6), rise / rise[-1])


def _pseudo_t2(array: NDArray[np.float32], rng: Generator) -> Array:
    """The contrast of T2: fluid bright, white matter dark, and air stays dark."""
    levels = np.array(_T2_LEVELS)
    levels[1:] += rng.uniform(-0.05, 0.05, 4)
    return np.asarray(np.interp(array, _T1_LEVELS, levels) * (array > _HEAD))


def _biased(array: Array, head: NDArray[np.bool_], rng: Generator) -> NDArray[np.float32]:
    """Times a smooth field: a random quadratic, in the head within exp(+-0.3)."""
    size = array.shape
    z, y, x = (
        np.linspace(-1, 1, n).reshape([-1 if a == b else 1 for b in range(3)])
        for a, n in enumerate(size)
    )
    terms = [z, y, x, z**2, y**2, x**2, *(a * b for a, b in combinations((z, y, x), 2))]
    field = np.zeros(size)
    for weight, term in zip(rng.uniform(-1, 1, 9), terms, strict=True):
        field += weight * term
    field /= np.abs(field[head]).max()
    return (array * np.exp(BIAS * field)).astype(np.float32)
