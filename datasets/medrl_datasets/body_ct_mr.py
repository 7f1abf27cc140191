"""Abdominal CT and MR with automatic organ masks; one CT as a DICOM series."""

from __future__ import annotations

from pathlib import Path

from medrl_datasets.card import Card
from medrl_datasets.local import DataSet

_FILES = {
    "ct": {"image": "example_ct.nii.gz", "label": "example_seg_fast_force_split.nii.gz"},
    "mr": {"image": "example_mr_sm.nii.gz", "label": "example_seg_mr.nii.gz"},
    "ct_dicom": {"image": "example_ct_dicom"},
}

CARD = Card(
    name="body_ct_mr",
    title="Abdomen: one CT, one small MR, and one CT as a DICOM series",
    modality="CT in Hounsfield units, and MR",
    grid="122 x 101 x 112 voxels (CT) and 117 x 91 x 20 voxels (MR) of 3 mm",
    source="Test data of TotalSegmentator, University Hospital Basel",
    home="https://github.com/wasserth/TotalSegmentator",
    licence="Apache-2.0",
    weights="not trained on: tests only",
    citation=(
        "Wasserthal J. et al., TotalSegmentator, Radiology: Artificial Intelligence 5(5), 2023, "
        "doi:10.1148/ryai.230024"
    ),
    labels="Organs, automatic: no ground truth",
    obtain="The repository wasserth/TotalSegmentator on GitHub, folder tests/reference_files",
    traps=("The DICOM series is another scan than the NIfTI file",),
    holdout=tuple(_FILES),
)


class BodyCtMr(DataSet):
    """The scans, with their organs where there are any."""

    card = CARD
    subjects = tuple(_FILES)

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        return {key: root / file for key, file in _FILES[subject].items()}


DATASET = BodyCtMr()
