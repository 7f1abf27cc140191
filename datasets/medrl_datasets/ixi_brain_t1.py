"""IXI: 120 adult heads in T1 MRI with 25 brain landmarks, the training set of `brain-t1`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from medrl_datasets.card import Card, Landmarks
from medrl_datasets.local import DataSet, read_landmarks

#: Landmarks that are the centroid of one region: landmark name, region name in labels.csv.
CENTROIDS = {
    "3rdVentricle_centroid": "3rdVentricle",
    "4thVentricle_centroid": "4thVentricle",
    "Accumbens_L_centroid": "AccumbensArea_L",
    "Accumbens_R_centroid": "AccumbensArea_R",
    "Amygdala_L_centroid": "Amygdala_L",
    "Amygdala_R_centroid": "Amygdala_R",
    "BrainStem_centroid": "BrainStem",
    "Caudate_L_centroid": "Caudate_L",
    "Caudate_R_centroid": "Caudate_R",
    "Hippocampus_L_centroid": "Hippocampus_L",
    "Hippocampus_R_centroid": "Hippocampus_R",
    "Pallidum_L_centroid": "Pallidum_L",
    "Pallidum_R_centroid": "Pallidum_R",
    "Putamen_L_centroid": "Putamen_L",
    "Putamen_R_centroid": "Putamen_R",
    "Thalamus_L_centroid": "ThalamusProper_L",
    "Thalamus_R_centroid": "ThalamusProper_R",
    "VermisI-V_centroid": "CerebellarVermalLobules_1to5",
    "VermisVI-VII_centroid": "CerebellarVermalLobules_6to7",
    "VermisVIII-X_centroid": "CerebellarVermalLobules_8to10",
}

#: Landmarks at the end of a region.
EXTREMES = (
    "BrainStem_inferior",
    "CC_genu_anterior",
    "CC_splenium_posterior",
    "LatVent_L_anterior_tip",
    "LatVent_R_anterior_tip",
)

#: What a model can be asked for, and the values of its label maps (labels.csv): the regions of
#: `CENTROIDS`, and the whole brain, which is every value above 0.
TARGETS: dict[str, tuple[int, ...]] = {
    "3rdVentricle": (4,),
    "4thVentricle": (11,),
    "Accumbens_L": (30,),
    "Accumbens_R": (23,),
    "Amygdala_L": (32,),
    "Amygdala_R": (31,),
    "BrainStem": (35,),
    "Caudate_L": (37,),
    "Caudate_R": (36,),
    "Hippocampus_L": (48,),
    "Hippocampus_R": (47,),
    "Pallidum_L": (56,),
    "Pallidum_R": (55,),
    "Putamen_L": (58,),
    "Putamen_R": (57,),
    "Thalamus_L": (60,),
    "Thalamus_R": (59,),
    "VermisI-V": (71,),
    "VermisVI-VII": (72,),
    "VermisVIII-X": (73,),
    "Brain": tuple(range(1, 208)),
}

HOLDOUT = (
    "IXI015-HH-1258", "IXI034-HH-1260", "IXI067-HH-1356", "IXI137-HH-1472", "IXI146-HH-1389",
    "IXI150-HH-1550", "IXI180-HH-1605", "IXI205-HH-1649", "IXI259-HH-1804", "IXI275-HH-1803",
    "IXI276-HH-1840", "IXI280-HH-1860", "IXI440-HH-2127", "IXI441-HH-2154", "IXI453-HH-2214",
    "IXI511-HH-2238", "IXI519-HH-2240", "IXI527-HH-2376", "IXI565-HH-2534", "IXI614-HH-2735",
)  # fmt: skip

CARD = Card(
    name="ixi_brain_t1",
    title="IXI: 120 adult heads, T1-weighted MRI, with 25 brain landmarks",
    modality="MR, T1-weighted, whole head",
    grid="120 x 120 x 90 voxels of 2 mm, stored posterior-superior-right, 8 bit",
    source=(
        "Scans: IXI (Information eXtraction from Images), Imperial College London, 3 T Philips "
        "scanner of Hammersmith Hospital. Labels: DLMUSE, Center for Biomedical Image Computing "
        "and Analytics, University of Pennsylvania"
    ),
    home="https://brain-development.org/ixi-dataset/",
    licence=(
        "Scans: CC BY-SA 3.0. Labels: the SBIA software licence (LICENSE.labels.txt); its notice "
        "has to go with every copy"
    ),
    weights="yes, under CC BY-SA, naming IXI and the source of the labels",
    citation=(
        "IXI, Information eXtraction from Images (EPSRC GR/S21533/02), "
        "https://brain-development.org/ixi-dataset/; Bashyam V.M. et al., DLMUSE: Robust Brain "
        "Segmentation in Seconds Using Deep Learning, Radiology: Artificial Intelligence 7(6), "
        "2025, doi:10.1148/ryai.240299"
    ),
    labels=(
        "Automatic parcellation into 145 MUSE regions: a silver standard, no expert drew it. The "
        "landmarks (landmarks.csv, world RAS, mm) follow from it: 20 centroids of regions and 5 "
        "ends of regions (brain stem, corpus callosum, lateral ventricles)"
    ),
    obtain=(
        "The scans at 2 mm and their label maps are in the repository CBICA/NiChart_Project on "
        "GitHub, folder test_data/processed/IXI (t1, DLMUSE, DLMUSE_seg). Take the subjects of "
        "splits.csv and name the files t1/SUBJECT.nii.gz and labels/SUBJECT.nii.gz. The full "
        "resolution is on IXI's home page. splits.csv, landmarks.csv and labels.csv are medrl's"
    ),
    traps=(
        "After rigid alignment the landmarks still scatter by 1.6 to 3.2 mm between subjects: an "
        "atlas carried over by registration is the baseline to beat",
        "The array order is not right-anterior-superior: use the affine",
        "The heads are whole, not defaced: do not show their surface",
        "The ends of regions depend on how far the parcellation reaches and scatter more than "
        "the centroids",
        "The label maps hold three values that labels.csv does not name: 1 (fluid around the brain "
        "and in its sulci), 46 and 69. The brain's box, drawn around every value, is in some heads "
        "a voxel larger for them",
    ),
    landmarks=tuple(sorted((*CENTROIDS, *EXTREMES))),
    holdout=HOLDOUT,
)


class IxiBrainT1(DataSet):
    """The scans with their label maps; `landmarks` has the points."""

    card = CARD
    targets: ClassVar[dict[str, tuple[int, ...]]] = TARGETS

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject."""
        folders = {"image": "t1", "label": "labels"}
        return {key: root / folder / f"{subject}.nii.gz" for key, folder in folders.items()}

    def landmarks(self, root: Path) -> Landmarks:
        """Read landmarks.csv: 25 points per subject, RAS+ millimetres.

        Raises:
            MedrlError: If the file is missing or broken.
        """
        return read_landmarks(root / "landmarks.csv")


DATASET = IxiBrainT1()
