"""Medical Segmentation Decathlon, task 4: 220 crops around a hippocampus, the tutorial's data.

The set has masks, no points. Five landmarks are derived from each mask (`points_of`), and `export`
writes scans that a landmark agent can learn from: in the source every crop is centred alike, so
that a constant guess is off by only 3 to 4 mm.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.volume.space import same_grid, voxel_to_world
from medrl_datasets.card import Card, Datalist, Landmarks
from medrl_datasets.local import DataSet

ANTERIOR, POSTERIOR = 1, 2

LANDMARKS = (
    "anterior_centroid",
    "anterior_tip",
    "hippocampus_centroid",
    "posterior_centroid",
    "posterior_tip",
)

#: Shape of an exported scan, voxels of 1 mm; the largest crop is 43 x 59 x 47.
CANVAS = (64, 80, 64)

#: How far a tip reaches into the mask, mm.
_TIP_DEPTH = 2.0

#: Tissue that stays around the mask when a crop is cut, voxels.
_MARGIN = 3

_HOLDOUT_NUMBERS = (
    4, 8, 17, 20, 26, 38, 48, 52, 64, 68, 77, 84, 89, 92, 102, 109, 132, 154, 160, 166,
    169, 172, 178, 181, 228, 235, 248, 249, 263, 269, 289, 302, 319, 333, 345, 358, 366, 373, 380,
    386,
)  # fmt: skip

CARD = Card(
    name="msd_hippocampus",
    title="Medical Segmentation Decathlon task 4: 220 crops around a hippocampus, T1-weighted MRI",
    modality="MR, T1-weighted, cut out around one hippocampus",
    grid="about 35 x 50 x 36 voxels of 1 mm, right-anterior-superior",
    source="Vanderbilt University Medical Center, for the Medical Segmentation Decathlon",
    home="http://medicaldecathlon.com",
    licence="CC BY-SA 4.0",
    weights="yes, under CC BY-SA 4.0, naming the Medical Segmentation Decathlon",
    citation=(
        "Antonelli M. et al., The Medical Segmentation Decathlon, Nature Communications 13, 4128, "
        "2022, doi:10.1038/s41467-022-30695-9; Simpson A.L. et al., arXiv:1902.09063, 2019"
    ),
    labels=(
        "Manual masks: 1 anterior, 2 posterior hippocampus. Five landmarks are derived from them: "
        "the centroids of both parts and of the whole, and the centroids of the 2 mm that reach "
        "furthest forward and back"
    ),
    obtain=(
        "Task04_Hippocampus from the Decathlon's home page: imagesTr as images/, labelsTr as "
        "labels/. 220 of its 260 labelled crops are used. Checksums are of the compressed files: "
        "a copy compressed again has the same voxels and other checksums"
    ),
    traps=(
        "Intensities span 112 to 1.7e6 between scans: normalise each scan",
        "The crops are centred alike, so a constant position is a strong guess: `medrl datasets "
        "export` cuts, pads and shifts them at random",
        "The world coordinates mean nothing: every crop starts at (1, 1, 1) mm",
        "The source does not say which crops come from the same person",
    ),
    landmarks=LANDMARKS,
    holdout=tuple(f"hippocampus_{number:03d}" for number in _HOLDOUT_NUMBERS),
)


def points_of(
    mask: NDArray[np.generic], affine: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Derive the five landmarks of one mask.

    Args:
        mask: Labels, shape (I, J, K): 1 anterior, 2 posterior, 0 elsewhere.
        affine: Voxel to world, 4x4, RAS+ millimetres.

    Returns:
        Position of each landmark in world RAS+ millimetres, shape (3,): centroids of the parts and
        of the whole, and centroids of the voxels within 2 mm of the foremost and of the hindmost.

    Raises:
        MedrlError: If one of the parts is empty.
    """

    def world(selected: NDArray[np.bool_]) -> NDArray[np.float64]:
        return voxel_to_world(np.argwhere(selected), affine)

    anterior, posterior = world(mask == ANTERIOR), world(mask == POSTERIOR)
    if not len(anterior) or not len(posterior):
        raise MedrlError("the mask lacks the anterior or the posterior hippocampus")
    whole = np.concatenate([anterior, posterior])
    y = whole[:, 1]
    return {
        "anterior_centroid": anterior.mean(axis=0),
        "anterior_tip": whole[y > y.max() - _TIP_DEPTH].mean(axis=0),
        "hippocampus_centroid": whole.mean(axis=0),
        "posterior_centroid": posterior.mean(axis=0),
        "posterior_tip": whole[y < y.min() + _TIP_DEPTH].mean(axis=0),
    }


