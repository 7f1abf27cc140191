"""Scans of every kind, few of which any one model was trained for.

Those that are changed copies of heads are made of holdout subjects; what a model was trained on is
its own affair, see :mod:`evaluation.ixi` and :mod:`evaluation.seeds`.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy import ndimage
from scipy.spatial.transform import Rotation

from evaluation import ixi
from evaluation.images import Array
from medrl.volume.itk import from_sitk
from medrl.volume.read import read
from medrl.volume.space import apply_affine, as_affine

#: Scans of a cohort by name, read as they are asked for.
Cohort = dict[str, Callable[[], MetaTensor]]
_IXI = "ixi_brain_t1"
_HIPPOCAMPUS = 48
_CHANGED = ("turned by 90 degrees", "turned by 180 degrees", "turned at random", "inverted")
#: Cohorts of heads of the holdout that were changed.
CHANGED_HEADS = (
    *(f"heads {how}" for how in _CHANGED),
    *(f"heads, voxels x {factor:g}" for factor in (0.1, 0.5, 0.7, 1.5, 2.0)),
)
#: Cohorts of heads of the contrast that brain-t1 was trained on, or its inverse.
HEADS = (*CHANGED_HEADS, "heads, T1 templates", "heads, T1 of a patient")
#: Pairs of cohorts that show different things.
UNLIKE_PAIRS = (
    ("heads, T1 templates", "mouse skulls"),
    ("heads, T1 templates", "mouse skulls, voxels x 8"),
    ("heads, T1 templates", "abdomens"),
    ("lumbar spines", "heads, T1 templates"),
    ("lungs", "heads, T1 templates"),
    ("heads, T1 templates", "limbs, PET"),
    ("hearts", "prostates, MR"),
    ("mouse skulls", "prostates, ultrasound"),
    ("heads, T1 templates", "films of animals, stacked"),
    ("heads, CT", "nothing"),
    ("fetal brains", "heads, T1 templates"),
    ("necks", "heads, T1 templates"),
)
#: What makes small things as large as heads.
_TO_HEAD_SIZE = {
    "mouse skulls": 8.0,
    "fetal brains": 1.4,
    "vertebrae": 1.8,
    "hippocampus crops": 4.0,
    "prostates, MR": 8.0,
    "prostates, ultrasound": 8.0,
    "hearts": 2.0,
}


def cohorts(*, most: int) -> dict[str, Cohort]:
    """All cohorts by name.

    Args:
        most: How many scans of each at most.
    """
    root = ixi.data_root()
    heads = [root / _IXI / "t1" / f"{name}.nii.gz" for name in ixi.subjects("holdout")]
    found = {
        **_changed_heads(heads[:most]),
        "heads, T2 and PD templates": _files(root / "afids_templates/images", "*T2w*", "*PDw*"),
        "heads, T2 and FLAIR of a patient": _files(
            root / "ms_multimodal/patient01", "*FLAIR.nii.gz", "*T2W.nii.gz"
        ),
        "heads, T1 templates": _files(root / "afids_templates/images", "*T1w*"),
        "heads, T1 of a patient": _files(root / "ms_multimodal/patient01", "*T1W.nii.gz"),
        "heads, CT": {
            "cranium": _reader(root / "cranium_ct/cranium_ct.nii.gz"),
            "cranium, stored from 0": _from_zero(root / "cranium_ct/cranium_ct.nii.gz"),
        },
        "fetal brains": _files(root / "fetal_atlas_t2", "*/srr.nii.gz"),
        "mouse skulls": _files(root / "mouse_skull_ct/images", "*.nii.gz"),
        "lumbar spines": _files(root / "spine_mr_lumbar/images", "*.nii.gz"),
        "abdomens": {
            **_files(root / "body_ct_mr", "example_ct.nii.gz", "example_mr_sm.nii.gz"),
            "CT stored from 0": _from_zero(root / "body_ct_mr/example_ct.nii.gz"),
            "CT of a DICOM series": _reader(root / "body_ct_mr/example_ct_dicom"),
        },
        "necks": {
            "neck": _reader(root / "body_ct_vendors/neck_ct.nii.gz"),
            "neck, stored from 0": _from_zero(root / "body_ct_vendors/neck_ct.nii.gz"),
        },
        "lungs": {
            **_files(root / "ct_lung_pair", "3DCT*.mha"),
            "stored from 0": _from_zero(root / "ct_lung_pair/3DCT_lung_baseline.mha"),
        },
        "vertebrae": _files(root / "vertebra_ct_mr", "*/*_ct.nii.gz", "*/*_T2w.nii.gz"),
        "limbs, CT": _files(root / "sts_ct_pet/ct", "*.nii.gz"),
        "limbs, PET": _files(root / "sts_ct_pet/pet", "*.nii.gz"),
        "hippocampus crops": _files(root / "msd_hippocampus/images", "*.nii.gz"),
        "prostates, MR": _files(root / "prostate_mr_us/mr_images", "*.nii.gz"),
        "prostates, ultrasound": _files(root / "prostate_mr_us/us_images", "*.nii.gz"),
        "hearts": _hearts(root / "sunnybrook_lv/lv.npz"),
        "films of animals, stacked": _films(root / "davis2016_small/images", "*"),
        "films of cells and flies, stacked": _films(root / "tracking_video", "*/frames", "cells"),
        "digits, stacked": _digits(root / "mnist/t10k-images-idx3-ubyte.gz"),
        "nothing": _nothing(),
    }
    for name, factor in _TO_HEAD_SIZE.items():
        found[f"{name}, voxels x {factor:g}"] = {
            case: lambda load=load, f=factor: resized(load(), f)
            for case, load in found[name].items()
        }
    return {name: dict(list(cohort.items())[:most]) for name, cohort in found.items()}


def with_affine(scan: MetaTensor, affine: ArrayLike) -> MetaTensor:
    """The same voxels elsewhere: (4, 4) voxel to world, RAS mm."""
    moved = torch.from_numpy(np.asarray(affine, dtype=np.float64))
    return MetaTensor(scan.as_tensor().float(), affine=moved)


def turned(scan: MetaTensor, rotation: Rotation) -> MetaTensor:
    """A scan turned in the world, by what its header says."""
    turn = np.eye(4)
    turn[:3, :3] = rotation.as_matrix()
    return with_affine(scan, turn @ scan.affine.numpy())


def resized(scan: MetaTensor, factor: float) -> MetaTensor:
    """A scan whose voxels are so many times as large."""
    return with_affine(scan, np.diag([factor, factor, factor, 1.0]) @ scan.affine.numpy())


def _changed_heads(heads: list[Path]) -> dict[str, Cohort]:
    """Heads in other poses and sizes."""
    rng = np.random.default_rng(0)
    found: dict[str, Cohort] = {}

    def add(cohort: str, path: Path, change: Callable[[MetaTensor], MetaTensor]) -> None:
        name = path.name.split(".")[0]
        found.setdefault(cohort, {})[name] = lambda: change(read(path))

    for number, path in enumerate(heads):
        quarter = np.eye(3)[number % 3] * (90 if number % 2 else -90)
        quarter_turn = Rotation.from_rotvec(quarter, degrees=True)
        any_turn = Rotation.random(random_state=rng)
        add("heads turned by 90 degrees", path, lambda s, r=quarter_turn: turned(s, r))
        add("heads turned at random", path, lambda s, r=any_turn: turned(s, r))
        half_turn = Rotation.from_rotvec(np.eye(3)[number % 3] * 180, degrees=True)
        add("heads turned by 180 degrees", path, lambda s, r=half_turn: turned(s, r))
        for factor in (0.1, 0.5, 0.7, 1.5, 2.0):
            add(f"heads, voxels x {factor:g}", path, lambda s, f=factor: resized(s, f))
        add("heads inverted", path, lambda s: with_affine(s.max() - s, s.affine))
    return found


def _files(folder: Path, *patterns: str) -> Cohort:
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return {str(path.relative_to(folder)).split(".nii")[0]: _reader(path) for path in paths}


def _reader(path: Path) -> Callable[[], MetaTensor]:
    return lambda: read(path)


def _from_zero(path: Path) -> Callable[[], MetaTensor]:
    """A CT whose values were shifted so that none is below 0."""

    def load() -> MetaTensor:
        scan = read(path)
        return with_affine(scan.clamp(min=-1024) + 1024, scan.affine)

    return load


def _hearts(path: Path) -> Cohort:
    stored = np.load(path)

    def load(first: int, last: int) -> MetaTensor:
        # Slices lie one on the other; their distance is the third spacing.
        spacing = stored["spacing_mm"][first]
        values = np.moveaxis(stored["images"][first:last], 0, -1).astype(np.float32)
        return _volume(values, np.sort(spacing))

    return {
        f"{number:02d}": lambda a=int(first), b=int(last): load(a, b)
        for number, (first, last) in enumerate(stored["cases"])
    }


def _films(folder: Path, *patterns: str) -> Cohort:
    """Frames of a film as slices of a volume as large as a head."""
    found: Cohort = {}

    def load(frames: list[Path], side_mm: float) -> MetaTensor:
        images = [sitk.GetArrayFromImage(sitk.ReadImage(str(frame))) for frame in frames]
        grey = np.stack([image.mean(axis=-1) if image.ndim == 3 else image for image in images], -1)
        small = ndimage.zoom(grey, (0.5, 0.5, 1), order=1).astype(np.float32)
        return _volume(small, side_mm / np.array(small.shape))

    films = (path for pattern in patterns for path in folder.glob(pattern) if path.is_dir())
    for film in sorted(films):
        frames = sorted((*film.glob("*.jpg"), *film.glob("frame*.png")))[:60]
        if frames:
            name = film.parent.name if film.name == "frames" else film.name
            found[name] = lambda f=frames: load(f, 200.0)
    return found


def _digits(path: Path) -> Cohort:
    with gzip.open(path) as file:
        digits = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 28, 28)

    def load(number: int, side_mm: float) -> MetaTensor:
        values = digits[28 * number : 28 * number + 28].astype(np.float32)
        return _volume(values, np.full(3, side_mm / 28))

    return {
        f"{side:g} mm": lambda n=n, s=side: load(n, s) for n, side in enumerate((28.0, 120, 200))
    }


def _nothing() -> Cohort:
    """Noise, blobs and simple solids of the size of a head."""
    shape = (100, 110, 90)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    solid = (grid**2).sum(axis=0) < 0.7

    def noise(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

    def volume(values: np.ndarray) -> Callable[[], MetaTensor]:
        return lambda: _volume(values.astype(np.float32), np.full(3, 2.0))

    return {
        "noise": volume(np.abs(noise(0))),
        "smooth noise": volume(ndimage.gaussian_filter(noise(1), 4)),
        "a ball": volume(100.0 * solid),
        "a noisy ball": volume(100.0 * solid + 10 * noise(2)),
        "a ball of blobs": volume(solid * (1 + 8 * ndimage.gaussian_filter(noise(3), 4))),
        "a ramp": volume(grid[2]),
    }


def _volume(values: np.ndarray, spacing: ArrayLike) -> MetaTensor:
    image = sitk.GetImageFromArray(values.T)
    image.SetSpacing(np.asarray(spacing, dtype=float).tolist())
    return from_sitk(image)


@dataclass(frozen=True, eq=False)
class Posed:
    """A copy of a scan in another pose and contrast.

    Attributes:
        moving: (1, I, J, K) on the grid of the scan.
        truth_world: (4, 4) scan to copy, RAS mm.
        points_world: (P, 3) points in the middle of the scan, RAS mm.
    """

    moving: MetaTensor
    truth_world: Array
    points_world: Array

    def error_mm(self, transform_world: ArrayLike) -> float:
        """Mean distance of the points from where they belong, mm."""
        there = apply_affine(np.asarray(transform_world), self.points_world)
        apart = there - apply_affine(self.truth_world, self.points_world)
        return float(np.linalg.norm(apart, axis=1).mean())


def posed(scan: MetaTensor, rng: Generator) -> Posed:
    """Turn a copy of a scan at random, shift it a little, and change its contrast; with noise."""
    affine, shape = as_affine(scan.affine), np.array(scan.shape[1:])
    middle = apply_affine(affine, (shape - 1) / 2)
    truth = np.eye(4)
    truth[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    shift = rng.uniform(-0.08, 0.08, 3) * shape * np.linalg.norm(affine[:3, :3], axis=0)
    truth[:3, 3] = middle - truth[:3, :3] @ middle + shift
    image = sitk.GetImageFromArray(scan[0].numpy().astype(np.float32).T)
    # In voxels: the copy shows at v what the scan has at inverse(A) inverse(T) A v.
    back = np.linalg.inv(affine) @ np.linalg.inv(truth) @ affine
    pose = sitk.AffineTransform(back[:3, :3].ravel().tolist(), back[:3, 3].tolist())
    turned_image = sitk.Resample(image, image, pose, sitk.sitkLinear, float(scan.min()))
    values = sitk.GetArrayFromImage(turned_image).T
    low, high = float(values.min()), float(np.quantile(values, 0.99))
    values = np.clip((values - low) / max(high - low, 1e-6), 0, 1.2) ** rng.uniform(0.5, 1.6)
    values = np.abs(values + 0.03 * rng.standard_normal(values.shape))
    moving = with_affine(MetaTensor(torch.from_numpy(1000 * values)[None]), affine)
    lattice = np.stack(np.meshgrid(*[np.linspace(0.3, 0.7, 4) * (n - 1) for n in shape]), -1)
    return Posed(moving, truth, apply_affine(affine, lattice.reshape(-1, 3)))


def hippocampi(most: int) -> Iterator[tuple[MetaTensor, torch.Tensor]]:
    """Whole heads of the holdout with the mask (I, J, K) of the left hippocampus."""
    root = ixi.data_root() / _IXI
    for subject in ixi.subjects("holdout")[:most]:
        labels = read(root / "labels" / f"{subject}.nii.gz", allow_constant=True)
        scan = read(root / "t1" / f"{subject}.nii.gz")
        yield scan, labels.as_tensor()[0].round() == _HIPPOCAMPUS
