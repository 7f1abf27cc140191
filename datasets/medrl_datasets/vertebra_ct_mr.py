"""One lumbar vertebra in CT and one in MR, with masks."""

from __future__ import annotations

from pathlib import Path

from medrl_datasets.card import Card
from medrl_datasets.local import DataSet

_FILES = {
    "ct": {
        "image": "sample_ct/sub-ct_label-22_ct.nii.gz",
        "label": "sample_ct/sub-ct_seg-vert_label-22_msk.nii.gz",
        "subregions": "sample_ct/sub-ct_seg-subreg_label-22_msk.nii.gz",
    },
    "mr": {
        "image": "sample_mri/sub-mri_label-6_T2w.nii.gz",
        "label": "sample_mri/sub-mri_seg-vert_label-6_msk.nii.gz",
        "subregions": "sample_mri/sub-mri_seg-subreg_label-6_msk.nii.gz",
    },
}

CARD = Card(
    name="vertebra_ct_mr",
    title="Vertebra: one lumbar vertebra in CT and one in MR, with masks",
    modality="CT, and T2-weighted MR, cut out around a vertebra",
    grid="73 x 47 x 73 and 68 x 52 x 67 voxels of 1.5 mm, posterior-inferior-right",
    source="Test data of TPTBox, Technical University of Munich",
    home="https://github.com/Hendrik-code/TPTBox",
    licence="Apache-2.0",
    weights="not trained on: tests only",
    citation="TPTBox, https://github.com/Hendrik-code/TPTBox",
    labels="Masks of the vertebra and of its sub-regions",
    obtain="The repository Hendrik-code/TPTBox on GitHub, folder TPTBox/tests",
    holdout=tuple(_FILES),
)


class VertebraCtMr(DataSet):
    """Both scans with the masks of the vertebra and of its sub-regions."""

    card = CARD
    subjects = tuple(_FILES)

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        return {key: root / file for key, file in _FILES[subject].items()}


DATASET = VertebraCtMr()
