"""DICOM series written with pydicom: any orientation, in a folder, a zip or one file."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from medrl import read

#: Whose the series are.
PATIENT = {
    "PatientName": "Doe^Jane",
    "PatientID": "MRN-4711",
    "PatientBirthDate": "19610203",
    "PatientSex": "F",
    "PatientAge": "065Y",
    "AccessionNumber": "ACC-99",
    "StudyID": "ST-1",
    "StudyDate": "20260102",
    "StudyTime": "101112",
    "StudyDescription": "Head follow-up",
    "ReferringPhysicianName": "Grey^Meredith",
}


def turn(degrees: tuple[float, float, float]) -> np.ndarray:
    """Rotation about x, then y, then z."""
    a, b, c = np.radians(degrees)
    x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    return np.array(z) @ np.array(y) @ np.array(x)


#: Direction cosines of rows and columns, and the way from slice to slice (LPS; mm).
PLANES = {
    "axial": (np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([0, 0, 2.5])),
    "axial downwards": (np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([0, 0, -2.5])),
    "sagittal": (np.array([[0, 1.0, 0], [0, 0, -1]]), np.array([2.5, 0, 0])),
    "coronal": (np.array([[1.0, 0, 0], [0, 0, -1]]), np.array([0, 2.5, 0])),
    "oblique": (turn((17, -24, 38))[:, :2].T, 2.5 * turn((17, -24, 38))[:, 2]),
    "tilted gantry": (np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([0, 0.9, 2.5])),
}
ORIGIN, SPACING = np.array([-31.5, 22.25, -63.0]), (0.9, 1.4)


def base(**tags) -> pydicom.Dataset:
    """What a file of any series has."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = pydicom.uid.MRImageStorage
    dataset.Modality, dataset.SeriesNumber = "MR", 3
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def save(dataset: pydicom.Dataset, path: Path) -> None:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


@dataclass
class Series:
    """A series on disk, and what is in it."""

    path: Path
    files: dict[str, pydicom.Dataset] = field(default_factory=dict)

    def read(self):
        return read(self.path)


def frames(path, voxels, positions, orientation, said) -> pydicom.Dataset:
    """An enhanced MR."""

    def item(**tags):
        inner = pydicom.Dataset()
        for name, value in tags.items():
            setattr(inner, name, value)
        return inner

    dataset = base(**said, SOPInstanceUID=generate_uid(prefix=None))
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    dataset.NumberOfFrames = len(voxels)
    dataset.Rows, dataset.Columns = voxels[0].shape
    measures = item(PixelSpacing=list(SPACING), SliceThickness=2.5)
    plane = item(ImageOrientationPatient=orientation)
    dataset.SharedFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[plane])
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=p)]) for p in positions
    ]
    dataset.PixelData = voxels.astype(np.uint16).tobytes()
    save(dataset, path)
    return dataset
