"""NIfTI headers as they are met, against nibabel and ITK: where a scan and its results lie."""

import struct
import warnings
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from numpy.typing import NDArray

from medrl import MedrlError, read
from medrl.data.targets import Target, read_mask
from medrl.volume.grid import on_grid_of
from medrl.volume.read import read_labels, write_nifti
from medrl.volume.resample import move_scan, resample_onto

Array = NDArray[np.float64]
VOXELS = np.random.default_rng(0).integers(0, 99, (6, 7, 8)).astype(np.int16)
PLAIN = np.diag([-2.0, 2.0, 3.0, 1.0])
PLAIN[:3, 3] = 40, -30, 20

#: Offsets in the header of NIfTI-1.
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SLOPE, INTER = 40, 70, 72, 76, 108, 112, 116
UNITS, QFORM_CODE, SFORM_CODE, QUATERN, SROW, MAGIC = 123, 252, 254, 256, 280, 344


def turned(degrees: float = 17.0, shift: tuple[float, ...] = (5, 6, 7)) -> Array:
    matrix = np.eye(4)
    turn = np.radians(degrees)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix[:3, 3] = shift
    return matrix @ PLAIN


def sheared(shear: float = 0.06) -> Array:
    matrix = np.eye(4)
    matrix[0, 1] = shear
    return matrix @ PLAIN


