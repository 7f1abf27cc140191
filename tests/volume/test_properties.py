"""What holds of any grid: files read back, grids stay in place, memory is that of the scan."""

import sys
import tempfile
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medrl import read
from medrl.volume.points import read_points, write_markups, write_points_csv
from medrl.volume.pyramid import build_pyramid
from medrl.volume.resample import resample_onto, to_closest_axes
from medrl.volume.space import apply_affine, voxel_to_world, world_to_voxel
from medrl.volume.transform_files import read_transform, write_transform

Array = NDArray[np.float64]
SHAPES = st.tuples(*[st.integers(2, 9)] * 3)
TYPES = st.sampled_from(["u1", "i1", ">i2", "<i2", "<u2", ">i4", "<f4", ">f4", "<f8"])


@st.composite
def affines(draw: st.DrawFn) -> Array:
    """Rotated, anisotropic and flipped."""
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-3, 3)] * 3))).as_matrix()
    sizes = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(np.multiply(sizes, signs))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


def voxels(shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[np.generic]:
    values = np.random.default_rng(seed).integers(0, 100, shape)
    values.flat[0] = 101  # no scan is blank
    return values.astype(dtype)


@settings(deadline=None, max_examples=60)
@given(
    shape=SHAPES,
    channels=st.integers(1, 3),
    dtype=TYPES,
    affine=affines(),
    scaling=st.sampled_from([(1, 0), (0.5, -7), (-3, 1e3)]),
    ending=st.sampled_from([".nii", ".nii.gz"]),
    second=st.booleans(),
)
def test_any_nifti_reads_as_nibabel_reads_it(
    shape, channels, dtype, affine, scaling, ending, second
) -> None:
    shape = (*shape, channels) if channels > 1 else shape
    stored = voxels(shape, dtype, 0)
    kind = nib.Nifti2Image if second else nib.Nifti1Image
    header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(stored.dtype)
    header.set_slope_inter(*scaling)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{ending}"
        nib.save(kind(stored, affine, header), path)
        scan, image = read(path), nib.load(path)
        want = image.get_fdata().reshape(*shape[:3], -1)
        np.testing.assert_allclose(np.moveaxis(scan.numpy(), 0, -1), want, rtol=1e-6)
        np.testing.assert_allclose(scan.affine, image.affine, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    shape=SHAPES,
    dtype=st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"]),
    affine=affines(),
    ending=st.sampled_from([".nrrd", ".nhdr", ".mha", ".mhd"]),
    packed=st.booleans(),
    vector=st.booleans(),
)
def test_any_itk_image_reads_as_itk_wrote_it(shape, dtype, affine, ending, packed, vector) -> None:
    array = voxels((*shape, 2) if vector else shape, dtype, 1)
    image = sitk.GetImageFromArray(array, isVector=vector)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{ending}"
        sitk.WriteImage(image, str(path), useCompression=packed)
        scan = read(path)
    stored = np.moveaxis(array, -1, 0) if vector else array[None]
    np.testing.assert_allclose(scan.numpy(), stored.transpose(0, 3, 2, 1), rtol=1e-6)
    corners = np.array(shape[::-1]) * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.3, 0.2, 1]])
    want = [image.TransformContinuousIndexToPhysicalPoint(c) for c in corners.tolist()]
    np.testing.assert_allclose(
        voxel_to_world(corners, scan.affine), np.array(want) * (-1, -1, 1), atol=1e-3
    )


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, dtype=TYPES, encoding=st.sampled_from(["raw", "gzip", "bzip2", "ascii"]))
def test_every_nrrd_encoding(shape, dtype, encoding) -> None:
    stored = voxels(shape, dtype, 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nrrd"
        nrrd.write(str(path), stored, {"encoding": encoding})
        np.testing.assert_allclose(read(path)[0].numpy(), stored, rtol=1e-6)


def ramp(shape: tuple[int, ...], affine: Array, slopes: Array) -> MetaTensor:
    """A scan whose intensities are linear in world space."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    values = apply_affine(affine, grid) @ slopes
    return MetaTensor(torch.from_numpy(values[None]).float(), affine=torch.from_numpy(affine))


@settings(deadline=None, max_examples=30)
@given(shape=SHAPES, affine=affines())
def test_resampling_onto_the_own_grid_changes_nothing(shape, affine) -> None:
    scan = ramp(shape, affine, np.array([1.0, -2.0, 0.5]))
    again = resample_onto(scan, affine=affine, shape=shape)
    np.testing.assert_allclose(again.numpy(), scan.numpy(), atol=1e-2, rtol=1e-4)


@settings(deadline=None, max_examples=30)
@given(shape=SHAPES, affine=affines())
def test_turned_to_the_closest_axes_every_voxel_stays_where_it_is(shape, affine) -> None:
    slopes = np.array([1.0, -2.0, 0.5])
    turned = to_closest_axes(ramp(shape, affine, slopes))
    want = ramp(tuple(turned.shape[1:]), np.asarray(turned.affine), slopes)
    assert sorted(turned.shape[1:]) == sorted(shape)
    np.testing.assert_allclose(turned.numpy(), want.numpy(), atol=1e-2, rtol=1e-4)


@settings(deadline=None, max_examples=20)
@given(affine=affines(), shape=st.tuples(*[st.integers(24, 40)] * 3))
def test_every_level_of_a_pyramid_shows_a_ramp_where_it_is(affine, shape) -> None:
    """Smoothing leaves a linear ramp as it is, away from the faces; so places show as values."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    affine = affine.copy()
    affine[:3, :3] *= 2 / spacing  # the pyramid's finest grid
    slopes = np.array([1.0, -2.0, 0.5])
    pyramid = build_pyramid(ramp(shape, affine, slopes), spacings=(2.0, 4.0))
    for volume, place in zip(pyramid.levels, pyramid.affines, strict=True):
        want = ramp(tuple(volume.shape[1:]), np.asarray(place), slopes).numpy()
        grid = np.stack(np.meshgrid(*map(np.arange, volume.shape[1:]), indexing="ij"), axis=-1)
        own = world_to_voxel(voxel_to_world(grid, np.asarray(place)), affine)
        inner = ((own > 7) & (own < np.array(shape) - 8)).all(axis=-1)
        assert inner.any()
        np.testing.assert_allclose(np.asarray(volume)[0][inner], want[0][inner], atol=0.1)


NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12),
    min_size=1,
    max_size=5,
    unique=True,
)
PLACE = st.tuples(*[st.floats(-1e4, 1e4)] * 3)


