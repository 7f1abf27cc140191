"""What a file is, is said by its content, not by its name."""

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medrl import MedrlError, read
from medrl.volume.read import read_labels

VOXELS = np.random.default_rng(0).integers(0, 900, (8, 9, 10)).astype(np.int16)
NAMES = ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.zip", "a.dcm", "a.gz", "a.img", "a")


def nifti(folder: Path) -> bytes:
    nib.save(nib.Nifti1Image(VOXELS, np.diag([2.0, 3, 4, 1])), folder / "made.nii")
    return (folder / "made.nii").read_bytes()


def second(folder: Path) -> bytes:
    nib.save(nib.Nifti2Image(VOXELS, np.diag([2.0, 3, 4, 1])), folder / "made.nii")
    return (folder / "made.nii").read_bytes()


def by_itk(folder: Path, suffix: str) -> bytes:
    sitk.WriteImage(
        sitk.GetImageFromArray(VOXELS.transpose(2, 1, 0)), str(folder / f"made{suffix}")
    )
    return (folder / f"made{suffix}").read_bytes()


READABLE: dict[str, Callable[[Path], bytes]] = {
    "nifti": nifti,
    "nifti2": second,
    "gzipped": lambda folder: gzip.compress(nifti(folder)),
    "twice": lambda folder: gzip.compress(gzip.compress(nifti(folder))),
    "members": lambda folder: b"".join(
        gzip.compress(nifti(folder)[at : at + 500]) for at in range(0, 2000, 500)
    ),
    "padded": lambda folder: gzip.compress(nifti(folder)) + bytes(512),
    "nrrd": lambda folder: by_itk(folder, ".nrrd"),
    "metaimage": lambda folder: by_itk(folder, ".mha"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", READABLE)
def test_any_scan_under_any_name(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(READABLE[kind](tmp_path))
    scan = read(tmp_path / name)
    np.testing.assert_array_equal(scan[0].numpy(), VOXELS)
    assert not [remark for remark in scan.meta["remarks"] if "gzip" in remark]


@pytest.mark.parametrize("name", NAMES)
def test_dicom_under_any_name(data_root: Path, tmp_path: Path, name: str) -> None:
    slices = sorted((data_root / "body_ct_mr" / "example_ct_dicom").iterdir())[:3]
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for file in slices:
            archive.write(file, file.name)
    assert read(tmp_path / name).shape[-1] == 3
    (tmp_path / name).write_bytes(slices[0].read_bytes())
    with pytest.raises(MedrlError, match=r"2D image .one DICOM slice"):
        read(tmp_path / name)


@pytest.mark.parametrize("kind", READABLE)
@pytest.mark.parametrize("name", ["a.zip", "a.nii.gz"])
def test_a_zip_of_something_else_is_named(tmp_path: Path, kind: str, name: str) -> None:
    content = READABLE[kind](tmp_path)
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("notes.txt", b"x" * 300)
        archive.writestr("scan", content)
    with pytest.raises(MedrlError, match=r"is a zip file with \w+ in it; unpack it first"):
        read(tmp_path / name)


def test_bytes_after_a_gzip_stream_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti(tmp_path)) + b"junk" * 9)
    with pytest.warns(UserWarning, match=r"a\.nii\.gz: bytes that follow its gzip stream"):
        scan = read(path)
    np.testing.assert_array_equal(scan[0].numpy(), VOXELS)
    np.testing.assert_array_equal(
        scan[0].numpy(), sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0)
    )
    # One byte, which could be the first of another stream, too.
    path.write_bytes(gzip.compress(nifti(tmp_path)) + b"\x1f")
    with pytest.warns(UserWarning, match="bytes that follow"):
        read_labels(path)


