"""Boxes: against counted voxels, SimpleITK's label statistics, nibabel's slicer, closed forms."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel import Nifti1Image
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.volume.boxes import (
    box_of_mask,
    box_of_scan,
    crop_to_box,
    cut_to_scan,
    iou,
    wall_distances,
)
from medrl.volume.read import read, write_nifti
from medrl.volume.space import box_corners, voxel_to_world, voxels_in_box

#: Straight grids: flipped, permuted, anisotropic.
STRAIGHT = {
    "RAS": np.diag([1.0, 1, 1, 1]),
    "LPS, anisotropic": np.diag([-0.8, -1.5, 3.0, 1]),
    "PSR": np.array([[0, 0, 2.0, -30], [-2, 0, 0, 40], [0, 2, 0, 7], [0, 0, 0, 1]]),
}
SHAPE = (12, 10, 9)


def oblique() -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag([1.0, 2.0, 0.7])
    affine[:3, 3] = (5, -7, 11)
    return affine


def scan_of(affine: np.ndarray, values=None, **meta) -> MetaTensor:
    if values is None:
        values = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    return MetaTensor(torch.from_numpy(values)[None], affine=torch.from_numpy(affine), meta=meta)


def labels(affine: np.ndarray) -> MetaTensor:
    values = np.zeros(SHAPE, dtype=np.int64)
    values[2:5, 3:9, 4:6] = 3
    values[4, 1, 7] = 8
    return scan_of(affine, values)


def test_iou_and_walls_are_those_of_voxels_that_are_counted() -> None:
    """Of boxes whose faces lie between the voxels of a grid of 1 mm."""
    rng = np.random.default_rng(1)
    grid = np.diag([1.0, 1, 1, 1])
    boxes = np.sort(rng.integers(0, 12, (20, 2, 3)), axis=1) + np.array([[-0.5] * 3, [0.5] * 3])
    inside = np.stack([voxels_in_box(box, grid, (12, 12, 12)) for box in boxes])
    both = (inside[:, None] & inside[None]).sum(axis=(2, 3, 4))
    either = (inside[:, None] | inside[None]).sum(axis=(2, 3, 4))
    np.testing.assert_allclose(iou(boxes[:, None], boxes[None]), both / either, atol=1e-12)
    walls = wall_distances(boxes[:, None], boxes)
    assert walls.shape == (20, 20)
    assert walls[3, 5] == pytest.approx(np.mean([abs(boxes[3] - boxes[5])]))
    a, b = [[0, 0, 0], [2, 2, 2]], [[1, 0, 0], [3, 2, 2]]
    assert (iou(a, b), wall_distances(a, b)) == (pytest.approx(1 / 3), pytest.approx(2 / 6))
    assert (iou(a, [[5, 5, 5], [6, 6, 6]]), iou([[0] * 3] * 2, [[0] * 3] * 2)) == (0, 0)


@pytest.mark.parametrize("name", STRAIGHT)
def test_the_box_of_a_mask_is_itk_s(name: str) -> None:
    """The bounding box of SimpleITK's label statistics, to the outer faces of its voxels."""
    mask = labels(STRAIGHT[name])
    image = sitk.GetImageFromArray(mask[0].numpy().transpose(2, 1, 0).astype(np.uint8))
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(image)
    for label in (3, 8):
        start, size = np.reshape(statistics.GetBoundingBox(label), (2, 3))
        ends = voxel_to_world(box_corners(start - 0.5, start + size - 0.5), mask.affine)
        want = [ends.min(axis=0), ends.max(axis=0)]
        found = box_of_mask(mask, label)
        np.testing.assert_allclose(found, want, atol=1e-12)
        np.testing.assert_allclose(found, box_of_mask(mask, (label,)), atol=1e-12)
    assert box_of_mask(mask, 7) is None
    np.testing.assert_allclose(
        box_of_mask(mask, {3, 8}),
        [
            np.minimum(box_of_mask(mask, 3)[0], box_of_mask(mask, 8)[0]),
            np.maximum(box_of_mask(mask, 3)[1], box_of_mask(mask, 8)[1]),
        ],
    )


def test_the_box_of_an_oblique_mask_holds_all_corners_of_its_voxels() -> None:
    mask = labels(oblique())
    mask[0, 3, 7, 2] = 3
    voxels = np.argwhere(mask[0].numpy() == 3)
    corners = voxels[:, None] + box_corners(np.full(3, -0.5), np.full(3, 0.5))
    world = voxel_to_world(corners.reshape(-1, 3), oblique())
    np.testing.assert_allclose(
        box_of_mask(mask, 3), [world.min(axis=0), world.max(axis=0)], atol=1e-12
    )


