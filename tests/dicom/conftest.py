"""DICOM series written with pydicom: any orientation, in a folder, a zip or one file."""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import pytest
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


@pytest.fixture
def make_series(tmp_path):
    """Write voxels (slices, rows, columns) as a series; files lie in no order."""

    def make(
        voxels: np.ndarray, plane: str = "oblique", *, how: str = "folder", where="series", **tags
    ) -> Series:
        cosines, step = PLANES[plane]
        uids = {
            name: generate_uid(prefix=None)
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
        }
        said = {**PATIENT, **uids, **tags}
        folder = tmp_path / where
        folder.mkdir(parents=True)
        positions = [(ORIGIN + k * step).round(9).tolist() for k in range(len(voxels))]
        orientation = cosines.ravel().round(12).tolist()
        if how == "frames":
            return _frames(folder, voxels, positions, orientation, said)
        series = Series(folder)
        for k in np.random.default_rng(3).permutation(len(voxels)):
            dataset = base(**said, SOPInstanceUID=generate_uid(prefix=None))
            dataset.InstanceNumber = 100 - int(k)
            dataset.Rows, dataset.Columns = voxels[k].shape
            dataset.ImageOrientationPatient, dataset.PixelSpacing = orientation, list(SPACING)
            dataset.ImagePositionPatient = positions[k]
            dataset.PixelData = voxels[k].astype(np.uint16).tobytes()
            save(dataset, folder / f"{len(series.files):03d}.dcm")
            series.files[dataset.SOPInstanceUID] = dataset
        if how == "zip":
            archive = folder.with_suffix(".zip")
            with zipfile.ZipFile(archive, "w") as out:
                for file in sorted(folder.iterdir()):
                    out.write(file, f"disc/{file.name}")
            series.path = archive
        return series

    return make


def _frames(folder, voxels, positions, orientation, said) -> Series:
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
    path = folder / "frames.dcm"
    save(dataset, path)
    return Series(path, {dataset.SOPInstanceUID: dataset})


@pytest.fixture(scope="session")
def voxels() -> np.ndarray:
    """(slices, rows, columns): two blobs of no symmetry in noise; above 500 and 1500."""
    k, j, i = np.mgrid[:9, :22, :17]
    out = np.random.default_rng(0).integers(0, 100, k.shape)
    out[(k - 3) ** 2 * 4 + (j - 8) ** 2 + (i - 11) ** 2 * 1.5 < 30] = 1000
    out[(k - 6) ** 2 * 4 + (j - 16) ** 2 + (i - 4) ** 2 < 9] = 2000
    out[8, 0, 16] = 1000
    return out.astype(np.uint16)
