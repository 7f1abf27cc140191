"""CropRoi and CropRoid against MONAI's SpatialCrop, nibabel's slicer and SimpleITK."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_obj import set_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from monai.transforms import Compose, Flip, SpatialCrop
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.roi import CropRoi, CropRoid
from medrl.volume.pyramid import Pyramid
from medrl.volume.space import LPS_FROM_RAS, voxel_to_world

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [12, -25, 140], degrees=True).as_matrix() @ np.diag(
    [0.9, -1.1, 2.5]
)
OBLIQUE[:3, 3] = [-31.0, 12.5, 70.25]

TURN = Rotation.from_euler("zyx", [20, -35, 50], degrees=True).as_matrix()


@pytest.fixture
def scan():
    generator = torch.Generator().manual_seed(0)
    affine = torch.from_numpy(OBLIQUE)
    return MetaTensor(torch.rand(1, 14, 12, 10, generator=generator), affine=affine)


def as_sitk(scan):
    """The scan as a SimpleITK image, built by hand from its affine."""
    affine = LPS_FROM_RAS @ scan.affine.numpy()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(scan[0].numpy().transpose(2, 1, 0)))
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def test_an_inner_window_is_spatial_crop_and_nibabel_slicer(scan):
    window = CropRoi((5, 4, 3))(scan, [7, 6, 5])
    theirs = SpatialCrop(roi_center=[7, 6, 5], roi_size=[5, 4, 3])(scan)
    assert torch.equal(window.as_tensor(), theirs.as_tensor())
    torch.testing.assert_close(window.affine, theirs.affine)
    sliced = nib.Nifti1Image(scan[0].numpy(), OBLIQUE).slicer[5:10, 4:8, 4:7]
    np.testing.assert_allclose(window.affine.numpy(), sliced.affine, atol=1e-12)
    np.testing.assert_array_equal(window[0].numpy(), sliced.get_fdata(dtype=np.float32))


def test_its_inverse_is_that_of_spatial_crop(scan):
    mine, theirs = CropRoi((5, 4, 3)), SpatialCrop(roi_center=[7, 6, 5], roi_size=[5, 4, 3])
    back = mine.inverse(mine(scan, [7, 6, 5]))
    expected = theirs.inverse(theirs(scan))
    assert torch.equal(back.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(back.affine, scan.affine, rtol=0, atol=1e-12)
    assert back.applied_operations == []


@pytest.mark.parametrize("center", [[0, 11, 5], [-3, 2, 9], [40, 0, 0]])
def test_a_window_at_the_border_is_padded_and_put_back(scan, center):
    cropper = CropRoi(7, background=-2.0)
    window = cropper(scan, center)
    assert window.shape == (1, 7, 7, 7)
    start = np.array(center) - 3
    corner = voxel_to_world(start, OBLIQUE)
    np.testing.assert_allclose(window.affine.numpy()[:3, 3], corner, atol=1e-10)
    back = cropper.inverse(window).as_tensor()
    seen = torch.zeros(scan.shape, dtype=torch.bool)
    low = np.maximum(start, 0)
    high = np.maximum(start + 7, 0)
    seen[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    assert torch.equal(back, torch.where(seen, scan.as_tensor(), -2.0))


@pytest.mark.parametrize("rotation", [None, TURN])
def test_a_resampled_window_lies_where_simpleitk_says(scan, rotation):
    center = voxel_to_world([6.3, 5.8, 4.1], OBLIQUE)
    window = CropRoi((7, 6, 5), space="world", background=-1.0)(scan, center, rotation=rotation)
    affine = window.affine.numpy()
    np.testing.assert_allclose(voxel_to_world([3, 3, 2], affine), center, atol=1e-9)
    # SimpleITK holds no sheared grids: sample its image at the world point of every voxel.
    image = as_sitk(scan)
    for index in np.ndindex(7, 6, 5):
        point = (voxel_to_world(index, affine) * (-1, -1, 1)).tolist()
        voxel = np.array(image.TransformPhysicalPointToContinuousIndex(point))
        inside = ((voxel >= -0.5) & (voxel < np.array(image.GetSize()) - 0.5)).all()
        expected = -1.0
        if inside:
            expected = image.EvaluateAtPhysicalPoint(point, sitk.sitkLinear)
        assert float(window[(0, *index)]) == pytest.approx(expected, abs=1e-4)


def test_the_inverse_of_a_rotated_window_restores_a_smooth_scan():
    i, j, k = np.meshgrid(*map(np.arange, (24, 22, 20)), indexing="ij")
    ramp = torch.from_numpy(0.5 * i - 0.25 * j + 0.75 * k).float()[None]
    scan = MetaTensor(ramp, affine=torch.from_numpy(OBLIQUE))
    cropper = CropRoi(11, background=-100.0)
    window = cropper(scan, [11.4, 10.2, 9.9], rotation=TURN)
    back = cropper.inverse(window)
    assert back.shape == scan.shape
    np.testing.assert_allclose(back.affine.numpy(), OBLIQUE, atol=1e-9)
    # Voxels at least a voxel within the window are interpolated between true values.
    places = np.stack([i, j, k], axis=-1) - [11.4, 10.2, 9.9]
    within = (abs(places @ TURN) <= 4).all(axis=-1)
    assert within.sum() > 400
    np.testing.assert_allclose(back[0].numpy()[within], ramp[0].numpy()[within], atol=1e-4)
    outside = (abs(places @ TURN) > 6).any(axis=-1)
    assert (back[0].numpy()[outside] == -100.0).all()


def test_world_centers_on_voxels_are_copied(scan):
    center = voxel_to_world([7, 6, 5], OBLIQUE)
    window = CropRoi((5, 4, 3), space="world")(scan, center)
    assert torch.equal(window.as_tensor(), scan.as_tensor()[:, 5:10, 4:8, 4:7])


def test_whole_voxels_keeps_masks_masks(scan):
    mask = MetaTensor((scan.as_tensor() > 0.5).to(torch.uint8), affine=scan.affine)
    window = CropRoi(5, whole_voxels=True)(mask, [6.4, 5.6, 5.2])
    assert torch.equal(window.as_tensor(), mask.as_tensor()[:, 4:9, 4:9, 3:8].float())
    np.testing.assert_allclose(
        voxel_to_world([2, 2, 2], window.affine.numpy()), voxel_to_world([6, 6, 5], OBLIQUE)
    )


def test_levels_of_a_pyramid_have_their_own_affine(scan):
    coarse = OBLIQUE.copy()
    coarse[:3, :3] *= 2
    levels = (scan.as_tensor(), scan.as_tensor()[:, ::2, ::2, ::2].contiguous())
    pyramid = Pyramid(levels, (1.0, 2.0), (OBLIQUE, coarse), background=-5.0)
    world = voxel_to_world([8, 6, 4], OBLIQUE)
    cropper = CropRoi(3, space="world")
    for level, start in ((0, (7, 5, 3)), (1, (3, 2, 1))):
        window = cropper(pyramid, world, level=level)
        slices = tuple(slice(s, s + 3) for s in start)
        assert torch.equal(window.as_tensor(), levels[level][(slice(None), *slices)])
        middle = voxel_to_world([1, 1, 1], window.affine.numpy())
        np.testing.assert_allclose(middle, world, atol=1e-9)
        back = cropper.inverse(window)
        assert back.shape == levels[level].shape
        assert back[0, 0, 0, 0] == -5.0


def test_dictionary_version_composes_collates_and_inverts(scan):
    mask = MetaTensor((scan.as_tensor() > 0.5).float(), affine=scan.affine)
    transform = Compose([CropRoid(["image", "mask"], 5, center="point")])
    points = ([7, 6, 5], [0, 0, 0])
    samples = [transform({"image": scan, "mask": mask, "point": np.array(p)}) for p in points]
    batch = list_data_collate(samples)
    assert batch["image"].shape == (2, 1, 5, 5, 5)
    for sample, point in zip(decollate_batch(batch), points, strict=True):
        back = transform.inverse(sample)
        alone = CropRoi(5, center=point)
        expected = alone.inverse(alone(scan))
        assert torch.equal(back["image"].as_tensor(), expected.as_tensor())
        np.testing.assert_allclose(back["mask"].affine.numpy(), OBLIQUE, atol=1e-10)


def test_it_composes_with_other_invertible_transforms(scan):
    chain = Compose([Flip(0), CropRoi(5, center=[6, 5, 4]), Flip(2)])
    back = chain.inverse(chain(scan))
    torch.testing.assert_close(back.affine, scan.affine, rtol=0, atol=1e-9)
    expected = torch.zeros_like(scan.as_tensor())
    expected[:, 5:10, 3:8, 2:7] = scan.as_tensor()[:, 5:10, 3:8, 2:7]
    assert torch.equal(back.as_tensor(), expected)


def test_rotation_from_the_dictionary_and_missing_keys(scan):
    transform = CropRoid(
        ["image", "other"], 5, center=[6, 6, 5], rotation="turn", allow_missing_keys=True
    )
    result = transform({"image": scan, "turn": TURN})
    expected = CropRoi(5)(scan, [6, 6, 5], rotation=TURN)
    assert torch.equal(result["image"].as_tensor(), expected.as_tensor())
    assert "other" not in result


def test_plain_tensors_and_tracking_switched_off(scan):
    window = CropRoi(5)(scan.as_tensor(), [6, 6, 5])
    np.testing.assert_array_equal(window.affine.numpy()[:3, 3], [4, 4, 3])
    set_track_meta(False)
    try:
        plain = CropRoi(5)(scan, [6, 6, 5])
    finally:
        set_track_meta(True)
    assert not isinstance(plain, MetaTensor)
    assert torch.equal(plain, window.as_tensor())


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda scan: CropRoi(5)(scan), "needs a center"),
        (lambda scan: CropRoi(5)(scan, [1, 2]), "center must be"),
        (lambda scan: CropRoi(5)(scan, [1, 2, np.nan]), "center must be"),
        (lambda scan: CropRoi(5, space="mm"), "space must be"),
        (lambda scan: CropRoi(0), "size must be"),
        (lambda scan: CropRoi(5)(scan, [1, 2, 3], level=1), "level 0 only"),
        (lambda scan: CropRoi(5)(scan[0], [1, 2, 3]), "must be \\(C, I, J, K\\)"),
        (lambda scan: CropRoi(5)(scan, [1, 2, 3], rotation=np.eye(2)), "rotation must be"),
    ],
)
def test_bad_input_is_named(scan, act, message):
    with pytest.raises(MedrlError, match=message):
        act(scan)


def test_what_cannot_be_put_back_is_named(scan):
    cropper = CropRoi(5)
    window = cropper(scan, [6, 6, 5])
    with pytest.raises(MedrlError, match="only a window of size"):
        cropper.inverse(window[:, :4])
    flat = cropper(scan, [6, 6, 5], rotation=np.diag([1.0, 1.0, 0.0]))
    with pytest.raises(MedrlError, match="singular"):
        cropper.inverse(flat)
