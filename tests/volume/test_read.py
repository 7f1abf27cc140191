"""Reading, checked against SimpleITK and nibabel on changed copies of real scans."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl import MedrlError, read
from medrl.volume.itk import from_sitk, to_sitk
from medrl.volume.read import read_labels, write_nifti
from medrl.volume.space import lps_to_ras, ras_to_lps, voxel_to_world, world_to_voxel

Array = NDArray[np.float64]
FORMATS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


def rotation(degrees: tuple[float, float, float]) -> Array:
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.radians(degrees))
    return np.reshape(transform.GetMatrix(), (3, 3))


def some_voxels(shape: tuple[int, ...]) -> Array:
    """Fractional voxel coordinates in and around a scan."""
    return np.random.default_rng(0).uniform(-3, np.array(shape[-3:]) + 3, (40, 3))


def world_of_sitk(image: sitk.Image, points_voxel: Array) -> Array:
    return np.array(
        [image.TransformContinuousIndexToPhysicalPoint(p) for p in points_voxel.tolist()]
    )


@pytest.fixture(scope="session")
def head(data_root: Path) -> sitk.Image:
    """A real head MRI, thinned to be quick."""
    path = data_root / "afids_templates" / "images" / "MNI305_T1w.nii.gz"
    return sitk.ReadImage(str(path), sitk.sitkFloat32)[::3, ::4, ::5]


def as_is(image: sitk.Image) -> sitk.Image:
    return image


def oblique(image: sitk.Image) -> sitk.Image:
    turned = sitk.Image(image)
    direction = rotation((17, -24, 38)) @ np.reshape(image.GetDirection(), (3, 3))
    turned.SetDirection(direction.ravel().tolist())
    turned.SetOrigin((-71.3, 155.2, -33.9))
    return turned


def anisotropic(image: sitk.Image) -> sitk.Image:
    stretched = oblique(image)
    stretched.SetSpacing((0.7, 1.3, 5.5))
    return stretched


def flipped(image: sitk.Image) -> sitk.Image:
    """Axes permuted, two stored backwards: another handedness, the same place in the world."""
    return sitk.Flip(sitk.PermuteAxes(anisotropic(image), (2, 0, 1)), (True, False, False))


COPIES = (as_is, oblique, anisotropic, flipped)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("copy", COPIES)
def test_every_format_puts_every_point_where_simpleitk_puts_it(
    head: sitk.Image, tmp_path: Path, copy: Callable[[sitk.Image], sitk.Image], suffix: str
) -> None:
    image = copy(head)
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path), useCompression=suffix in (".nrrd", ".mha"))
    scan = read(path)
    assert scan.shape == (1, *image.GetSize())
    assert scan.affine.dtype == torch.float64
    assert scan.meta["filename_or_obj"] == str(path)
    np.testing.assert_allclose(
        scan[0].numpy(), sitk.GetArrayFromImage(image).transpose(2, 1, 0), rtol=1e-6
    )
    voxels = some_voxels(scan.shape)
    world = voxel_to_world(voxels, scan.affine)
    np.testing.assert_allclose(ras_to_lps(world), world_of_sitk(image, voxels), atol=1e-3)
    np.testing.assert_allclose(world_to_voxel(world, scan.affine), voxels, atol=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shear", [0.0, 0.4])
def test_nifti_written_by_nibabel(tmp_path: Path, suffix: str, shear: float) -> None:
    affine = np.eye(4)
    skew = np.array([[1, shear, 0], [0, 1, -shear / 2], [0, 0, 1]])
    affine[:3, :3] = rotation((10, 20, -65)) @ skew @ np.diag([0.5, -2.0, 3.3])
    affine[:3, 3] = 12.5, -80.1, 33.3
    data = np.random.default_rng(1).normal(size=(7, 9, 11)).astype(np.float32)
    path = tmp_path / f"scan{suffix}"
    nib.save(nib.Nifti1Image(data, affine), path)
    scan = read(path)
    np.testing.assert_array_equal(scan[0].numpy(), data)
    voxels = some_voxels(data.shape)
    want = nib.affines.apply_affine(nib.load(path).affine, voxels)
    np.testing.assert_allclose(voxel_to_world(voxels, scan.affine), want, atol=1e-3)
    np.testing.assert_allclose(want, nib.affines.apply_affine(affine, voxels), atol=1e-3)


def test_every_real_nifti_is_where_nibabel_has_it(data_root: Path) -> None:
    folders = ("afids_templates/images", "body_ct_mr", "cranium_ct", "sts_ct_pet/pet")
    paths = [p for f in folders for p in sorted((data_root / f).glob("*.nii.gz"))[:4]]
    assert len(paths) > 8
    for path in paths:
        scan, image = read(path), nib.load(path)
        voxels = some_voxels(scan.shape)
        want = nib.affines.apply_affine(image.affine, voxels)
        np.testing.assert_allclose(voxel_to_world(voxels, scan.affine), want, atol=1e-3)
        np.testing.assert_allclose(
            scan[0].numpy(), image.get_fdata().reshape(scan.shape[1:]), rtol=1e-5, atol=1e-5
        )


def test_real_mha_scans_are_where_simpleitk_has_them(data_root: Path) -> None:
    for path in sorted((data_root / "ct_lung_pair").glob("3DCT*.mha")):
        scan, image = read(path), sitk.ReadImage(str(path))
        voxels = some_voxels(scan.shape)
        world = ras_to_lps(voxel_to_world(voxels, scan.affine))
        np.testing.assert_allclose(world, world_of_sitk(image, voxels), atol=1e-3)
        np.testing.assert_array_equal(
            scan[0].numpy(), sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        )


def test_the_sform_holds_even_where_only_the_qform_fits_the_voxel_size(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), None)
    image.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]), code=1)
    template = np.diag([1.8, 1.9, 2.2, 1.0])
    image.set_sform(template, code=4)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read(tmp_path / "a.nii").affine, template, atol=1e-6)


@pytest.mark.parametrize(("unit", "factor"), [(3, 1e-3), (1, 1e3), (2, 1.0), (0, 1.0)])
def test_nifti_units(tmp_path: Path, unit: int, factor: float) -> None:
    affine = np.diag([3.0, 4.0, 5.0, 1.0])
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), affine)
    image.header["xyzt_units"] = unit
    nib.save(image, tmp_path / "a.nii")
    want = affine * factor
    want[3, 3] = 1
    np.testing.assert_allclose(read(tmp_path / "a.nii").affine, want)


def test_a_nifti_without_orientation_says_so(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), None)
    image.header.set_zooms((1, 2, 3))
    nib.save(image, tmp_path / "a.nii")
    with pytest.warns(UserWarning, match="left and right"):
        scan = read(tmp_path / "a.nii")
    np.testing.assert_allclose(scan.affine, nib.load(tmp_path / "a.nii").affine)
    assert len(scan.meta["remarks"]) == 1


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "pixel", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkUInt16, sitk.sitkInt32, sitk.sitkFloat64]
)
def test_voxel_types(tmp_path: Path, suffix: str, pixel: int) -> None:
    array = np.arange(60).reshape(3, 4, 5)
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.Cast(sitk.GetImageFromArray(array), pixel), str(path))
    np.testing.assert_array_equal(read(path)[0].numpy(), array.transpose(2, 1, 0))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "pixel", [sitk.sitkInt32, sitk.sitkUInt32, sitk.sitkInt64, sitk.sitkUInt64]
)
def test_labels_come_and_go_without_loss(tmp_path: Path, suffix: str, pixel: int) -> None:
    """Ids of the Allen atlas are above what float32 holds exactly."""
    ids = [0, 576073732, 182305713, 614454277, 2**31 - 1]
    ids += [2**32 - 1] if pixel != sitk.sitkInt32 else [-5]
    ids += [2**52 + 1] if pixel in (sitk.sitkInt64, sitk.sitkUInt64) else []
    array = np.resize(ids, (4, 5, 6))
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.Cast(sitk.GetImageFromArray(array), pixel), str(path))
    labels = read_labels(path)
    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(labels[0].numpy(), array.transpose(2, 1, 0))
    write_nifti(tmp_path / "out.nii.gz", labels)
    again = nib.load(tmp_path / "out.nii.gz")
    assert again.get_data_dtype() == (np.int32 if pixel == sitk.sitkInt32 else np.int64)
    np.testing.assert_array_equal(np.asarray(again.dataobj), array.transpose(2, 1, 0))
    by_itk = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.nii.gz")))
    np.testing.assert_array_equal(by_itk, array)


def test_labels_stored_as_numbers_with_a_point(tmp_path: Path) -> None:
    array = np.arange(60).reshape(3, 4, 5)
    for stored in (np.float32, np.float64, np.uint8, np.int16):
        image = nib.Nifti1Image(array.astype(np.float64), np.eye(4))
        image.set_data_dtype(stored)  # nibabel gives whole types a slope
        nib.save(image, tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(read_labels(tmp_path / "a.nii.gz")[0].numpy(), array)
    nib.save(nib.Nifti1Image(array + 0.25, np.eye(4)), tmp_path / "b.nii.gz")
    with pytest.raises(MedrlError, match=r"b\.nii\.gz: holds values that are no whole numbers"):
        read_labels(tmp_path / "b.nii.gz")


def test_labels_that_do_not_fit_a_type_are_not_written(tmp_path: Path) -> None:
    labels = MetaTensor(torch.tensor([[[[0, 256]]]]), affine=torch.eye(4))
    with pytest.raises(MedrlError, match="do not fit uint8"):
        write_nifti(tmp_path / "a.nii.gz", labels, dtype=np.uint8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("big_endian", [False, True])
def test_nifti_scaling_and_byte_order(tmp_path: Path, big_endian: bool) -> None:
    order = ">" if big_endian else "<"
    stored = np.arange(60, dtype=f"{order}i2").reshape(3, 4, 5)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(stored.dtype)
    nib.save(nib.Nifti1Image(stored, np.eye(4), header), tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[112:120] = np.array([0.5, -7], dtype=f"{order}f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_allclose(read(tmp_path / "a.nii")[0].numpy(), stored * 0.5 - 7)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_fourth_axis_becomes_the_channels(tmp_path: Path, suffix: str) -> None:
    times = np.random.default_rng(2).normal(size=(2, 3, 4, 5)).astype(np.float32)  # (T, K, J, I)
    path = tmp_path / f"a{suffix}"
    if suffix == ".nrrd":
        # SimpleITK's NRRD writer has no fourth dimension in space: components instead.
        image = sitk.GetImageFromArray(np.moveaxis(times, 0, -1), isVector=True)
    else:
        image = sitk.JoinSeries([sitk.GetImageFromArray(t) for t in times])
    sitk.WriteImage(image, str(path))
    np.testing.assert_array_equal(read(path).numpy(), times.transpose(0, 3, 2, 1))


def test_vector_components_become_the_channels(tmp_path: Path) -> None:
    array = np.random.default_rng(3).normal(size=(3, 4, 5, 2)).astype(np.float32)
    for suffix in FORMATS:
        path = tmp_path / f"a{suffix}"
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(path))
        np.testing.assert_array_equal(read(path).numpy(), array.transpose(3, 2, 1, 0))


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
    ],
)
def test_nrrd_spaces_and_sheared_axes(
    tmp_path: Path, space: str, signs: tuple[int, int, int]
) -> None:
    directions = np.array([[0.5, 0.1, 0.0], [0.0, 1.5, 0.3], [0.2, 0.0, 3.0]])
    origin = np.array([10.0, -20.0, 30.0])
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    header = {"space": space, "space directions": directions, "space origin": origin}
    nrrd.write(str(tmp_path / "a.nrrd"), data, header)
    scan = read(tmp_path / "a.nrrd")
    voxels = some_voxels(data.shape)
    want = (voxels @ directions + origin) * signs
    np.testing.assert_allclose(voxel_to_world(voxels, scan.affine), want, atol=1e-6)
    np.testing.assert_array_equal(scan[0].numpy(), data)


def test_nrrd_with_its_channels_in_any_place(tmp_path: Path) -> None:
    data = np.random.default_rng(4).normal(size=(3, 4, 5, 2)).astype(np.float32)
    rows = np.vstack([np.diag([1.0, 2.0, 3.0]), np.full(3, np.nan)])
    for place in range(4):
        header = {
            "space": "RAS",
            "space directions": np.insert(rows[:3], place, np.nan, axis=0),
            "space origin": [1, 2, 3],
        }
        nrrd.write(str(tmp_path / "a.nrrd"), np.moveaxis(data, -1, place), header)
        scan = read(tmp_path / "a.nrrd")
        np.testing.assert_array_equal(scan.numpy(), np.moveaxis(data, -1, 0))
        np.testing.assert_allclose(np.diag(scan.affine), [1, 2, 3, 1])


def test_simpleitk_there_and_back(head: sitk.Image, tmp_path: Path) -> None:
    for copy in COPIES:
        image = copy(head)
        scan = from_sitk(image)
        voxels = some_voxels(scan.shape)
        world = ras_to_lps(voxel_to_world(voxels, scan.affine))
        np.testing.assert_allclose(world, world_of_sitk(image, voxels), atol=1e-6)
        back = to_sitk(scan)
        np.testing.assert_allclose(world_of_sitk(back, voxels), world, atol=1e-6)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
        write_nifti(tmp_path / "a.nii.gz", scan)
        again = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
        np.testing.assert_allclose(world_of_sitk(again, voxels), world, atol=1e-3)
    vector = sitk.Compose([image, image * 2])
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(to_sitk(from_sitk(vector))), sitk.GetArrayFromImage(vector)
    )
    with pytest.raises(MedrlError, match="dimensions"):
        from_sitk(image[:, :, 0])


def test_a_sheared_scan_does_not_pass_for_an_itk_image(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.5
    nib.save(nib.Nifti1Image(np.arange(60.0).reshape(3, 4, 5), affine), tmp_path / "a.nii")
    with pytest.raises(MedrlError, match="sheared"):
        to_sitk(read(tmp_path / "a.nii"))


def test_lps_and_ras_are_each_other_s_inverse() -> None:
    points = some_voxels((9, 9, 9))
    np.testing.assert_array_equal(lps_to_ras(ras_to_lps(points)), points)


# DICOM


@pytest.fixture(scope="session")
def series(data_root: Path) -> list[Path]:
    """Seven slices of a real CT series, compressed by JPEG 2000, in no order."""
    files = sorted((data_root / "body_ct_mr" / "example_ct_dicom").iterdir())[:7]
    return [files[k] for k in (3, 0, 6, 1, 5, 2, 4)]


def rewritten(
    series: list[Path], folder: Path, change: Callable[[pydicom.Dataset, int], None]
) -> Path:
    """A copy of the series with changed headers."""
    folder.mkdir()
    for file in series:
        dataset = pydicom.dcmread(file)
        change(dataset, int(dataset.InstanceNumber) - 267)
        dataset.save_as(folder / f"{file.name}.dcm")
    return folder


def by_simpleitk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def place(orientation: Array, spacing: tuple[float, float], step: Array) -> Callable[..., None]:
    def change(dataset: pydicom.Dataset, number: int) -> None:
        dataset.ImageOrientationPatient = orientation[:, :2].T.ravel().round(12).tolist()
        dataset.PixelSpacing = list(spacing)
        dataset.ImagePositionPatient = (np.array([-11, 22, -33]) + number * step).tolist()

    return change


TURNED = rotation((12, -25, 40))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_dicom_series_is_where_simpleitk_has_it(
    series: list[Path], tmp_path: Path, sign: float
) -> None:
    # Rows and columns of different spacing; slices numbered along and against the normal.
    change = place(TURNED, (0.9, 1.4), sign * 3.7 * TURNED[:, 2])
    folder = rewritten(series, tmp_path / "dicom", change)
    scan, image = read(folder), by_simpleitk(folder)
    assert scan.shape == (1, *image.GetSize())
    np.testing.assert_array_equal(scan[0].numpy(), sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    assert scan.min() < -900  # rescaled to HU
    voxels = some_voxels(scan.shape)
    world = ras_to_lps(voxel_to_world(voxels, scan.affine))
    np.testing.assert_allclose(world, world_of_sitk(image, voxels), atol=1e-3)


def test_dicom_with_a_tilted_gantry_keeps_its_shear(series: list[Path], tmp_path: Path) -> None:
    step = np.array([0.0, 0.8, 3.0])
    folder = rewritten(series, tmp_path / "dicom", place(np.eye(3), (1.0, 1.0), step))
    scan = read(folder)
    voxels = some_voxels(scan.shape)
    want = np.array([-11, 22, -33]) + voxels * (1, 1, 0) + voxels[:, 2:] * step
    np.testing.assert_allclose(ras_to_lps(voxel_to_world(voxels, scan.affine)), want, atol=1e-6)


def test_dicom_from_a_zip_or_nested_folders_is_the_same(series: list[Path], tmp_path: Path) -> None:
    nested = tmp_path / "disc" / "ST0" / "SE0"
    nested.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for file in series:
            shutil.copy(file, nested / file.name)
            archive.write(file, f"ST0/SE0/{file.name}")
        archive.writestr("readme.txt", "not DICOM")
    (tmp_path / "disc" / "DICOMDIR").write_bytes(b"x" * 300)
    one, two = read(tmp_path / "disc"), read(tmp_path / "scan.zip")
    np.testing.assert_array_equal(one.numpy(), two.numpy())
    np.testing.assert_array_equal(one.affine, two.affine)
    image = by_simpleitk(nested)
    np.testing.assert_array_equal(one[0].numpy(), sitk.GetArrayFromImage(image).transpose(2, 1, 0))


def test_dicom_copies_of_a_slice_are_read_once(series: list[Path], tmp_path: Path) -> None:
    folder = rewritten(series, tmp_path / "dicom", lambda *_: None)
    want = read(folder)
    shutil.copy(next(folder.iterdir()), folder / "copy.dcm")
    with pytest.warns(UserWarning, match="twice"):
        scan = read(folder)
    np.testing.assert_array_equal(scan.numpy(), want.numpy())


def test_a_series_can_be_chosen(series: list[Path], tmp_path: Path) -> None:
    def other(dataset: pydicom.Dataset, number: int) -> None:
        dataset.SeriesInstanceUID = "1.2.3"
        dataset.ImagePositionPatient = [0, 0, number]

    folder = rewritten(series, tmp_path / "dicom", other)
    for file in series:
        shutil.copy(file, folder)
    assert float(read(folder, series="1.2.3").affine[2, 2]) == pytest.approx(1.0)
    with pytest.raises(MedrlError, match=r"2 DICOM series.*1\.2\.3 \(CT"):
        read(folder)
    with pytest.raises(MedrlError, match=r"no DICOM series 9\.9"):
        read(folder, series="9.9")


def test_rescaling_differs_from_slice_to_slice(tmp_path: Path) -> None:
    """As in PET."""
    stored = np.random.default_rng(5).integers(0, 1000, (4, 6, 5)).astype(np.uint16)
    for k, plane in enumerate(stored):
        plain_slice(plane, k, RescaleSlope=k + 1.5, RescaleIntercept=-3).save_as(
            tmp_path / f"{k}.dcm", enforce_file_format=True
        )
    want = stored * (np.arange(4) + 1.5)[:, None, None] - 3
    np.testing.assert_allclose(read(tmp_path)[0].numpy(), want.transpose(2, 1, 0))


def plain_slice(plane: NDArray[np.uint16], number: int, **tags: object) -> pydicom.Dataset:
    """A minimal uncompressed DICOM slice."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = pydicom.uid.CTImageStorage
    dataset.SOPInstanceUID = f"1.2.{number + 1}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID, dataset.Modality = "1.2.3.4", "CT"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, 2 * number]
    dataset.PixelSpacing = [1, 1]
    dataset.InstanceNumber = number
    for key, value in tags.items():
        setattr(dataset, key, value)
    dataset.PixelData = plane.tobytes()
    return dataset


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_enhanced_multi_frame_file(tmp_path: Path, sign: float) -> None:
    stored = np.random.default_rng(6).integers(0, 1000, (4, 6, 5)).astype(np.uint16)
    dataset = plain_slice(stored[0], 0)
    enhanced = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = enhanced
    for tag in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"):
        delattr(dataset, tag)
    dataset.NumberOfFrames, dataset.PixelData = 4, stored.tobytes()

    def item(**tags: object) -> pydicom.Dataset:
        inner = pydicom.Dataset()
        for key, value in tags.items():
            setattr(inner, key, value)
        return inner

    orientation = TURNED[:, :2].T.ravel().round(12).tolist()
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[
                item(PixelSpacing=[0.9, 1.4], SliceThickness=3, SpacingBetweenSlices=3)
            ],
            PlaneOrientationSequence=[item(ImageOrientationPatient=orientation)],
            PixelValueTransformationSequence=[
                item(RescaleSlope=2, RescaleIntercept=-1000, RescaleType="HU")
            ],
        )
    ]
    first, step = np.array([-11.0, 22, -33]), sign * 3 * TURNED[:, 2]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=(first + k * step).round(9).tolist())]
        )
        for k in range(4)
    ]
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    scan = read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(scan[0].numpy(), stored.transpose(2, 1, 0) * 2.0 - 1000)
    voxels = some_voxels(scan.shape)
    columns = np.stack([TURNED[:, 0] * 1.4, TURNED[:, 1] * 0.9, step], axis=1)
    want = first + voxels @ columns.T
    np.testing.assert_allclose(ras_to_lps(voxel_to_world(voxels, scan.affine)), want, atol=1e-3)


@pytest.mark.parametrize("kind", [pydicom.uid.CTImageStorage, pydicom.uid.MRImageStorage])
def test_slices_that_pydicom_cannot_decode_are_decoded_by_gdcm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    stored = np.random.default_rng(7).integers(0, 1000, (3, 6, 5)).astype(np.uint16)
    for k, plane in enumerate(stored):
        dataset = plain_slice(plane, k, RescaleSlope=2, RescaleIntercept=-9, SOPClassUID=kind)
        dataset.file_meta.MediaStorageSOPClassUID = kind
        dataset.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)

    def missing(self: pydicom.Dataset) -> None:
        raise RuntimeError("Unable to decompress: the required plugins are missing")

    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(missing))
    np.testing.assert_array_equal(read(tmp_path)[0].numpy(), stored.transpose(2, 1, 0) * 2.0 - 9)