@settings(deadline=None, max_examples=60)
@given(names=NAMES, places=st.lists(PLACE, min_size=5, max_size=5))
def test_points_survive_markups_and_tables(names, places) -> None:
    points = dict(zip(names, places, strict=False))
    with tempfile.TemporaryDirectory() as folder:
        write_markups(Path(folder) / "a.mrk.json", points)
        again = read_points(Path(folder) / "a.mrk.json")
        assert list(again) == names
        for name in names:
            np.testing.assert_array_equal(again[name], points[name])
        rows = [dict(zip(("name", "x", "y", "z"), (n, *points[n]), strict=True)) for n in names]
        write_points_csv(Path(folder) / "a.csv", rows)
        table = read_points(Path(folder) / "a.csv")
        assert list(table) == names
        for name in names:
            np.testing.assert_allclose(table[name], points[name], atol=5.1e-5)


@settings(deadline=None, max_examples=40)
@given(affine=affines(), rigid=st.booleans(), ending=st.sampled_from([".tfm", ".txt"]))
def test_transforms_survive_their_files(affine, rigid, ending) -> None:
    if rigid:
        affine = affine.copy()
        left, _, right = np.linalg.svd(affine[:3, :3])
        affine[:3, :3] = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{ending}"
        write_transform(path, affine, kind="rigid" if rigid else "affine")
        np.testing.assert_allclose(read_transform(path), affine, atol=1e-9, rtol=1e-9)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory of the process")
@pytest.mark.parametrize("dtype", ["u1", "i2"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_reading_takes_little_more_memory_than_the_scan(tmp_path: Path, name: str, dtype) -> None:
    """What is read is float32; nothing as large as the file is held besides it."""
    stored = np.random.default_rng(0).integers(0, 100, (192, 192, 192)).astype(dtype)
    if ".nii" in name:
        nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / name)
    else:
        image = sitk.GetImageFromArray(stored)
        sitk.WriteImage(image, str(tmp_path / name), useCompression=True)
    Path("/proc/self/clear_refs").write_text("5")  # the most memory so far is forgotten
    before = _status("VmRSS")
    scan = read(tmp_path / name)
    extra = _status("VmHWM") - before - scan.numel() * 4
    assert extra < 5 * 2**20


def _status(key: str) -> int:
    """Bytes that Linux says of this process."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{key}:")[2].split()[0]) * 1024
