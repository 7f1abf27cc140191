"""Small whole DICOM files of the kinds that medrl reads; the fuzzer damages these."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

#: Columns, rows, slices.
SHAPE = (6, 7, 8)
_SLICES = 4


def dicom_slice(number: int, *, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """One slice of a small CT series."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number + 1}"
    meta.TransferSyntaxUID = (
        ExplicitVRLittleEndian if syntax in (RLELossless, JPEGLosslessSV1) else syntax
    )
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.2",
        f"1.2.826.0.1.{number + 1}",
    )
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.826.0.2", "1.2.826.0.3"
    header.FrameOfReferenceUID = "1.2.826.0.4"
    header.Modality, header.SeriesDescription, header.SeriesNumber = "CT", "Fuzz", 4
    header.PatientName, header.PatientID = "Fuzz^Anna", "F-1"
    header.InstanceNumber = number + 1
    header.ImagePositionPatient = [1.0, 2.0, 5.0 * number]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing, header.SliceThickness = [3.5, 4.5], 5
    header.Rows, header.Columns = SHAPE[1], SHAPE[0]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation, header.RescaleSlope, header.RescaleIntercept = 1, 1, -1024
    header.PixelData = (_voxels()[:, :, number].T.astype("<i2") + 10 * number).tobytes()
    if syntax == RLELossless:
        header.compress(RLELossless, generate_instance_uid=False)
    if syntax == JPEGLosslessSV1:
        header.PixelData, header["PixelData"].VR = encapsulate([_jpeg(header.PixelData)]), "OB"
        header["PixelData"].is_undefined_length = True
        meta.TransferSyntaxUID = JPEGLosslessSV1
    return header


def _jpeg(pixels: bytes) -> bytes:
    """A slice as GDCM compresses it, to be decoded by GDCM: pydicom alone has no decoder."""
    array = np.frombuffer(pixels, "<i2").reshape(1, SHAPE[1], SHAPE[0])
    writer = sitk.ImageFileWriter()
    with tempfile.TemporaryDirectory() as folder:
        writer.SetFileName(f"{folder}/slice.dcm")
        writer.SetImageIO("GDCMImageIO")
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(array))
        dataset = pydicom.dcmread(f"{folder}/slice.dcm")
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def bytes_of(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def dicom_files(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Write them; the kind of each, what is to be read and all its files."""
    for name, syntax in (
        ("series", ExplicitVRLittleEndian),
        ("implicit", ImplicitVRLittleEndian),
        ("packed", RLELossless),
        ("jpeg", JPEGLosslessSV1),
        ("deflated", DeflatedExplicitVRLittleEndian),
    ):
        slices = [bytes_of(dicom_slice(n, syntax=syntax)) for n in range(_SLICES)]
        yield "dicom", "", _write(folder, name, slices)
    yield "dicom", "", _write(folder, "bare", [bytes_of(dicom_slice(n))[132:] for n in range(4)])
    table = [bytes_of(_with_table(dicom_slice(n))) for n in range(_SLICES)]
    yield "dicom", "", _write(folder, "table", table)
    enhanced = [bytes_of(_enhanced([n])) for n in range(_SLICES)]
    yield "dicom", "", _write(folder, "enhanced", enhanced)
    with zipfile.ZipFile(folder / "series.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(_SLICES):
            archive.writestr(zipfile.ZipInfo(f"deep/{number}.dcm"), bytes_of(dicom_slice(number)))
    yield "scan", "series.zip", ["series.zip"]
    for name, made in (
        ("frames.dcm", _enhanced([2, 0, 3, 1])),
        ("gamma.dcm", _gamma()),
        ("dose.dcm", _dose()),
    ):
        (folder / name).write_bytes(bytes_of(made))
        yield "scan", name, [name]


def _write(folder: Path, name: str, contents: list[bytes]) -> list[str]:
    (folder / name).mkdir()
    names = [f"{name}/{n}.dcm" for n in range(len(contents))]
    for file, content in zip(names, contents, strict=True):
        (folder / file).write_bytes(content)
    return names


def _item(**tags: object) -> Dataset:
    made = Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def _with_table(header: Dataset) -> Dataset:
    """A slice with a Modality LUT in place of a line."""
    del header.RescaleSlope, header.RescaleIntercept
    table = Dataset()
    table.add_new("LUTDescriptor", "SS", [200, -20, 16])
    table.add_new("LUTData", "OW", np.arange(200, dtype="<u2").tobytes())
    header.ModalityLUTSequence = [table]
    return header


def _enhanced(order: list[int]) -> Dataset:
    """An enhanced CT with some slices as frames, each with a line of its own."""
    header = _frames(order, "1.2.840.10008.5.1.4.1.1.2.1")
    header.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[_item(PixelSpacing=[3.5, 4.5], SliceThickness=5)],
        )
    ]
    header.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=[1.0, 2.0, 5.0 * number])],
            PixelValueTransformationSequence=[_item(RescaleSlope=1 + number, RescaleIntercept=-9)],
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=number + 1)],
            RealWorldValueMappingSequence=[
                _item(RealWorldValueSlope=2.0, RealWorldValueIntercept=0.0)
            ],
        )
        for number in order
    ]
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(header, tag)
    return header


def _gamma() -> Dataset:
    """A reconstruction of a gamma camera."""
    header = _frames(list(range(_SLICES)), "1.2.840.10008.5.1.4.1.1.20")
    header.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    header.SliceVector, header.SpacingBetweenSlices = list(range(1, _SLICES + 1)), -5
    place = _item(ImagePositionPatient=[1, 2, 3], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    header.DetectorInformationSequence = [place]
    del header.ImagePositionPatient, header.ImageOrientationPatient
    return header


def _dose() -> Dataset:
    """The dose of a plan."""
    header = _frames(list(range(_SLICES)), "1.2.840.10008.5.1.4.1.1.481.2")
    header.GridFrameOffsetVector = [5.0 * number for number in range(_SLICES)]
    header.DoseGridScaling = 0.001
    del header.RescaleSlope, header.RescaleIntercept
    return header


def _frames(order: list[int], kind: str) -> Dataset:
    """Slices in one file."""
    header = dicom_slice(order[0])
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = kind
    header.NumberOfFrames = len(order)
    header.PixelData = _voxels()[:, :, order].transpose(2, 1, 0).astype("<i2").tobytes()
    return header


def _voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 120, SHAPE).astype(np.int16)