def shift(
    image: NDArray[np.generic], mask: NDArray[np.generic], *, seed: int
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Cut a crop at random and put it at a random place of a larger, empty canvas.

    Each side is cut by a random amount that leaves the mask and 3 voxels around it; what is left
    lands anywhere on the canvas.

    Args:
        image: Intensities, shape (I, J, K).
        mask: Labels on the same grid.
        seed: Seed of the cut and of the place.

    Returns:
        Image and mask, shape `CANVAS`, 0 outside the crop.
    """
    random = np.random.default_rng(seed)
    inside = np.argwhere(mask)
    low = random.integers(0, np.maximum(inside.min(axis=0) - _MARGIN, 0), endpoint=True)
    room = np.maximum(np.array(mask.shape) - 1 - inside.max(axis=0) - _MARGIN, 0)
    high = np.array(mask.shape) - random.integers(0, room, endpoint=True)
    start = random.integers(0, np.array(CANVAS) - (high - low), endpoint=True)
    source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    target = tuple(slice(a, a + n) for a, n in zip(start, high - low, strict=True))
    moved = []
    for array in (image, mask):
        canvas = np.zeros(CANVAS, dtype=array.dtype)
        canvas[target] = array[source]
        moved.append(canvas)
    return moved[0], moved[1]


def write_shifted(root: Path, out: Path, *, seed: int) -> tuple[Datalist, Landmarks]:
    """Write every crop cut, padded and shifted at random, with its mask.

    The new affine puts voxel (0, 0, 0) at the world's origin: the crops' own world says nothing,
    and keeping it would give the shift away.

    Args:
        root: Folder of the data set.
        out: Folder to write `images/` and `labels/` into.
        seed: Seed of all shifts; each subject has its own, whatever the order.

    Returns:
        Datalist of the written files, and the landmarks in their world.
    """
    for kind in ("images", "labels"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    points: Landmarks = {}
    written: Datalist = {}
    for key, entries in DATASET.datalist(root).items():
        written[key] = []
        for entry in entries:
            subject = entry["subject"]
            image, affine, spacing = _load(Path(entry["image"]))
            mask, mask_affine, _ = _load(Path(entry["label"]))
            if image.shape != mask.shape or not same_grid(affine, mask_affine, image.shape):
                raise MedrlError(f"{entry['label']} is not on the grid of {entry['image']}")
            image, mask = shift(
                image, mask.astype(np.uint8), seed=zlib.crc32(f"{seed}:{subject}".encode())
            )
            affine = np.diag([*spacing, 1.0])
            new = {"image": "images", "label": "labels"}
            new = {field: str(out / kind / f"{subject}.nii.gz") for field, kind in new.items()}
            for field, array in (("image", image), ("label", mask)):
                with atomic_path(Path(new[field])) as temporary:
                    nib.save(nib.Nifti1Image(array, affine), temporary)
            points[subject] = points_of(mask, affine)
            written[key].append({**new, "subject": subject})
    return written, points


def _load(
    path: Path,
) -> tuple[NDArray[np.generic], NDArray[np.float64], NDArray[np.float64]]:
    """Read the voxels, the affine and the spacing of a NIfTI file, in its own data type."""
    try:
        scan = nib.load(path)
        return (
            np.asanyarray(scan.dataobj),
            np.asarray(scan.affine, dtype=np.float64),
            np.asarray(scan.header.get_zooms()[:3], dtype=np.float64),
        )
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise MedrlError(f"cannot read {path}: {error}") from error


class MsdHippocampus(DataSet):
    """The crops as published, with their masks."""

    card = CARD
    targets: ClassVar[dict[str, tuple[int, ...]]] = {
        "whole": (ANTERIOR, POSTERIOR),
        "anterior": (ANTERIOR,),
        "posterior": (POSTERIOR,),
    }

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        folders = {"image": "images", "label": "labels"}
        return {key: root / folder / f"{subject}.nii.gz" for key, folder in folders.items()}

    def landmarks(self, root: Path) -> Landmarks:
        """Derive the landmarks of every crop as published, RAS+ millimetres of its own affine."""
        points = {}
        for entries in self.datalist(root).values():
            for entry in entries:
                mask, affine, _ = _load(Path(entry["label"]))
                points[entry["subject"]] = points_of(mask, affine)
        return points


DATASET = MsdHippocampus()
