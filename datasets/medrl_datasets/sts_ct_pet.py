"""Soft-tissue sarcoma: CT and PET of 24 patients with the tumour outlined in both."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from medrl_datasets.card import Card
from medrl_datasets.local import DataSet

CARD = Card(
    name="sts_ct_pet",
    title="Soft-tissue sarcoma: CT and PET of 24 patients, tumours outlined",
    modality="CT in Hounsfield units and FDG-PET in standardised uptake values",
    grid="CT 2 x 2 x 3.27 mm, PET 4 to 5.5 mm in plane; one world frame; left-posterior-superior",
    source="McGill University, through the Image Biomarker Standardisation Initiative",
    home="https://doi.org/10.7937/K9/TCIA.2015.7GO2GSKS",
    licence="CC BY 3.0",
    weights="yes, naming the source",
    citation=(
        "Vallieres M. et al., A radiomics model from joint FDG-PET and MRI texture features for "
        "the prediction of lung metastases in soft-tissue sarcomas of the extremities, Physics in "
        "Medicine and Biology 60(14), 2015, doi:10.1088/0031-9155/60/14/5471"
    ),
    labels="Gross tumour volume, drawn by hand, on the grid of each modality",
    obtain=(
        "The repository theibsi/data_sets on GitHub, folders ibsi_1_validation_ct and "
        "ibsi_1_validation_pet, gives scans cut to 5 cm around the tumour; the originals are in "
        "The Cancer Imaging Archive under the home page's DOI. Here the CT is resampled to 2 mm in "
        "plane"
    ),
    traps=(
        "Cut out 5 cm around the tumour, so the tumour is near the middle: crop and seed at random",
    ),
    holdout=("STS_001", "STS_007", "STS_042", "STS_049", "STS_051"),
)


class StsCtPet(DataSet):
    """The CTs with their tumours; `pet` and `pet_label` are the same for PET."""

    card = CARD
    channels: ClassVar[dict[str, str]] = {"PET": "pet", "CT": "image"}
    targets: ClassVar[dict[str, tuple[int, ...]]] = {"tumour": (1,)}

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        folders = {"image": "ct", "label": "ct_gtv", "pet": "pet", "pet_label": "pet_gtv"}
        return {key: root / folder / f"{subject}.nii.gz" for key, folder in folders.items()}


DATASET = StsCtPet()
