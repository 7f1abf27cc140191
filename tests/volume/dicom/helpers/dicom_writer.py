"""DICOM files of one small volume, written with pydicom: plain, enhanced, packed, without parts."""

import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

CT, MR, PET = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128"))
ENHANCED = {CT: CT + ".1", MR: MR + ".1", PET: "1.2.840.10008.5.1.4.1.1.130"}
SHAPE = (6, 10, 12)
#: Stored values (slices, rows, columns).
STORED = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)
#: Numbers of slices, to be multiplied with.
K = np.arange(SHAPE[0])[:, None, None]
ORIGIN, STEP = np.array([-10.0, -20.0, 5.0]), 3.0
#: Voxel to RAS mm.
AFFINE = np.array([[-1.5, 0, 0, 10], [0, -2, 0, 20], [0, 0, STEP, 5], [0, 0, 0, 1.0]])


def item(**tags) -> Dataset:
    inner = Dataset()
    for name, value in tags.items():
        setattr(inner, name, value)
    return inner


def position(k: int) -> list[float]:
    return [*ORIGIN[:2], ORIGIN[2] + k * STEP]


def header(kind: str, number: int, **tags) -> Dataset:
    """A file of a series without place and pixels."""
    made = item(
        SOPClassUID=kind,
        SOPInstanceUID=f"1.2.3.{number + 1}",
        SeriesInstanceUID="1.2.9",
        StudyInstanceUID="1.2.8",
        Modality="MR",
        Rows=SHAPE[1],
        Columns=SHAPE[2],
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=0,
    )
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = kind
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def plain(
    folder: Path,
    stored: np.ndarray = STORED,
    *,
    kind: str = MR,
    without: Sequence[str] = (),
    each: Callable[[int], dict] = lambda k: {},
    encode: Callable[[Dataset], bytes] | None = None,
    **tags,
) -> Path:
    """One file for each slice, in a new folder."""
    folder.mkdir(parents=True)
    for k, pixels in enumerate(stored):
        place = {"ImagePositionPatient": position(k), "PixelSpacing": [2, 1.5]}
        place["ImageOrientationPatient"] = [1, 0, 0, 0, 1, 0]
        made = header(kind, k, **{**place, **tags, **each(k)})
        made.PixelData = pixels.tobytes()
        for tag in without:
            delattr(made, tag)
        (folder / f"{9 - k}.dcm").write_bytes((encode or encoded)(made))
    return folder


def shared_groups(**groups) -> Dataset:
    return item(
        **{
            "PixelMeasuresSequence": [item(PixelSpacing=[2, 1.5], SliceThickness=3)],
            "PlaneOrientationSequence": [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            **groups,
        }
    )


def place_of(k: int) -> list[Dataset]:
    return [item(ImagePositionPatient=position(k))]


def scaling(slope: float, intercept: float) -> list[Dataset]:
    return [item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")]


def frames(
    file: Path,
    order: Sequence[int] = range(SHAPE[0]),
    *,
    kind: str = MR,
    stored: np.ndarray = STORED,
    shared: Dataset | None = None,
    each: Callable[[int], dict] = lambda k: {},
    encode: Callable[[Dataset], bytes] | None = None,
    number: int = 0,
    **tags,
) -> Path:
    """An enhanced file with the slices in an order."""
    made = header(ENHANCED[kind], number, NumberOfFrames=len(order), **tags)
    made.SharedFunctionalGroupsSequence = [shared or shared_groups()]
    made.PerFrameFunctionalGroupsSequence = [
        item(**{"PlanePositionSequence": place_of(k), **each(k)}) for k in order
    ]
    made.PixelData = stored[list(order)].tobytes()
    file.write_bytes((encode or encoded)(made))
    return file


def encoded(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def implicit(made: Dataset) -> bytes:
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return encoded(made)


def big_endian(made: Dataset) -> bytes:
    made.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    return encoded(made)


def deflated(made: Dataset) -> bytes:
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return encoded(made)


def without_preamble(made: Dataset) -> bytes:
    return encoded(made)[132:]


def bare(*, implicit_vr: bool, little_endian: bool) -> Callable[[Dataset], bytes]:
    """The data set and nothing before it."""

    def encode(made: Dataset) -> bytes:
        buffer = io.BytesIO()
        del made.file_meta
        if not little_endian:
            made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
        made.save_as(buffer, implicit_vr=implicit_vr, little_endian=little_endian)
        return buffer.getvalue()

    return encode


def rle(made: Dataset) -> bytes:
    made.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    return encoded(made)


def jpeg_lossless(made: Dataset) -> bytes:
    """What pydicom alone has no decoder for."""
    return _by_gdcm(made, "JPEG")


def jpeg_2000(made: Dataset) -> bytes:
    return _by_gdcm(made, "JPEG2000")


def _by_gdcm(made: Dataset, compressor: str) -> bytes:
    dtype = "<i2" if made.PixelRepresentation else "<u2"
    parts = []
    for pixels in np.frombuffer(made.PixelData, dtype).reshape(-1, 1, made.Rows, made.Columns):
        writer = sitk.ImageFileWriter()
        with tempfile.TemporaryDirectory() as folder:
            writer.SetFileName(f"{folder}/slice.dcm")
            writer.SetImageIO("GDCMImageIO")
            writer.SetUseCompression(True)
            writer.SetCompressor(compressor)
            writer.Execute(sitk.GetImageFromArray(pixels))
            packed = pydicom.dcmread(f"{folder}/slice.dcm")
        parts.append(next(generate_frames(packed.PixelData, number_of_frames=1)))
    made.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    made.PixelData = encapsulate(parts)
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return encoded(made)
