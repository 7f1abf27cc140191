"""What stored pixels stand for, wherever a header says it and whoever decodes them."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_writer import (
    AFFINE,
    CT,
    MR,
    PET,
    STORED,
    K,
    big_endian,
    deflated,
    encoded,
    frames,
    implicit,
    item,
    jpeg_2000,
    jpeg_lossless,
    place_of,
    plain,
    rle,
    scaling,
    shared_groups,
)

from medrl import MedrlError, read
from medrl.volume._dicom_frames import values_of
from medrl.volume._dicom_headers import find_images
from medrl.volume._dicom_pixels import PixelReader

ENCODINGS = (encoded, implicit, big_endian, deflated, rle, jpeg_2000, jpeg_lossless)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SIGNED = (STORED.astype(int) - 2000).astype(np.int16)


def values(path) -> np.ndarray:
    """(slices, rows, columns)."""
    return read(path).numpy()[0].transpose(2, 1, 0)


def remarks(path) -> list[str]:
    return list(read(path).meta["remarks"])


@pytest.mark.parametrize("encode", ENCODINGS)
@pytest.mark.parametrize("kind", [CT, MR, PET])
def test_a_line_of_its_own_for_each_frame_of_an_enhanced_file(tmp_path, kind, encode):
    file = frames(
        tmp_path / "a.dcm",
        kind=kind,
        each=lambda k: {"PixelValueTransformationSequence": scaling(1.5 + k, -10 * k)},
        encode=encode,
    )
    np.testing.assert_allclose(values(file), STORED * (1.5 + K) - 10 * K)


@pytest.mark.parametrize("encode", ENCODINGS)
def test_the_same_in_plain_files(tmp_path, encode):
    folder = plain(
        tmp_path / "a",
        kind=PET,
        each=lambda k: {"RescaleSlope": 1.5 + k, "RescaleIntercept": -10 * k},
        encode=encode,
    )
    np.testing.assert_allclose(values(folder), STORED * (1.5 + K) - 10 * K)
    one = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "6.dcm")))
    np.testing.assert_allclose(values(folder)[3], one[0])


def test_a_line_for_all_frames_or_at_the_top_or_half_of_one(tmp_path):
    shared = shared_groups(PixelValueTransformationSequence=scaling(2, -7))
    np.testing.assert_allclose(values(frames(tmp_path / "a.dcm", shared=shared)), STORED * 2.0 - 7)
    top = frames(tmp_path / "b.dcm", RescaleSlope=2, RescaleIntercept=-7)
    np.testing.assert_allclose(values(top), STORED * 2.0 - 7)
    np.testing.assert_allclose(values(plain(tmp_path / "c", RescaleSlope=3)), STORED * 3.0)
    np.testing.assert_allclose(values(plain(tmp_path / "d", RescaleIntercept=-5)), STORED - 5.0)
    # A frame's own counts more than the one for all.
    both = frames(
        tmp_path / "e.dcm",
        shared=shared,
        each=lambda k: {"PixelValueTransformationSequence": scaling(9, 1)} if k == 2 else {},
    )
    np.testing.assert_allclose(values(both), np.where(K == 2, STORED * 9.0 + 1, STORED * 2.0 - 7))


@pytest.mark.parametrize("encode", [encoded, rle, jpeg_2000, jpeg_lossless])
@pytest.mark.parametrize("stored", [STORED, SIGNED])
def test_monochrome1_is_no_matter_of_values(tmp_path, stored, encode):
    tags = {
        "PhotometricInterpretation": "MONOCHROME1",
        "PixelRepresentation": int(stored is SIGNED),
        "encode": encode,
    }
    folder = plain(tmp_path / "a", stored, RescaleSlope=0.5, RescaleIntercept=3, **tags)
    np.testing.assert_allclose(values(folder), stored * 0.5 + 3)
    file = frames(tmp_path / "a.dcm", stored=stored, **tags)
    np.testing.assert_array_equal(values(file), stored)
    for path in (folder, file):
        assert [remark for remark in remarks(path) if "MONOCHROME1" in remark]


def lut(count, first, bits, data, code="US", signed=False) -> list[pydicom.Dataset]:
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "SS" if signed else "US", [count, first, bits])
    table.add_new("ModalityLUTType", "LO", "US")
    table.add_new("LUTData", code, data)
    return [table]


TABLE = np.random.default_rng(1).integers(0, 60000, 1000)


@pytest.mark.parametrize("encode", [encoded, implicit, jpeg_lossless])
@pytest.mark.parametrize("code", ["US", "OW"])
@pytest.mark.parametrize(("stored", "first"), [(STORED, 100), (SIGNED, -100)])
def test_a_modality_lut(tmp_path, stored, first, code, encode):
    """Values before and after the table have its first and last one."""
    signed = stored is SIGNED
    data = TABLE.tolist() if code == "US" else TABLE.astype("<u2").tobytes()
    folder = plain(
        tmp_path / "a",
        stored,
        PixelRepresentation=int(signed),
        ModalityLUTSequence=lut(1000, first, 16, data, code, signed),
        encode=encode,
    )
    got = values(folder)
    np.testing.assert_array_equal(got, TABLE[np.clip(stored.astype(int) - first, 0, 999)])
    if encode is not jpeg_lossless:
        image = pydicom.dcmread(folder / "7.dcm")
        want = pydicom.pixels.apply_modality_lut(image.pixel_array, image)
        np.testing.assert_array_equal(got[2], want)


@pytest.mark.parametrize("code", ["US", "OW", "packed"])
def test_a_modality_lut_of_bytes(tmp_path, code):
    stored, table = (STORED % 256).astype(np.uint8), TABLE[:256].astype(np.uint8)
    data = table.tolist() if code == "US" else table.tobytes()
    if code == "packed":
        code, data = "US", table.view("<u2").tolist()
    folder = plain(
        tmp_path / "a",
        stored,
        **{"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        ModalityLUTSequence=lut(256, 0, 8, data, code),
    )
    np.testing.assert_array_equal(values(folder), table[stored])


def test_a_modality_lut_of_all_values_and_one_that_is_too_short(tmp_path):
    table = np.random.default_rng(2).integers(0, 2**16, 2**16)
    sequence = lut(0, 0, 16, table.astype("<u2").tobytes(), "OW")
    folder = plain(tmp_path / "a", ModalityLUTSequence=sequence)
    np.testing.assert_array_equal(values(folder), table[STORED])
    short = plain(tmp_path / "b", ModalityLUTSequence=lut(2000, 0, 16, TABLE.tolist()))
    with pytest.raises(MedrlError, match=r"Modality LUT that is shorter than it says"):
        read(short)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("encode", [encoded, rle])
def test_bits_that_are_no_part_of_a_value(tmp_path, signed, encode):
    """Overlays of old, and what was in memory."""
    clean = STORED % 4096
    dirty = (clean | np.random.default_rng(3).integers(0, 16, clean.shape) << 12).astype(np.uint16)
    folder = plain(
        tmp_path / "a",
        dirty,
        **{"BitsStored": 12, "HighBit": 11, "PixelRepresentation": int(signed), "encode": encode},
    )
    want = (clean.astype(int) + 2048) % 4096 - 2048 if signed else clean
    np.testing.assert_array_equal(values(folder), want)
    if encode is encoded:
        one = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "9.dcm")))
        np.testing.assert_array_equal(want[0], one[0])
    other = plain(tmp_path / "b", dirty, BitsStored=12, HighBit=15)
    with pytest.raises(MedrlError, match=r"not in the lowest bits \(BitsStored 12, HighBit 15\)"):
        read(other)


def test_bytes_signed_bytes_and_long_numbers(tmp_path):
    byte = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    stored = (STORED % 256).astype(np.uint8)
    np.testing.assert_array_equal(values(plain(tmp_path / "a", stored, **byte)), stored)
    signed = plain(tmp_path / "b", stored, **byte, PixelRepresentation=1)
    np.testing.assert_array_equal(values(signed), stored.view(np.int8))
    long = {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}
    wide = STORED.astype(np.uint32) * 4000
    np.testing.assert_array_equal(values(plain(tmp_path / "c", wide, **long)), wide)


def test_a_line_that_is_damaged(tmp_path):
    np.testing.assert_array_equal(values(plain(tmp_path / "a", RescaleSlope="")), STORED)
    folder = plain(tmp_path / "b", RescaleSlope=[1, 2])
    with pytest.raises(MedrlError, match=r"what the pixels of \d\.dcm stand for is damaged"):
        read(folder)


def real_world(slope: float, intercept: float) -> list[pydicom.Dataset]:
    return [item(RealWorldValueSlope=slope, RealWorldValueIntercept=intercept)]


def test_real_world_values_are_not_applied_and_that_is_said(tmp_path):
    alone = plain(tmp_path / "a", RealWorldValueMappingSequence=real_world(3.0, 5.0))
    np.testing.assert_array_equal(values(alone), STORED)
    assert [remark for remark in remarks(alone) if "real-world" in remark]
    same = frames(
        tmp_path / "b.dcm",
        each=lambda k: {
            "PixelValueTransformationSequence": scaling(1.5 + k, -10 * k),
            "RealWorldValueMappingSequence": real_world(1.5 + k, -10.0 * k),
        },
    )
    np.testing.assert_allclose(values(same), STORED * (1.5 + K) - 10 * K)
    assert remarks(same) == []


def test_maps_of_real_numbers(tmp_path):
    """A parametric map has no integers."""
    file = frames(tmp_path / "a.dcm", BitsAllocated=32)
    dataset = pydicom.dcmread(file)
    for tag in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, tag)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.30"
    dataset.FloatPixelData = (STORED / 7).astype("<f4").tobytes()
    dataset.save_as(file)
    np.testing.assert_allclose(values(file), STORED / 7, rtol=1e-6)


def test_the_dose_of_a_plan(tmp_path):
    dataset = pydicom.dcmread(frames(tmp_path / "a.dcm", Modality="RTDOSE"))
    del dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence
    kind = "1.2.840.10008.5.1.4.1.1.481.2"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.ImagePositionPatient = place_of(0)[0].ImagePositionPatient
    dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [2, 1.5]
    dataset.GridFrameOffsetVector = [0, 3, 6, 9, 12, 15]
    dataset.DoseGridScaling = "0.001"
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_allclose(values(tmp_path / "a.dcm"), STORED * 1e-3, rtol=1e-6)
    image = sitk.ReadImage(str(tmp_path / "a.dcm"))
    assert (image.GetOrigin(), image.GetSpacing()) == ((-10, -20, 5), (1.5, 2, 3))
    affine = read(tmp_path / "a.dcm").affine
    np.testing.assert_allclose(affine, AFFINE)
    # Beside the scan that was planned on, it is no scan.
    np.testing.assert_array_equal(values(plain(tmp_path / "plan" / "ct").parent), STORED)
    (tmp_path / "a.dcm").rename(tmp_path / "plan" / "dose.dcm")
    np.testing.assert_array_equal(values(tmp_path / "plan"), STORED)


def test_pixels_that_are_missing_or_damaged_are_named(tmp_path):
    folder = plain(tmp_path / "a")
    for encode in ENCODINGS:
        whole = plain(tmp_path / encode.__name__, encode=encode)
        content = (whole / "8.dcm").read_bytes()
        (whole / "8.dcm").write_bytes(content[:-100])
        with pytest.raises(MedrlError, match=r"8\.dcm"):
            read(whole)
    dataset = pydicom.dcmread(folder / "8.dcm")
    del dataset.PixelData
    dataset.save_as(folder / "8.dcm")
    with pytest.raises(MedrlError, match=r"8\.dcm holds no pixels"):
        read(folder)


#: Files of real scanners and archives that come with pydicom: J2K of another sign than its header,
#: JPEG-LS, 12-bit JPEG, big endian, deflated, padded, with overlays.
REAL = (
    *("CT_small", "MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_expb"),
    *("MR_small_implicit", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"),
    *("MR_small_padded", "693_J2KI", "J2K_pixelrep_mismatch", "JPEG-lossy", "JPEG2000"),
    *("JPEGLSNearLossless_08", "JPEGLSNearLossless_16", "JPGExtended", "image_dfl"),
    "examples_overlay",
)


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_values_that_simpleitk_gives_them(name):
    file = Path(pydicom.__file__).parent / "data" / "test_files" / f"{name}.dcm"
    if not file.exists():
        pytest.skip("this pydicom comes without it")
    (image,) = find_images([file]).images
    dataset, stored = PixelReader(file, [file]).read(file)
    values = values_of(dataset, 0).of(stored)
    want = sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO="GDCMImageIO"))
    assert values.shape == want.shape == (1, image.header.Rows, image.header.Columns)
    np.testing.assert_allclose(values, want, atol=1e-6)
