"""Ljubljana multiple sclerosis set: one patient, several sequences, two visits."""

from __future__ import annotations

from pathlib import Path

from medrl_datasets.card import Card
from medrl_datasets.local import DataSet

CARD = Card(
    name="ms_multimodal",
    title="Ljubljana MS set: one patient, FLAIR, T1 and T2 at the first visit, FLAIR at the second",
    modality="MR, FLAIR, T1- and T2-weighted, as scanned",
    grid="0.5 to 0.7 mm in plane, slices of 3 to 4 mm, left-posterior-superior",
    source="Laboratory of Imaging Technologies, University of Ljubljana",
    home="http://lit.fe.uni-lj.si/tools.php?lang=eng",
    licence="CC BY",
    weights="yes, naming the source",
    citation=(
        "Lesjak Z. et al., Validation of white-matter lesion change detection methods on a novel "
        "publicly available MRI image database, Neuroinformatics 14(4), 2016, "
        "doi:10.1007/s12021-016-9301-1"
    ),
    labels=(
        "Reference affines between the sequences of a visit, and from each visit's FLAIR to a "
        "common space (ITK text files, LPS, fixed points to moving points); lesion changes between "
        "the visits in the common space"
    ),
    obtain=(
        "The home page, or the repository muschellij2/open_ms_data on GitHub, folder "
        "longitudinal/raw/patient01"
    ),
    traps=(
        "Within a visit the sequences are only 0.3 to 6 mm apart: add a known misalignment",
        "SimpleITK reads the transforms but does not cast them to AffineTransform: take their "
        "parameters",
        "The lesion changes are on the grid of the common space, not of a scan",
    ),
    holdout=("patient01",),
)


class MsMultimodal(DataSet):
    """The patient: `image` is the first FLAIR, `t1`, `t2` and `followup` the other scans."""

    card = CARD
    subjects = ("patient01",)

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        files = {
            "image": "study1_FLAIR.nii.gz",
            "t1": "study1_T1W.nii.gz",
            "t2": "study1_T2W.nii.gz",
            "followup": "study2_FLAIR.nii.gz",
            "t1_to_image": "study1_T1W_intrastudy_to_FLAIR.txt",
            "t2_to_image": "study1_T2W_intrastudy_to_FLAIR.txt",
            "image_to_common": "study1_FLAIR_to_common_space.txt",
            "followup_to_common": "study2_FLAIR_to_common_space.txt",
            "change_in_common": "gt.nii.gz",
        }
        return {key: root / subject / file for key, file in files.items()}


DATASET = MsMultimodal()
