"""Every bad scan ends in one clear line that names the file, and nothing else is said."""

import gzip
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from medrl import MedrlError, read
from medrl.volume.read import write_nifti

GOOD = np.random.default_rng(0).integers(0, 900, (12, 13, 14)).astype(np.int16)


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Read a file that must be refused, and check how."""

    def check(path: Path, says: str) -> None:
        with pytest.raises(MedrlError, match=says) as caught:
            read(path)
        line = str(caught.value)
        assert str(path) in line
        assert "\n" not in line
        assert len(line) < 400 + len(str(path))
        out, err = capfd.readouterr()
        assert (out, err) == ("", "")

    return check


def nifti(path: Path, data: NDArray[np.generic] = GOOD, affine: object = None) -> Path:
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def image(path: Path, data: NDArray[np.generic] = GOOD, *, packed: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(data), str(path), useCompression=packed)
    return path


def patched(path: Path, offset: int, layout: str, *values: float) -> Path:
    """The file with some bytes of its header replaced."""
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(content)
    return path


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


def halved(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


ENDINGS = ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "a.zip", "a.dcm")


@pytest.mark.parametrize("name", [*ENDINGS, "a", "a.txt"])
def test_missing(tmp_path: Path, refused: Callable[..., None], name: str) -> None:
    refused(tmp_path / name, "no such file")


@pytest.mark.parametrize("name", [*ENDINGS, "a", "a.txt"])
def test_empty(tmp_path: Path, refused: Callable[..., None], name: str) -> None:
    (tmp_path / name).touch()
    refused(tmp_path / name, "empty")


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("content", [b"hello, this is no image", os.urandom(4000), b"\x00" * 4000])
def test_not_an_image(
    tmp_path: Path, refused: Callable[..., None], name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "is not a|cannot be read|damaged|no DICOM")


@pytest.mark.parametrize("name", ["a.jpg", "a.json", "a", "a.gz", "a.img"])
def test_unknown_format(tmp_path: Path, refused: Callable[..., None], name: str) -> None:
    (tmp_path / name).write_bytes(b"something" * 99)
    refused(tmp_path / name, "unknown format; medrl reads .nii")


def test_a_gzip_of_something_else(tmp_path: Path, refused: Callable[..., None]) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"something" * 99))
    refused(tmp_path / "a.nii.gz", "is not a NIfTI")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_truncated_nifti(tmp_path: Path, refused: Callable[..., None], name: str) -> None:
    refused(halved(nifti(tmp_path / name)), "truncated")
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    refused(tmp_path / name, "truncated|damaged")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_truncated_nrrd_and_metaimage(
    tmp_path: Path, refused: Callable[..., None], name: str, packed: bool
) -> None:
    refused(halved(image(tmp_path / name, packed=packed)), "truncated")
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:80])
    refused(tmp_path / name, "truncated|damaged|no end|lacks")


@pytest.mark.parametrize("packed", [False, True])
def test_truncated_or_missing_voxels_of_a_header(
    tmp_path: Path, refused: Callable[..., None], packed: bool
) -> None:
    for name in ("a.mhd", "b.nhdr"):
        path = image(tmp_path / name, packed=packed)
        (voxels,) = set(tmp_path.glob(f"{path.stem}.*")) - {path}
        halved(voxels)
        refused(path, "truncated")
        voxels.unlink()
        refused(path, "not there")


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_damaged_compression(tmp_path: Path, refused: Callable[..., None], name: str) -> None:
    path = image(tmp_path / name, packed=True)
    content = bytearray(path.read_bytes())
    content[-3000:-2000] = bytes(1000)
    path.write_bytes(content)
    refused(path, "truncated|damaged")


# A header that declares far more than the file holds; nothing of that size may be allocated.


def test_giant_nifti(tmp_path: Path, refused: Callable[..., None]) -> None:
    path = patched(nifti(tmp_path / "a.nii"), 42, "<3h", 1200, 1200, 1200)
    refused(path, "truncated or has a wrong header")
    refused(patched(path, 42, "<3h", 32767, 32767, 32767), "more than fits")
    refused(patched(path, 42, "<3h", -5, 10, 10), "impossible grid")
    refused(patched(path, 40, "<h", 77), "NIfTI header is damaged")


def test_giant_gzipped_nifti(tmp_path: Path, refused: Callable[..., None]) -> None:
    path = patched(nifti(tmp_path / "a.nii"), 42, "<3h", 1200, 1200, 1200)
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    refused(packed, "truncated or has a wrong header")


@pytest.mark.parametrize("packed", [False, True])
def test_giant_nrrd_and_metaimage(
    tmp_path: Path, refused: Callable[..., None], packed: bool
) -> None:
    for size, says in ((b"1200 1200 1200", "wrong header"), (b"99999 99999 99999", "than fits")):
        path = image(tmp_path / "a.nrrd", packed=packed)
        refused(replaced(path, b"sizes: 14 13 12", b"sizes: " + size), says)
        path = image(tmp_path / "a.mha", packed=packed)
        refused(replaced(path, b"DimSize = 14 13 12", b"DimSize = " + size), says)


# Voxels that are no intensities.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_not_finite(tmp_path: Path, refused: Callable[..., None], name: str, value: float) -> None:
    data = GOOD.astype(np.float32)
    data[3, 4, 5:7] = value
    path = nifti(tmp_path / name, data) if ".nii" in name else image(tmp_path / name, data)
    refused(path, "2 of its 2184 voxels are NaN or infinite")


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_blank(tmp_path: Path, refused: Callable[..., None], name: str, value: int) -> None:
    data = np.full_like(GOOD, value)
    path = nifti(tmp_path / name, data) if ".nii" in name else image(tmp_path / name, data)
    refused(path, "blank")
    assert float(read(path, allow_constant=True).max()) == value


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_2d(tmp_path: Path, refused: Callable[..., None], name: str) -> None:
    refused(image(tmp_path / name, GOOD[0]), "2D")
    refused(image(tmp_path / name, GOOD[:1]), "2D")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_colour(tmp_path: Path, refused: Callable[..., None], name: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    path = tmp_path / name
    if name == "a.nii.gz":
        nifti(path, rgb.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0])
    elif name == "a.nrrd":
        nrrd.write(str(path), np.moveaxis(rgb, -1, 0), {"kinds": ["RGB-color", *["domain"] * 3]})
    else:
        sitk.WriteImage(sitk.GetImageFromArray(rgb, isVector=True), str(path))
    refused(path, "RGB|colour")


def test_complex(tmp_path: Path, refused: Callable[..., None]) -> None:
    refused(nifti(tmp_path / "a.nii", GOOD.astype(np.complex64)), "complex")


def test_five_dimensions(tmp_path: Path, refused: Callable[..., None]) -> None:
    refused(nifti(tmp_path / "a.nii", np.ones((4, 4, 4, 2, 2))), "5 dimensions")
    refused(patched(nifti(tmp_path / "b.nii"), 70, "<h", 9999), "unknown voxel type")


# Geometry that is none.


def test_singular_affine(tmp_path: Path, refused: Callable[..., None]) -> None:
    flat = np.diag([1.0, 1.0, 0.0, 1.0])
    path = nifti(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<12f", content, 280, *flat[:3].ravel())  # srow_x to srow_z
    path.write_bytes(content)
    refused(path, "singular")
    refused(patched(path, 280, "<f", float("nan")), "finite")
    header = {"space": "RAS", "space directions": flat[:3, :3], "space origin": [0, 0, 0]}
    nrrd.write(str(tmp_path / "a.nrrd"), GOOD, header)
    refused(tmp_path / "a.nrrd", "singular")
    path = image(tmp_path / "a.mha")
    matrix = b"TransformMatrix = 1 0 0 0 1 0 0 0 "
    refused(replaced(path, matrix + b"1", matrix + b"0"), "singular")
    path = image(tmp_path / "b.mha")
    refused(replaced(path, b"ElementSpacing = 1", b"ElementSpacing = 0"), "voxel size")


def test_no_voxel_size(tmp_path: Path, refused: Callable[..., None]) -> None:
    path = nifti(tmp_path / "a.nii")
    patched(path, 254, "<h", 0)  # sform_code
    refused(patched(path, 80, "<f", 0.0), "no usable voxel size")


def test_half_of_a_pair(tmp_path: Path, refused: Callable[..., None]) -> None:
    nib.save(nib.Nifti1Pair(GOOD, np.eye(4)), tmp_path / "a.hdr")
    (tmp_path / "a.hdr").rename(tmp_path / "a.nii")
    refused(tmp_path / "a.nii", "pair")


# Files and folders of other kinds.


def test_special_files(tmp_path: Path, refused: Callable[..., None]) -> None:
    os.mkfifo(tmp_path / "a.nii")
    refused(tmp_path / "a.nii", "not a regular file")


def test_a_folder_without_dicom(tmp_path: Path, refused: Callable[..., None]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(folder, "no DICOM images")
    nifti(folder / "a.nii")
    (folder / "notes.txt").write_text("x")
    refused(folder, "no DICOM images")


def test_bad_zips(tmp_path: Path, refused: Callable[..., None]) -> None:
    path = tmp_path / "a.zip"
    for name in ("../evil.dcm", "/evil.dcm", "a/../../evil.dcm", "C:/evil.dcm", "..\\evil.dcm"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
        refused(path, "unsafe")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", b"x")
    refused(path, "no DICOM images")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", os.urandom(9999))
    halved(path)
    refused(path, "damaged zip")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


def test_a_zip_that_would_fill_the_disk(
    tmp_path: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medrl.volume._archive.MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(1001))
    refused(tmp_path / "a.zip", "too much")


# DICOM series that are not one whole volume.


@pytest.fixture
def series(data_root: Path, tmp_path: Path) -> Path:
    """A writable copy of six slices of a real CT."""
    folder = tmp_path / "dicom"
    folder.mkdir()
    for file in sorted((data_root / "body_ct_mr" / "example_ct_dicom").iterdir())[:6]:
        (folder / file.name[-3:]).write_bytes(file.read_bytes())
    return folder


def edit(file: Path, **tags: object) -> None:
    dataset = pydicom.dcmread(file)
    for key, value in tags.items():
        if value is None:
            delattr(dataset, key)
        else:
            setattr(dataset, key, value)
    dataset.save_as(file)


def test_bad_dicom(series: Path, refused: Callable[..., None]) -> None:
    files = sorted(series.iterdir())
    position = list(pydicom.dcmread(files[2]).ImagePositionPatient)
    whole = files[2].read_bytes()
    for tags, says in [
        ({"ImagePositionPatient": [*position[:2], position[2] + 2], "SOPInstanceUID": "1.2"},
         "where another lies"),
        ({"ImagePositionPatient": [*position[:2], position[2] + 0.7]}, "unevenly spaced"),
        ({"ImagePositionPatient": [position[0] + 5, *position[1:]]}, "unevenly spaced"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"PixelSpacing": None}, "no PixelSpacing"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "size or orientation"),
        ({"PixelSpacing": [1, 1]}, "size or orientation"),
        ({"Rows": 256}, "size or orientation"),
        ({"PhotometricInterpretation": "RGB"}, "colour"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "1 slices are missing"),
        ({"SeriesInstanceUID": "1.2.3"}, "2 DICOM series"),
        ({"NumberOfFrames": 3}, "multi-frame"),
    ]:  # fmt: skip
        edit(files[2], **tags)
        refused(series, says)
        files[2].write_bytes(whole)
    files[2].unlink()
    refused(series, "1 slices are missing")
    files[2].write_bytes(whole[: len(whole) // 2])
    refused(series, "truncated|damaged")
    files[2].write_bytes(whole[:400])
    refused(series, "missing|truncated|damaged")


def test_one_dicom_slice(series: Path, refused: Callable[..., None]) -> None:
    file = next(series.iterdir())
    refused(file, "2D image .one DICOM slice")
    for other in series.iterdir():
        if other != file:
            other.unlink()
    refused(series, "2D image .one DICOM slice")


def test_giant_dicom(series: Path, refused: Callable[..., None]) -> None:
    for file in series.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.decompress()
        dataset.Rows = dataset.Columns = 65535
        dataset.save_as(file)
    with pytest.raises(MedrlError, match="truncated or has a wrong header"):
        read(series)


# Writing.


def test_writing_to_the_wrong_place(tmp_path: Path) -> None:
    scan = read(nifti(tmp_path / "a.nii"))
    with pytest.raises(MedrlError, match=r"must end in \.nii"):
        write_nifti(tmp_path / "out.mha", scan)
    with pytest.raises(MedrlError, match="no folder"):
        write_nifti(tmp_path / "missing" / "out.nii.gz", scan)
    (tmp_path / "taken.nii").mkdir()
    with pytest.raises(MedrlError, match=r"cannot write .*taken\.nii"):
        write_nifti(tmp_path / "taken.nii", scan)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii", "taken.nii"]
