"""Augmented scans: landmarks must stay on their anatomy, here bright blobs."""

import dataclasses
import functools

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

from medrl.data.augment import Augmentation, augment, random_field_of_view
from medrl.volume.augment import rotation_matrix

SHAPE = (72, 64, 56)
#: Six points that no rotation within the settings carries out of the scan.
POINTS = np.array(
    [
        [35.5, 31.5, 27.5],
        [20.3, 31.0, 28.0],
        [51.0, 32.4, 27.0],
        [36.2, 17.7, 26.5],
        [34.0, 46.1, 29.9],
        [36.0, 33.0, 42.2],
    ]
)


@functools.cache
def blobs() -> Tensor:
    """Gaussians of 2 voxels; each is brighter than the one before."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    volume = np.zeros(SHAPE)
    for number, point in enumerate(POINTS):
        volume += (number + 2) * np.exp(-((grid - point) ** 2).sum(-1) / 8)
    return torch.from_numpy(volume).float()[None]


def centroids(volume: Tensor) -> NDArray[np.float64]:
    """Centres of mass of the blobs, in order of brightness."""
    image = volume[0].numpy()
    labels, count = ndimage.label(image > 0.3)
    index = np.arange(1, count + 1)
    order = np.argsort(ndimage.maximum(image, labels, index))
    return np.array(ndimage.center_of_mass(image, labels, index))[order]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**settings: float) -> Augmentation:
    off = {"pose_probability": 0.0, "crop_probability": 0.0, "scanner_probability": 0.0}
    return Augmentation(**(off | settings))


def test_the_blobs_are_found_where_they_were_put() -> None:
    np.testing.assert_allclose(centroids(blobs()), POINTS, atol=0.05)


@pytest.mark.parametrize("seed", range(8))
def test_rotation_and_scaling_carry_landmarks_along(seed: int) -> None:
    before = torch.from_numpy(POINTS).float()
    settings = only(pose_probability=1.0)
    volume, points = augment(blobs(), before, settings, generator(seed))
    assert volume.shape == (1, *SHAPE)
    assert float((points - before).norm(dim=1).max()) > 1
    assert np.linalg.norm(centroids(volume) - points.numpy(), axis=1).max() < 0.3


@pytest.mark.parametrize("seed", range(3))
def test_pose_change_is_what_simpleitk_resamples(seed: int) -> None:
    """The map is taken from the points, the volume is resampled with it by SimpleITK."""
    volume = blobs()
    settings = only(pose_probability=1.0)
    moved, points = augment(volume, torch.from_numpy(POINTS), settings, generator(seed))
    ones = np.ones((len(POINTS), 1))
    old_from_new, *_ = np.linalg.lstsq(np.hstack([points.numpy(), ones]), POINTS, rcond=None)
    transform = sitk.AffineTransform(3)
    # SimpleITK indexes (x, y, z) = (i, j, k); its arrays are stored the other way round.
    transform.SetMatrix(old_from_new[:3].T.ravel().tolist())
    transform.SetTranslation(old_from_new[3].tolist())
    image = sitk.GetImageFromArray(volume[0].numpy().transpose(2, 1, 0))
    expected = sitk.GetArrayFromImage(sitk.Resample(image, image, transform, sitk.sitkLinear))
    inner = np.s_[4:-4, 4:-4, 4:-4]
    difference = moved[0].numpy()[inner] - expected.transpose(2, 1, 0)[inner]
    assert np.abs(difference).max() < 0.01


@pytest.mark.parametrize("seed", range(20))
def test_pose_and_crop_together(seed: int) -> None:
    settings = only(pose_probability=1.0, crop_probability=1.0)
    before = torch.from_numpy(POINTS).float()
    uncut, moved = augment(
        blobs(), before, only(pose_probability=1.0, crop_probability=0.0), generator(seed)
    )
    volume, points = augment(blobs(), before, settings, generator(seed))
    shift = (moved - points)[0]
    torch.testing.assert_close(points, moved - shift)
    i, j, k = shift.round().int().tolist()
    si, sj, sk = volume.shape[1:]
    torch.testing.assert_close(volume, uncut[:, i : i + si, j : j + sj, k : k + sk])
    whole = ((points > 6) & (points < torch.tensor([si, sj, sk]) - 7)).all(dim=1)
    if whole.any():
        found = ndimage.center_of_mass(*_around(volume, points[whole][0]))
        corner = points[whole][0].round().numpy() - 6
        assert np.abs(found + corner - points[whole][0].numpy()).max() < 0.3


def _around(volume: Tensor, point: Tensor) -> tuple[NDArray[np.float32]]:
    i, j, k = (point.round().int() - 6).tolist()
    return (volume[0, i : i + 13, j : j + 13, k : k + 13].numpy(),)


@pytest.mark.parametrize("seed", range(30))
def test_field_of_view_keeps_true_places(seed: int) -> None:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"))
    coordinates = torch.from_numpy(index).float()
    points = torch.from_numpy(POINTS).float()
    volume, moved = random_field_of_view(coordinates, points, generator(seed))
    first = volume[:, 0, 0, 0]
    torch.testing.assert_close(moved, points - first)
    kept = np.array(volume.shape[1:]) / SHAPE
    assert (kept < 1).any()
    assert (kept > 0.4 - 1 / min(SHAPE)).all()
    last = volume[:, -1, -1, -1]
    torch.testing.assert_close(last - first, torch.tensor(volume.shape[1:]).float() - 1)


def test_field_of_view_leaves_some_landmarks_outside() -> None:
    outside = 0
    for seed in range(30):
        volume, points = random_field_of_view(
            blobs(), torch.from_numpy(POINTS).float(), generator(seed)
        )
        outside += int(((points < 0) | (points > torch.tensor(volume.shape[1:]) - 1)).sum())
    assert outside > 20


@pytest.mark.parametrize("size", [5, 8, 13, 17])
def test_small_scans_are_cut_too(size: int) -> None:
    volume = torch.rand((1, size, size, size))
    for seed in range(60):
        cut, _ = random_field_of_view(volume, torch.zeros((1, 3)), generator(seed))
        assert min(cut.shape[1:]) >= min(size, 8)


@pytest.mark.parametrize("seed", range(4))
def test_thick_slices_do_not_move_anatomy(seed: int) -> None:
    settings = only(scanner_probability=1.0, bias=0.0, gamma=0.0, noise=0.0)
    volume, points = augment(blobs(), torch.from_numpy(POINTS), settings, generator(seed))
    assert (points.numpy() == POINTS).all()
    assert float((volume - blobs()).abs().max()) > 0.1
    assert np.abs(centroids(volume) - POINTS).max() < 0.3


def test_scanner_effects_leave_landmarks_and_grid_alone() -> None:
    volume, points = augment(
        blobs(), torch.from_numpy(POINTS), only(scanner_probability=1.0), generator(0)
    )
    assert (points.numpy() == POINTS).all()
    assert volume.shape == (1, *SHAPE)
    assert bool(volume.isfinite().all())
    assert float(volume.min()) >= 0


def test_nothing_switched_on_changes_nothing() -> None:
    volume, points = augment(blobs(), torch.from_numpy(POINTS), only(), generator(0))
    assert torch.equal(volume, blobs())
    assert (points.numpy() == POINTS).all()


def test_unlabelled_landmarks_stay_unlabelled() -> None:
    before = torch.from_numpy(POINTS).float()
    before[2] = torch.nan
    for seed in range(5):
        _, points = augment(blobs(), before, Augmentation(), generator(seed))
        assert points.isnan().any(dim=1).tolist() == [False, False, True, False, False, False]


def test_seeds_reproduce() -> None:
    before = torch.from_numpy(POINTS).float()
    first, again, other = (
        augment(blobs(), before, Augmentation(), generator(s)) for s in (3, 3, 4)
    )
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    assert first[0].shape != other[0].shape or bool((first[0] != other[0]).any())


def test_rotation_matrix_is_scipys() -> None:
    for angles in np.random.default_rng(0).uniform(-np.pi, np.pi, (20, 3)):
        expected = Rotation.from_euler("xyz", angles).as_matrix()
        np.testing.assert_allclose(rotation_matrix(torch.from_numpy(angles)), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_deformed_scans_show_at_a_landmark_what_was_there(seed: int) -> None:
    settings = only(pose_probability=1.0, rotation_deg=10.0, scaling=0.05, deformation=5.0)
    places = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"))
    old = torch.from_numpy(POINTS).float()
    volume, points = augment(torch.from_numpy(places).float(), old, settings, generator(seed))
    shown = [ndimage.map_coordinates(axis.numpy(), points.numpy().T, order=1) for axis in volume]
    np.testing.assert_allclose(np.stack(shown, axis=1), POINTS, atol=0.1)
    rigid = dataclasses.replace(settings, deformation=0.0)
    _, undeformed = augment(blobs(), old, rigid, generator(seed))
    assert (points - undeformed).norm(dim=1).max() > 0.2


def test_blur_is_a_gaussian() -> None:
    settings = only(scanner_probability=1.0, thick_slice=1.0, gamma=0.0, bias=0.0, noise=0.0)
    blurry = dataclasses.replace(settings, blur=2.0)
    points = torch.from_numpy(POINTS).float()
    before, _ = augment(blobs(), points, settings, generator(0))
    volume, after = augment(blobs(), points, blurry, generator(0))
    np.testing.assert_array_equal(after, points)
    fits = [
        float(
            np.abs(
                ndimage.gaussian_filter(before[0].numpy(), s, mode="nearest", truncate=3)
                - volume[0].numpy()
            ).max()
        )
        for s in np.arange(0.1, 2.05, 0.05)
    ]
    assert min(fits) < 0.05 < max(fits)
