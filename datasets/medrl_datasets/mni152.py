"""MNI152: the average T1-weighted brain that nilearn brings along, offline; the demo's scan."""

from __future__ import annotations

from pathlib import Path

from medrl.errors import MedrlError
from medrl_datasets.card import Card
from medrl_datasets.local import DataSet

_FILE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"

CARD = Card(
    name="mni152",
    title="MNI152: average of 152 adult brains, T1-weighted MRI, in nilearn",
    modality="MR, T1-weighted, average of 152 adults, skull removed",
    grid="197 x 233 x 189 voxels of 1 mm, right-anterior-superior",
    source="McConnell Brain Imaging Centre, Montreal Neurological Institute; packaged by nilearn",
    home="https://nist.mni.mcgill.ca/icbm-152-nonlinear-atlases-2009/",
    licence=(
        "Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal "
        "Neurological Institute, McGill University: use, copying, modification and distribution "
        "are permitted provided that the notice stays"
    ),
    weights="not trained on",
    citation="Fonov V. et al., NeuroImage 54(1), 2011, doi:10.1016/j.neuroimage.2010.07.033",
    labels="None",
    obtain="Install medrl with the extra `samples`: nilearn has it in its package",
    traps=(
        "The skull is removed: a model trained on whole heads sees something new",
        "An average of many heads is sharper in the middle than at the cortex",
    ),
    holdout=("MNI152",),
)


def installed_root() -> Path:
    """Return nilearn's folder of templates.

    Raises:
        MedrlError: If nilearn is not installed.
    """
    try:
        import nilearn
    except ImportError as error:
        raise MedrlError(
            "the MNI152 template comes with nilearn: pip install 'medrl[samples]'"
        ) from error
    return Path(nilearn.__file__).parent / "datasets" / "data"


class Mni152(DataSet):
    """The one template."""

    card = CARD
    subjects = ("MNI152",)

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        return {"image": root / _FILE}


DATASET = Mni152()
