"""Pyramids against closed forms: what a Gaussian does to waves, and where a blob lies."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medrl import MedrlError
from medrl.volume.pyramid import Pyramid, build_pyramid
from medrl.volume.space import voxel_to_world

Array = NDArray[np.float64]


def world_grid(affine: Array, shape: tuple[int, ...]) -> Array:
    """World position of every voxel, (I, J, K, 3)."""
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return nib.affines.apply_affine(affine, voxels.astype(float))


def scan_of(array: Array, affine: Array) -> MetaTensor:
    return MetaTensor(torch.from_numpy(array).float()[None], affine=torch.from_numpy(affine))


def grid(spacing: tuple[float, float, float], degrees: tuple[float, float, float]) -> Array:
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return nib.affines.from_matvec(turn @ np.diag(spacing), [-30.0, 44.0, -12.0])


GRIDS = {
    "isotropic": (grid((2, 2, 2), (0, 0, 0)), (60, 64, 56)),
    "nearly straight": (grid((2, 2, 2), (4, -5, 3)), (60, 64, 56)),
    "oblique": (grid((2, 2, 2), (25, -30, 40)), (60, 60, 60)),
    "anisotropic": (grid((1, 1, 3), (0, 0, 0)), (110, 120, 40)),
    "oblique, anisotropic": (grid((0.9, 1.2, 4), (20, 15, -30)), (120, 100, 30)),
    "flipped": (grid((-2, 2, -2), (0, 0, 0)), (60, 64, 56)),
    "permuted, flipped": (grid((1.5, -1.5, 3), (90, 0, 90)), (70, 80, 40)),
}


def check_frame(pyramid: Pyramid) -> None:
    """Levels share voxel 0 and scale from there."""
    for level, spacing, stride, affine in zip(
        pyramid.levels, pyramid.spacings, pyramid.strides, pyramid.affines, strict=True
    ):
        assert level.dtype == torch.float32
        assert level.ndim == 4
        np.testing.assert_allclose(nib.affines.voxel_sizes(affine), spacing, rtol=1e-6)
        np.testing.assert_allclose(
            voxel_to_world([3.0, 5.0, 7.0], affine),
            voxel_to_world(np.array([3.0, 5.0, 7.0]) * stride, pyramid.affines[0]),
            atol=1e-9,
        )


@pytest.mark.parametrize("name", GRIDS)
def test_a_bright_blob_stays_where_it_is(name: str) -> None:
    affine, shape = GRIDS[name]
    center = nib.affines.apply_affine(affine, np.array(shape) * (0.47, 0.55, 0.5)) + 0.37
    distance2 = ((world_grid(affine, shape) - center) ** 2).sum(axis=-1)
    scan = scan_of(100 * np.exp(-distance2 / (2 * 6.0**2)), affine)
    pyramid = build_pyramid(scan, spacings=(2.0, 4.0, 8.0))
    check_frame(pyramid)
    for level, spacing, level_affine in zip(
        pyramid.levels, pyramid.spacings, pyramid.affines, strict=True
    ):
        weight = level[0].numpy().astype(np.float64)
        where = world_grid(level_affine, weight.shape)
        found = (where * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()
        assert np.linalg.norm(found - center) < 0.05 * spacing
        # The same amount of brightness in the world, too.
        want = 100 * (2 * np.pi) ** 1.5 * 6.0**3
        assert weight.sum() * spacing**3 == pytest.approx(want, rel=0.02)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("period", [2.0, 2.5, 3.0, 4.0, 5.0, 9.0, 17.0])
def test_levels_show_the_smoothed_wave_and_no_alias(axis: int, period: float) -> None:
    x = np.arange(96.0)
    wave = 100 + 50 * np.cos(2 * np.pi * x / period)
    view = [1, 1, 1]
    view[axis] = 96
    shape = [40, 40, 40]
    shape[axis] = 96
    scan = scan_of(np.broadcast_to(wave.reshape(view), shape).copy(), np.diag([2.0, 2, 2, 1]))
    pyramid = build_pyramid(scan, spacings=(2.0, 4.0, 8.0))
    np.testing.assert_array_equal(pyramid.levels[0], scan.as_tensor())
    for level, stride in zip(pyramid.levels[1:], pyramid.strides[1:], strict=True):
        others = [slice(12 // stride, 28 // stride)] * 3
        others[axis] = slice(24 // stride, 72 // stride)
        seen = level[0].numpy()[tuple(others)]
        # A Gaussian of sigma = stride / 2 leaves exp(-2 (pi sigma / period)^2) of a wave.
        left = np.exp(-2 * (np.pi * stride / 2 / period) ** 2)
        at = np.arange(24 // stride, 72 // stride) * stride
        want = 100 + 50 * left * np.cos(2 * np.pi * at / period)
        view[axis] = len(want)
        # 3 % of the wave: what the first of two steps lets through folds back in the second.
        assert np.abs(seen - want.reshape(view)).max() < 0.03 * 50
        if period <= stride:
            assert np.abs(seen - 100).max() < 0.03 * 50


@pytest.mark.parametrize("period_mm", [1.6, 2.0])
def test_a_fine_scan_is_smoothed_before_it_is_thinned(period_mm: float) -> None:
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    x = np.arange(80) * 0.5
    wave = 100 + 50 * np.cos(2 * np.pi * x / period_mm)
    array = np.broadcast_to(wave[:, None, None], (80, 80, 80)).copy()
    finest = build_pyramid(scan_of(array, affine), spacings=(2.0, 4.0)).levels[0][0]
    assert np.abs(finest[5:-5, 5:-5, 5:-5].numpy() - 100).max() < 0.02 * 50


@pytest.mark.parametrize("name", GRIDS)
def test_a_flat_scan_stays_flat_inside(name: str) -> None:
    affine, shape = GRIDS[name]
    scan = scan_of(np.full(shape, 7.0), affine)
    pyramid = build_pyramid(scan, spacings=(2.0, 4.0), background=7.0)
    for level in pyramid.levels:
        np.testing.assert_allclose(level.numpy(), 7.0, rtol=1e-5)
    assert pyramid.background == 7.0


def test_a_whole_scan_is_covered() -> None:
    affine, shape = GRIDS["oblique, anisotropic"]
    pyramid = build_pyramid(scan_of(np.ones(shape), affine), spacings=(2.0, 4.0, 8.0))
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    world = nib.affines.apply_affine(affine, corners)
    size = np.array(pyramid.levels[0].shape[1:])
    voxel = nib.affines.apply_affine(np.linalg.inv(pyramid.affines[0]), world)
    assert (voxel > -1).all()
    assert (voxel < size).all()


def test_channels_are_kept_apart() -> None:
    affine, shape = GRIDS["isotropic"]
    array = np.stack([np.full(shape, 1.0), np.full(shape, 5.0)])
    scan = MetaTensor(torch.from_numpy(array).float(), affine=torch.from_numpy(affine))
    pyramid = build_pyramid(scan, spacings=(2.0, 4.0))
    middle = [level[:, 10, 10, 10].tolist() for level in pyramid.levels]
    np.testing.assert_allclose(middle, [[1, 5], [1, 5]], rtol=1e-5)


@pytest.mark.parametrize("spacings", [(2.0, 3.0), (4.0, 2.0), (2.0, 2.0)])
def test_spacings_must_be_multiples(spacings: tuple[float, ...]) -> None:
    affine, shape = GRIDS["isotropic"]
    with pytest.raises(MedrlError):
        build_pyramid(scan_of(np.ones(shape), affine), spacings=spacings)


def test_a_scan_of_kilometres_is_refused() -> None:
    scan = scan_of(np.ones((5, 5, 5)), np.diag([9000.0, 9000.0, 9000.0, 1.0]))
    with pytest.raises(MedrlError, match="memory"):
        build_pyramid(scan)