def test_bytes_after_the_voxels_are_told(tmp_path: Path) -> None:
    for name, packed in (("a.nii", False), ("a.nii.gz", True)):
        content = nifti(tmp_path) + b"more"
        (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
        with pytest.warns(UserWarning, match="more bytes than its header declares"):
            scan = read(tmp_path / name)
        np.testing.assert_array_equal(scan[0].numpy(), VOXELS)


def tar(folder: Path) -> bytes:
    nifti(folder)
    with tarfile.open(folder / "made.tar", "w") as archive:
        archive.add(folder / "made.nii", "made.nii")
    return (folder / "made.tar").read_bytes()


def numpy(folder: Path) -> bytes:
    np.save(folder / "made.npy", VOXELS)
    return (folder / "made.npy").read_bytes()


def mgh(folder: Path) -> bytes:
    nib.save(nib.MGHImage(VOXELS.astype(np.float32), np.eye(4)), folder / "made.mgh")
    return (folder / "made.mgh").read_bytes()


def tiff(folder: Path) -> bytes:
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.astype(np.uint16)), str(folder / "made.tif"))
    return (folder / "made.tif").read_bytes()


def hdf5(folder: Path) -> bytes:
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(folder / "made.h5"))
    return (folder / "made.h5").read_bytes()


def analyze(folder: Path) -> bytes:
    nib.save(nib.AnalyzeImage(VOXELS, np.eye(4)), folder / "made.hdr")
    return (folder / "made.hdr").read_bytes()


def pair(folder: Path) -> bytes:
    nib.save(nib.Nifti1Pair(VOXELS, np.eye(4)), folder / "made.hdr")
    return (folder / "made.hdr").read_bytes()


OTHERS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "bzip2": (lambda folder: bz2.compress(nifti(folder)), "compressed by bzip2; unpack it"),
    "xz": (lambda folder: lzma.compress(nifti(folder)), "compressed by xz; unpack it"),
    "zstd": (lambda _: b"\x28\xb5\x2f\xfd" + os.urandom(99), "compressed by Zstandard; unpack it"),
    "tar": (tar, "a tar archive; unpack it"),
    "tar.gz": (lambda folder: gzip.compress(tar(folder)), "a tar archive; unpack it"),
    "numpy": (numpy, "a NumPy array"),
    "mgh": (mgh, "a FreeSurfer .mgh file; convert it to NIfTI with mri_convert"),
    "mgz": (lambda folder: gzip.compress(mgh(folder)), "a FreeSurfer .mgh file; convert it"),
    "tiff": (tiff, "a TIFF picture"),
    "hdf5": (hdf5, "an HDF5 file"),
    "page": (lambda _: b"\n<!DOCTYPE html><html>404</html>", "a web page, not the scan"),
    "lfs": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
    "annex": (lambda _: b"/annex/objects/MD5E-s1--1.nii.gz\n", "run `git annex get`"),
    "analyze": (analyze, "is an Analyze header"),
    "pair": (pair, "only the header of an .hdr/.img pair"),
    "nrrd.gz": (lambda folder: gzip.compress(by_itk(folder, ".nrrd")), "NRRD that is gzipped"),
    "mha.gz": (lambda folder: gzip.compress(by_itk(folder, ".mha")), "MetaImage that is gzipped"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.dcm", "a"])
def test_what_else_a_file_is_is_named(tmp_path: Path, kind: str, name: str) -> None:
    make, says = OTHERS[kind]
    (tmp_path / name).write_bytes(make(tmp_path))
    with pytest.raises(MedrlError, match=says) as caught:
        read(tmp_path / name)
    line = str(caught.value)
    assert line.startswith(str(tmp_path / name))
    assert "\n" not in line


def test_gzip_that_is_damaged_or_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    whole = gzip.compress(nifti(tmp_path))
    for content, says in (
        (whole[:8], "truncated"),
        (whole[:60], "truncated"),
        (whole[:-4], "truncated: its gzip stream has no end"),
        (whole[:200] + bytes(50) + whole[250:], "damaged|truncated"),
        (whole[:-8] + b"abcd" + whole[-4:], "damaged"),
        (whole[:3] + b"\xff" * 30, "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(MedrlError, match=says) as caught:
            read(path)
        assert str(path) in str(caught.value)
    for _ in range(4):
        whole = gzip.compress(whole)
    path.write_bytes(whole)
    with pytest.raises(MedrlError, match="gzipped 4 times or more; unpack it first"):
        read(path)


def test_a_deflated_slice_is_no_gzip(tmp_path: Path) -> None:
    """DICOM's own compression begins after its header."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = pydicom.uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.save_as(tmp_path / "a.nii", enforce_file_format=True)
    with pytest.raises(MedrlError, match="DICOM"):
        read(tmp_path / "a.nii")
