"""MyoSegmenTUM spine: 40 lumbar spines in MR with their vertebral bodies L1 to L5."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from medrl.errors import MedrlError
from medrl.volume.space import voxel_to_world
from medrl_datasets.card import Boxes, Card
from medrl_datasets.local import DataSet, read_table

#: Vertebrae, and their values in the masks.
TARGETS: dict[str, tuple[int, ...]] = {"L1": (1,), "L2": (2,), "L3": (3,), "L4": (4,), "L5": (5,)}

CARD = Card(
    name="spine_mr_lumbar",
    title="MyoSegmenTUM spine: 40 lumbar spines, MR, with the vertebral bodies L1 to L5",
    modality="MR, sagittal, of a water-fat sequence: fluid and muscle are bright, fat is dark",
    grid="112 x 112 x 38 voxels of 2 x 2 x 2.03 mm, stored inferior-posterior-left, 8 bit",
    source="Technical University of Munich, Klinikum rechts der Isar: 54 healthy adults, 40 here",
    home="https://doi.org/10.1186/s12891-019-2528-x",
    licence=(
        "The article that publishes the database: CC BY 4.0. The copies that these were made from "
        "are in a repository under GPL-3 (LICENSE.repository-GPL-3)"
    ),
    weights="yes, naming the source; under GPL-3 to be safe",
    citation=(
        "Burian E. et al., Lumbar muscle and vertebral bodies segmentation of chemical shift "
        "encoding-based water-fat MRI: the reference database MyoSegmenTUM spine, BMC "
        "Musculoskeletal Disorders 20, 152, 2019, doi:10.1186/s12891-019-2528-x"
    ),
    labels=(
        "Vertebral bodies without arches and processes, drawn by radiologists: 1 to 5 for L1 to "
        "L5, all five in every scan. boxes.csv has the smallest box of voxels around each, which "
        "`boxes` gives in the world"
    ),
    obtain=(
        "The article names the database, on the Open Science Framework. Here scans and masks are "
        "at 2 mm, with the patients' numbers as names; splits.csv and boxes.csv are medrl's"
    ),
    traps=(
        "Five neighbours look alike, and exams are centred alike: crop and shift at random before "
        "calling anything learned",
        "Left and right are unknown: nothing in the files says which end of axis 2 is which, and "
        "the world coordinates only say where voxels lie to each other",
        "Other vertebrae are in view and not labelled: T12, T11, the sacrum",
        "26 of the 200 boxes reach the first or the last slice: the vertebra may go on beyond it",
        "28 has four stray voxels of L3 in front of it, which move a wall of its box by 2 mm",
    ),
    holdout=("05", "10", "18", "21", "28", "38", "41", "49"),
)


class SpineMrLumbar(DataSet):
    """The scans with their vertebrae; `boxes` has the boxes around them."""

    card = CARD
    targets: ClassVar[dict[str, tuple[int, ...]]] = TARGETS

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        folders = {"image": "images", "label": "labels"}
        return {key: root / folder / f"{subject}.nii.gz" for key, folder in folders.items()}

    def boxes(self, root: Path) -> Boxes:
        """Read boxes.csv: the five vertebrae of every subject, RAS+ millimetres.

        Raises:
            MedrlError: If the file or one of the masks is missing or broken.
        """
        path = root / "boxes.csv"
        names = {str(value): name for name, (value,) in TARGETS.items()}
        ends = ("i0", "j0", "k0", "i1", "j1", "k1")
        boxes: Boxes = {}
        affine = np.eye(4)
        for row in read_table(path, ("subject", "label", *ends)):
            subject, label = row["subject"], row["label"]
            if label not in names:
                raise MedrlError(f"{path}: label {label} of {subject} is not one of 1 to 5")
            if subject not in boxes:
                affine, boxes[subject] = _affine(self.files(root, subject)["label"]), {}
            try:
                # Start and end of a range of voxels, half a voxel off: the outer faces.
                faces = np.array([float(row[end]) for end in ends]).reshape(2, 3) - 0.5
            except ValueError as error:
                raise MedrlError(f"{path}: label {label} of {subject}: {error}") from error
            # The grid lies along the world's axes, so two corners are enough.
            boxes[subject][names[label]] = np.sort(voxel_to_world(faces, affine), axis=0)
        return boxes


def _affine(path: Path) -> np.ndarray:
    """Voxel to world of a NIfTI file, 4x4, RAS+ mm."""
    try:
        return np.asarray(nib.load(path).affine, dtype=np.float64)
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise MedrlError(f"cannot read {path}: {error}") from error


DATASET = SpineMrLumbar()
