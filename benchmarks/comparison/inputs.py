"""What both editions are given: files, clicks and poses that depend on no medrl."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import nilearn
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

_HEADS, _CROPS, _PATIENTS = "ixi_brain_t1", "msd_hippocampus", "sts_ct_pet"
_TEMPLATE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def subjects(root: Path, data_set: str, split: str) -> list[str]:
    """Subjects of a split: train, val or holdout."""
    with (root / data_set / "splits.csv").open() as file:
        return [row["subject"] for row in csv.DictReader(file) if row["split"] == split]


def heads(root: Path) -> dict[str, Path]:
    """The holdout heads by subject."""
    return {s: root / _HEADS / "t1" / f"{s}.nii.gz" for s in subjects(root, _HEADS, "holdout")}


def segmentations(root: Path) -> dict[str, dict[str, Any]]:
    """Model, scans and first click of every holdout hippocampus and tumour, by subject."""
    found: dict[str, dict[str, Any]] = {}
    for name in subjects(root, _CROPS, "holdout"):
        scan = root / _CROPS / "images" / f"{name}.nii.gz"
        click = _middle(root / _CROPS / "labels" / f"{name}.nii.gz")
        found[name] = {"model": "hippocampus-t1", "scans": {"MR": str(scan)}, "click": click}
    for name in subjects(root, _PATIENTS, "holdout"):
        scans = {m: str(root / _PATIENTS / m.lower() / f"{name}.nii.gz") for m in ("PET", "CT")}
        click = _middle(root / _PATIENTS / "ct_gtv" / f"{name}.nii.gz")
        found[name] = {"model": "sarcoma-pet-ct", "scans": scans, "click": click}
    return found


def pairs(root: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Heads and posed copies of them in another contrast, written into a folder, by name."""
    names = subjects(root, _HEADS, "holdout")[:4]
    scans = {n: root / _HEADS / "t1" / f"{n}.nii.gz" for n in names}
    scans["MNI152"] = Path(nilearn.__file__).parent / "datasets" / "data" / _TEMPLATE
    turns = dict(zip(scans, (15.0, 40.0, 90.0, 180.0, 60.0), strict=True))
    found = {}
    for number, (name, turn) in enumerate(turns.items()):
        posed = folder / f"{name}_posed.nii.gz"
        _pose(scans[name], posed, turn=turn, rng=np.random.default_rng(number))
        found[f"{name}, {turn:g} degrees"] = {"fixed": str(scans[name]), "moving": str(posed)}
    one, other = (str(scans[name]) for name in names[:2])
    return {**found, "two subjects": {"fixed": one, "moving": other}}


def learning(root: Path) -> dict[str, list[dict[str, Any]]]:
    """A few training subjects for the learners of each system."""
    points: dict[str, dict[str, list[float]]] = {}
    with (root / _HEADS / "landmarks.csv").open() as file:
        for row in csv.DictReader(file):
            at = [float(row[axis]) for axis in "xyz"]
            points.setdefault(row["subject"], {})[row["landmark"]] = at
    images = [
        {"image": str(root / _HEADS / "t1" / f"{s}.nii.gz"), "points": points[s]}
        for s in subjects(root, _HEADS, "train")[:6]
    ]
    crops = [
        {kind: str(root / _CROPS / f"{kind}s" / f"{s}.nii.gz") for kind in ("image", "label")}
        for s in subjects(root, _CROPS, "train")[:8]
    ]
    return {"landmark": images, "seednet": crops, "registration": images}


def spread_points(scan: Path) -> Array:
    """Points (64, 3) spread evenly over a scan, RAS mm."""
    image = nib.load(scan)
    axes = [np.linspace(0.1, 0.9, 4) * (n - 1) for n in image.shape[:3]]
    voxels = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(nib.affines.apply_affine(image.affine, voxels))


def _middle(mask: Path) -> list[float]:
    """The voxel of a mask next to its centroid, RAS mm."""
    image = nib.load(mask)
    voxels = np.argwhere(np.asarray(image.dataobj) > 0)
    nearest = np.linalg.norm(voxels - voxels.mean(axis=0), axis=1).argmin()
    return list(map(float, nib.affines.apply_affine(image.affine, voxels[nearest])))


def _pose(scan: Path, out: Path, *, turn: float, rng: np.random.Generator) -> None:
    """Turn and shift a head about its middle, and change its contrast."""
    image = nib.load(scan)
    values = np.asarray(image.dataobj, dtype=np.float64)
    axis = rng.normal(size=3)
    middle = nib.affines.apply_affine(image.affine, (np.array(values.shape) - 1) / 2)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(np.deg2rad(turn) * axis / np.linalg.norm(axis)).as_matrix()
    pose[:3, 3] = middle - pose[:3, :3] @ middle + rng.uniform(-15, 15, 3)
    back = np.linalg.inv(pose @ image.affine) @ image.affine
    moved = affine_transform(values, back[:3, :3], back[:3, 3], order=1)
    changed = 1000 * (moved.clip(0) / values.max()) ** rng.uniform(0.6, 1.4)
    nib.save(nib.Nifti1Image(changed.astype(np.float32), image.affine), out)