@pytest.mark.parametrize("name", STRAIGHT)
def test_a_scan_is_cut_as_nibabel_cuts_it(name: str, tmp_path) -> None:
    """To the box of a mask: exactly its voxels, and where they were; also in a file."""
    affine = STRAIGHT[name]
    scan = scan_of(affine, filename_or_obj="a.nii.gz", remarks=("odd",), dicom=1, nifti={})
    box = box_of_mask(labels(affine), 3)
    cut = crop_to_box(scan, box)
    want = Nifti1Image(scan[0].numpy(), affine).slicer[2:5, 3:9, 4:6]
    assert cut.dtype == scan.dtype
    np.testing.assert_array_equal(cut[0].numpy(), np.asarray(want.dataobj))
    np.testing.assert_allclose(cut.affine.numpy(), want.affine, atol=1e-12)
    np.testing.assert_allclose(box_of_scan(cut.affine, cut.shape), box, atol=1e-12)
    assert (cut.meta["filename_or_obj"], cut.meta["remarks"]) == ("a.nii.gz", ("odd",))
    assert not {"dicom", "nifti"} & set(cut.meta)
    write_nifti(tmp_path / "cut.nii.gz", cut)
    back = read(tmp_path / "cut.nii.gz")
    np.testing.assert_allclose(back.affine.numpy(), want.affine, atol=1e-5)
    np.testing.assert_array_equal(back[0].numpy(), cut[0].numpy())
    cut[:] = 0
    assert scan.any()  # a copy


def test_margins_take_the_voxels_that_they_touch() -> None:
    scan = scan_of(np.diag([2.0, 1, 1, 1]))
    box = [[3, 2.5, 2.5], [5, 4.5, 4.5]]  # just voxel 2, rows 3 and 4
    assert crop_to_box(scan, box).shape[1:] == (1, 2, 2)
    assert crop_to_box(scan, box, 0.1).shape[1:] == (3, 4, 4)
    assert crop_to_box(scan, box, 2.0).shape[1:] == (3, 6, 6)
    assert crop_to_box(scan, box, 1000.0).shape[1:] == SHAPE
    assert crop_to_box(scan, box, -0.9).shape[1:] == (1, 2, 2)


def test_an_oblique_scan_loses_no_voxel_of_the_box() -> None:
    affine = oblique()
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    scan = scan_of(affine, values)
    box = np.stack([voxel_to_world((5, 4, 4), affine) - 2.5, voxel_to_world((5, 4, 4), affine) + 2])
    cut = crop_to_box(scan, box)
    inside = values[voxels_in_box(box, affine, SHAPE)]
    assert len(inside)
    assert np.isin(inside, cut.numpy()).all()
    assert cut.numel() < scan.numel()
    shape = tuple(cut.shape[1:])
    np.testing.assert_array_equal(cut[0][voxels_in_box(box, cut.affine, shape)], inside)


def test_a_box_is_cut_to_the_scan() -> None:
    affine = STRAIGHT["LPS, anisotropic"]
    whole = box_of_scan(affine, SHAPE)
    np.testing.assert_allclose(whole, [[-9.2, -14.25, -1.5], [0.4, 0.75, 25.5]])
    cut = cut_to_scan([[-5, -100, 3], [100, 100, 4]], affine, SHAPE)
    np.testing.assert_allclose(cut, [[-5, -14.25, 3], [0.4, 0.75, 4]])
    assert cut_to_scan([[0.5, 0, 0], [2, 1, 1]], affine, SHAPE) is None


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([[100, 0, 0], [110, 5, 5]], r"outside the scan, which covers \(-0.5, -0.5, -0.5\) to"),
        ([[5, 5, 5], [1, 9, 9]], "inverted or flat"),
        ([[1, 1, 1], [1, 9, 9]], "inverted or flat"),
        ([[0, 0, np.nan], [1, 1, 1]], "not finite"),
        ([0, 0, 0, 1, 1, 1], "not two corners"),
        ("box", "not numbers"),
    ],
)
def test_bad_boxes(box, message: str) -> None:
    with pytest.raises(MedrlError, match=message) as told:
        crop_to_box(scan_of(STRAIGHT["RAS"]), box)
    assert len(str(told.value).splitlines()) == 1