def written(
    path: Path, *, qform: Array = PLAIN, sform: Array = PLAIN, codes: tuple[int, int] = (1, 1)
) -> Path:
    """A NIfTI file with these forms; codes of qform and sform."""
    image = nib.Nifti1Image(VOXELS, None)
    image.set_qform(qform, 1)
    image.set_sform(sform, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    # Set beforehand, nibabel would save others.
    return patched(path, QFORM_CODE, "<2h", *codes)


def patched(path: Path, offset: int, layout: str, *values: object) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(content)
    return path


def by_itk(path: Path) -> Array | None:
    """Voxel to LPS as ITK has it; None if it does not open the file."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


def quietly(path: Path) -> MetaTensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(path)


def check_lies_on(result: Path, scan: Path) -> None:
    """A result lies where its scan does, for nibabel and for ITK, or ITK opens neither."""
    np.testing.assert_allclose(nib.load(result).affine, nib.load(scan).affine, atol=1e-5)
    mine, theirs = by_itk(result), by_itk(scan)
    assert (mine is None) == (theirs is None)
    if mine is not None:
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


# Two forms.


@pytest.mark.parametrize("unit", [0, 1, 2, 3])
def test_results_lie_on_the_scan_whichever_form_a_program_takes(tmp_path: Path, unit: int) -> None:
    forms = ((turned(), PLAIN), (PLAIN, sheared()), (PLAIN, PLAIN))
    for (qform, sform), q, s in product(forms, (0, 1, 2), (0, 1, 2, 4)):
        path = written(tmp_path / "scan.nii", qform=qform, sform=sform, codes=(q, s))
        patched(path, UNITS, "B", unit)
        scan = quietly(path)
        mask = on_grid_of(scan.as_tensor() > 50, scan)
        write_nifti(tmp_path / "mask.nii.gz", mask, dtype=np.uint8)
        check_lies_on(tmp_path / "mask.nii.gz", path)


def test_what_is_resampled_onto_a_scan_lies_on_it(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.nii", qform=turned(), codes=(1, 2))
    fixed = quietly(path)
    for nearest in (False, True):
        write_nifti(tmp_path / "a.nii", move_scan(fixed, np.eye(4), fixed, nearest=nearest))
        check_lies_on(tmp_path / "a.nii", path)
    # Of another grid the header of the scan says nothing.
    moved = on_grid_of(fixed.as_tensor(), fixed)
    moved.affine = torch.from_numpy(turned(30))
    write_nifti(tmp_path / "b.nii", moved)
    np.testing.assert_allclose(nib.load(tmp_path / "b.nii").affine, turned(30), atol=1e-5)
    np.testing.assert_allclose(nib.load(tmp_path / "b.nii").get_qform(), turned(30), atol=1e-5)


def test_monai_takes_two_forms_through_batches(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.nii", qform=turned(), codes=(1, 2))
    one = decollate_batch(list_data_collate([quietly(path), quietly(path)]))[0]
    write_nifti(tmp_path / "a.nii", one)
    check_lies_on(tmp_path / "a.nii", path)


def test_a_disagreement_is_told_in_millimetres(tmp_path: Path) -> None:
    shifted = PLAIN.copy()
    shifted[:3, 3] += (3, 0, 4)
    path = written(tmp_path / "scan.nii", qform=shifted, codes=(1, 2))
    with pytest.warns(UserWarning, match=r"scan\.nii: its sform \(code 2\) and qform \(code 1\)"):
        scan = read(path)
    (remark,) = scan.meta["remarks"]
    assert "disagree by up to 5 mm: the sform was taken" in remark
    np.testing.assert_allclose(scan.affine, PLAIN, atol=1e-5)
    patched(path, UNITS, "B", 3)  # micrometres
    assert "up to 0.005 mm" in quietly(path).meta["remarks"][0]


@pytest.mark.parametrize("degrees", [0, 17, 90, 179.99, 180])
@pytest.mark.parametrize("size", [1.0, 0.02])
def test_forms_that_differ_by_rounding_agree(tmp_path: Path, degrees: float, size: float) -> None:
    form = turned(degrees, (-87.123456, 101.7654321, -33.3333))
    form[:3] *= size
    image = nib.Nifti1Image(np.zeros((40, 300, 300), np.uint8), None)
    image.set_qform(form, 1)
    image.set_sform(form, 2)
    nib.save(image, tmp_path / "a.nii")
    scan = read(tmp_path / "a.nii", allow_constant=True)
    assert scan.meta["remarks"] == ()


def test_one_form_that_is_unsound_is_passed_over(tmp_path: Path) -> None:
    def said(path: Path) -> tuple[Array, str]:
        scan = quietly(path)
        (remark,) = scan.meta["remarks"]
        return scan.affine.numpy(), remark

    both = {"qform": turned(), "sform": PLAIN, "codes": (1, 2)}
    for value, says in ((np.nan, "NaN or infinite"), (0.0, "singular")):
        path = patched(written(tmp_path / "a.nii", **both), SROW, "<12f", *[value] * 12)
        affine, remark = said(path)
        np.testing.assert_allclose(affine, turned(), atol=1e-5)
        assert remark.startswith("its sform")
        assert says in remark
        assert remark.endswith("the qform was taken")
    for value in (2.0, np.nan):
        path = patched(written(tmp_path / "a.nii", **both), QUATERN, "<3f", value, value, 1)
        affine, remark = said(path)
        np.testing.assert_allclose(affine, PLAIN, atol=1e-5)
        assert remark.startswith("its qform is no rotation")
    path = patched(written(tmp_path / "a.nii", **both), PIXDIM + 4, "<f", np.nan)
    affine, remark = said(path)
    np.testing.assert_allclose(affine, PLAIN, atol=1e-5)
    assert "qform has no usable voxel size" in remark


@pytest.mark.parametrize(
    ("codes", "offset", "layout", "values", "says"),
    [
        ((0, 1), SROW, "<f", (np.nan,), "its sform holds numbers that are NaN or infinite"),
        ((0, 1), SROW, "<12f", (0.0,) * 12, "its sform is singular"),
        ((1, 0), QUATERN, "<3f", (2.0, 3.0, 1.0), "its qform is no rotation"),
        ((1, 0), QUATERN + 12, "<f", (np.inf,), "its qform holds numbers that are NaN"),
        ((1, 0), PIXDIM + 4, "<f", (0.0,), "its qform has no usable voxel size"),
        ((0, 0), PIXDIM + 4, "<f", (0.0,), "gives no usable voxel size"),
        ((0, 0), PIXDIM + 8, "<f", (np.nan,), "gives no usable voxel size"),
    ],
)
def test_no_sound_form(
    tmp_path: Path, codes: tuple[int, int], offset: int, layout: str, values: tuple, says: str
) -> None:
    path = patched(written(tmp_path / "a.nii", codes=codes), offset, layout, *values)
    with pytest.raises(MedrlError, match=rf"a\.nii: .*{says}.*; (mend|write) its"):
        read(path)


def test_a_quaternion_that_is_too_long_by_rounding_is_what_itk_takes_it_for(tmp_path: Path) -> None:
    path = patched(written(tmp_path / "a.nii", codes=(1, 0)), QUATERN, "<3f", 0, 0.60001, 0.8)
    want = np.diag([-1, -1, 1, 1]) @ by_itk(path)
    np.testing.assert_allclose(quietly(path).affine, want, atol=1e-3)


@pytest.mark.parametrize("form", [sheared(), np.diag([1.0, 2, 3, 1])])
def test_what_itk_does_with_an_sform_alone_is_told(tmp_path: Path, form: Array) -> None:
    """It refuses a sheared one, and takes the voxel size from pixdim."""
    path = written(tmp_path / "a.nii", sform=form, codes=(0, 2))
    scan = quietly(path)
    np.testing.assert_allclose(scan.affine, nib.load(path).affine)
    itk, remarks = by_itk(path), " ".join(scan.meta["remarks"])
    assert ("ITK and 3D Slicer open neither" in remarks) == (itk is None)
    if itk is not None:
        assert not np.allclose(np.diag(itk)[:3], np.diag(form)[:3])
        assert "voxel size (pixdim 2 x 2 x 3) contradicts its sform (1 x 2 x 3)" in remarks


# What nibabel mends when it loads a file.


@pytest.mark.parametrize(
    ("codes", "offset", "layout", "value"),
    [
        ((1, 0), PIXDIM, "<f", 0.0),
        ((1, 0), PIXDIM, "<f", -1.0),
        ((1, 0), PIXDIM, "<f", 7.0),
        ((1, 0), PIXDIM, "<f", np.nan),
        ((1, 0), PIXDIM + 4, "<f", -1.5),
        ((1, 0), PIXDIM + 12, "<f", -1.5),
        ((0, 0), PIXDIM + 4, "<f", -1.5),
        ((0, 0), PIXDIM + 8, "<f", -1.5),
        ((0, 1), PIXDIM + 4, "<f", -1.5),
        ((0, 1), PIXDIM + 4, "<f", 0.0),
        ((0, 1), PIXDIM + 4, "<f", np.nan),
        ((1, 1), PIXDIM + 16, "<f", np.nan),
        ((1, 9), SFORM_CODE, "<h", 9),
        ((9, 0), QFORM_CODE, "<h", 9),
        ((1, -3), SFORM_CODE, "<h", -3),
        ((1, 5), SFORM_CODE, "<h", 5),
        ((1, 1), 0, "<i", 0),
        ((1, 1), BITPIX, "<h", 8),
        ((1, 1), DIM + 8, "<h", 0),
        ((1, 1), DIM + 8, "<h", -4),
        ((1, 1), SLOPE, "<f", 0.0),
        ((1, 1), SLOPE, "<f", np.nan),
        ((1, 1), SLOPE, "<f", np.inf),
        ((1, 1), SLOPE, "<2f", (0.0, np.nan)),
        ((1, 1), SLOPE, "<2f", (-2.0, 3.0)),
        ((1, 1), UNITS, "B", 0b11000010),
    ],
)
def test_headers_are_mended_as_nibabel_does(
    tmp_path: Path, codes: tuple[int, int], offset: int, layout: str, value: object
) -> None:
    path = written(tmp_path / "a.nii", qform=turned(), codes=codes)
    patched(path, offset, layout, *(value if isinstance(value, tuple) else (value,)))
    scan, want = quietly(path), nib.load(path)
    np.testing.assert_allclose(scan.affine, want.affine, atol=1e-5)
    np.testing.assert_allclose(scan[0].numpy(), want.get_fdata())
    np.testing.assert_array_equal(scan[0].numpy() > 50, want.get_fdata() > 50)


def test_voxels_that_start_at_0_follow_the_header(tmp_path: Path) -> None:
    """As nifti1.h has it; nibabel takes the header for voxels."""
    path = patched(written(tmp_path / "a.nii"), VOX_OFFSET, "<f", 0.0)
    np.testing.assert_array_equal(quietly(path)[0].numpy(), VOXELS)


def test_axes_that_are_not_used_may_be_empty(tmp_path: Path) -> None:
    path = patched(written(tmp_path / "a.nii"), DIM, "<8h", 5, 6, 7, 8, 0, 0, 0, 0)
    assert quietly(path).shape == (1, 6, 7, 8)
    np.testing.assert_array_equal(quietly(path)[0].numpy(), VOXELS)


def test_a_negative_voxel_size_and_an_unknown_code_are_told(tmp_path: Path) -> None:
    path = patched(written(tmp_path / "a.nii", codes=(1, 0)), PIXDIM + 4, "<f", -2.0)
    assert "voxel size is negative (-2 x 2 x 3)" in quietly(path).meta["remarks"][0]
    path = written(tmp_path / "b.nii", codes=(1, 77))
    assert "its sform was passed over: its code 77" in quietly(path).meta["remarks"][0]
    path = patched(written(tmp_path / "c.nii"), UNITS, "B", 5)
    assert "its unit of length (5) is none of NIfTI's" in quietly(path).meta["remarks"][0]


def test_masks_of_a_scan_with_two_forms_lie_where_their_scan_does(tmp_path: Path) -> None:
    """In training, the image and its mask may each have been saved by another program."""
    image = quietly(written(tmp_path / "a.nii", qform=turned(), codes=(1, 2)))
    mask = nib.Nifti1Image((VOXELS > 50).astype(np.uint8), nib.load(tmp_path / "a.nii").affine)
    nib.save(mask, tmp_path / "m.nii.gz")
    found = read_mask(tmp_path / "m.nii.gz", Target("thing"))
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)


def test_labels_on_a_scan_with_two_forms(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", qform=turned(), codes=(1, 2))
    with pytest.warns(UserWarning, match="disagree"):
        labels = read_labels(path)
    write_nifti(tmp_path / "b.nii.gz", labels)
    check_lies_on(tmp_path / "b.nii.gz", path)


def test_a_mask_whose_header_is_rounded_otherwise_is_on_the_same_grid(tmp_path: Path) -> None:
    """Nothing is interpolated: not from float32 rows, not from a quaternion, not in micrometres."""
    for size in (1.0, 0.02):
        form = turned(143.21, (-87.123456, 101.7654321, -33.3333))
        form[:3] *= size
        image = MetaTensor(torch.zeros(1, 6, 7, 8), affine=torch.from_numpy(form))
        for codes in ((0, 1), (1, 0)):
            path = written(tmp_path / "m.nii", qform=form, sform=form, codes=codes)
            labels = quietly(path)
            assert not np.array_equal(labels.affine, form)
            onto = resample_onto(labels, affine=image.affine.numpy(), shape=(6, 7, 8))
            np.testing.assert_array_equal(onto[0].numpy(), VOXELS)
        # Half a voxel off is another grid, however small voxels are.
        form[:3, 3] += 0.5 * form[:3, 0]
        onto = resample_onto(labels, affine=form, shape=(6, 7, 8))
        assert not np.array_equal(onto[0].numpy(), VOXELS)
