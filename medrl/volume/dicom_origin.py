"""The DICOM images that a scan was read from, for objects that refer to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

#: What says whose images these are; objects made from them carry it over (PS3.3 C.7.1.1, C.7.2.1,
#: C.7.2.2). Of a patient that is an animal the species counts, too.
IDENTITY_TAGS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("PatientSpeciesDescription", "PatientBreedDescription", "ResponsiblePerson"),
    *("PatientAge", "PatientSize", "PatientWeight"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"),
    *("IssuerOfAccessionNumberSequence", "StudyDescription", "ReferringPhysicianName"),
    "LongitudinalTemporalInformationModified",
)


class DicomOrigin(str):
    """Which DICOM images a scan is, in the order of its slices.

    It knows the patient's name and does not say it: as text it is no more than "9 DICOM images
    (MR)". It is text so that MONAI takes it through batches untouched.

    Attributes:
        header: Of the first slice, or of the multi-frame file: patient, study, series, frame of
            reference; without pixels. Not to be changed.
        instances: SOPInstanceUID of the image that each slice is in.
        frames: Which frame of that image each slice is, from 1.
        positions_lps: (K, 3), centre of the first voxel of each slice, LPS mm.
        orientation: Direction cosines of rows and of columns, six numbers (LPS).
        spacing: Between rows and between columns, mm.
    """

    header: pydicom.Dataset
    instances: tuple[str, ...]
    frames: tuple[int, ...]
    positions_lps: NDArray[np.float64]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]

    def __new__(
        cls,
        header: pydicom.Dataset,
        instances: tuple[str, ...],
        frames: tuple[int, ...],
        positions_lps: NDArray[np.float64],
        orientation: tuple[float, ...],
        spacing: tuple[float, float],
    ) -> DicomOrigin:
        """Put it together from its attributes."""
        modality = header.get("Modality") or "of unknown modality"
        made = super().__new__(cls, f"{len(set(instances))} DICOM images ({modality})")
        made.header = header
        made.instances = instances
        made.frames = frames
        made.positions_lps = positions_lps
        made.orientation = orientation
        made.spacing = spacing
        return made

    @property
    def is_multi_frame(self) -> bool:
        """Whether slices are frames of files that hold several."""
        return max(self.frames) > 1

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.instances, self.frames, self.positions_lps, self.orientation, self.spacing)
        return DicomOrigin, (self.header, *parts)

    def __deepcopy__(self, memo: Any) -> DicomOrigin:
        """The same: it does not change, and MONAI copies what a scan knows at every step."""
        return self
