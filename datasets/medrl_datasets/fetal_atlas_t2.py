"""Fetal brain atlas of spina bifida aperta: seven T2 templates, 21 to 32 weeks."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from medrl.errors import MedrlError
from medrl.volume.space import voxel_to_world
from medrl_datasets.card import Card, Landmarks
from medrl_datasets.local import DataSet

#: Landmark of each value in lmks.nii.gz.
LANDMARKS = {
    1: "anterior_horn_lateral_ventricle_R",
    2: "anterior_horn_lateral_ventricle_L",
    3: "posterior_tectum_edge",
    4: "cerebellar_brainstem_junction_L",
    5: "cerebellar_brainstem_junction_R",
    10: "deep_grey_border_foramen_of_monro_R",
    11: "deep_grey_border_foramen_of_monro_L",
}

SUBJECTS = (
    "fetal_SB_atlas_GA21_notoperated",
    "fetal_SB_atlas_GA23_notoperated",
    "fetal_SB_atlas_GA25_notoperated",
    "fetal_SB_atlas_GA26_operated",
    "fetal_SB_atlas_GA28_operated",
    "fetal_SB_atlas_GA30_operated",
    "fetal_SB_atlas_GA32_operated",
)

CARD = Card(
    name="fetal_atlas_t2",
    title="Fetal brain atlas of spina bifida aperta: 7 templates, T2-weighted MRI, 21 to 32 weeks",
    modality="MR, T2-weighted, super-resolution averages of fetuses",
    grid="135 x 189 x 155 voxels of 0.8 mm, right-anterior-superior",
    source="King's College London and University Hospitals Leuven",
    home="https://www.synapse.org/#!Synapse:syn25887675/wiki/611424",
    licence="CC0 1.0",
    weights="yes",
    citation=(
        "Fidon L. et al., A spatio-temporal atlas of the developing fetal brain with spina bifida "
        "aperta, Open Research Europe 1:123, 2021, doi:10.12688/openreseurope.13914.1"
    ),
    labels="Eight tissues, semi-automatic; seven landmarks of one voxel each",
    obtain="From the home page, a folder of each template with srr, parcellation and lmks",
    traps=(
        "Templates, not fetuses: seven averages that resemble each other",
        "Affines of image and labels differ by rounding",
    ),
    landmarks=tuple(sorted(LANDMARKS.values())),
    holdout=SUBJECTS,
)


class FetalAtlasT2(DataSet):
    """The templates with their tissues."""

    card = CARD
    subjects = tuple(SUBJECTS)

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        files = {"image": "srr.nii.gz", "label": "parcellation.nii.gz"}
        return {key: root / subject / file for key, file in files.items()}

    def landmarks(self, root: Path) -> Landmarks:
        """Read the seven one-voxel landmarks of each template, RAS+ millimetres.

        Raises:
            MedrlError: If a file is missing, broken or lacks a landmark.
        """
        points: Landmarks = {}
        for subject in SUBJECTS:
            path = root / subject / "lmks.nii.gz"
            try:
                scan = nib.load(path)
                values = np.asanyarray(scan.dataobj)
            except (OSError, EOFError, ValueError, ImageFileError) as error:
                raise MedrlError(f"cannot read {path}: {error}") from error
            points[subject] = {}
            for value, name in LANDMARKS.items():
                voxels = np.argwhere(values == value)
                if not len(voxels):
                    raise MedrlError(f"{path} lacks the value {value}, {name}")
                points[subject][name] = voxel_to_world(voxels.mean(axis=0), scan.affine)
        return points


DATASET = FetalAtlasT2()
