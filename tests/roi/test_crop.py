"""crop against naive slicing, SimpleITK and closed forms, on every back end that runs here."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.roi import cpu, crop, cuda, indexing, table
from medrl.roi.request import check_request
from medrl.volume.pyramid import Pyramid


def pyramid(*shapes, background=0.0, channels=1, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    levels = tuple(torch.rand(channels, *shape, generator=generator) for shape in shapes)
    return Pyramid(
        tuple(level.to(device) for level in levels),
        tuple(2.0**n for n in range(len(shapes))),
        tuple(np.eye(4) for _ in shapes),
        background,
    )


def naive(volume, center, size, background):
    """One window, voxel by voxel."""
    out = np.full((volume.shape[0], *size), background, dtype=np.float32)
    for index in np.ndindex(*size):
        place = tuple(int(c) - s // 2 + i for c, s, i in zip(center, size, index, strict=True))
        if all(0 <= p < n for p, n in zip(place, volume.shape[1:], strict=True)):
            out[(slice(None), *index)] = volume[(slice(None), *place)]
    return out


def by_sitk(volume, center, size, rotation, background):
    """One window, resampled by SimpleITK: array axes (i, j, k) are ITK's (x, y, z)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.numpy().transpose(2, 1, 0)))
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(rotation.ravel().tolist())
    transform.SetTranslation((center - rotation @ (np.array(size) // 2)).tolist())
    window = sitk.Resample(
        image, sitk.Image(size, sitk.sitkFloat32), transform, sitk.sitkLinear, background
    )
    return sitk.GetArrayFromImage(window).transpose(2, 1, 0)


def by_indexing(pyramids, centers, size, *, level=0, scan=None, rotation=None):
    """The plain torch back end, on the CPU."""
    stack = table.stack_of(pyramids)
    request = check_request(stack, centers, size, level=level, scan=scan, rotation=rotation)
    out = torch.empty(len(centers), stack.channels, *request.size)
    indexing.fill(out, stack, request)
    return out


croppers = pytest.mark.parametrize("cropper", [crop, by_indexing])


def mixed_case(count=200, seed=0):
    """Two scans of different shapes and level counts, agents inside, at borders and outside."""
    rng = np.random.default_rng(seed)
    scans = [
        pyramid((9, 12, 8), (5, 6, 4), background=-1.5, channels=2, seed=seed),
        pyramid((14, 5, 21), background=7.0, channels=2, seed=seed + 1),
    ]
    scan = rng.integers(0, 2, count)
    level = rng.integers(0, 2, count) * (1 - scan)
    return scans, scan, level, rng


@croppers
@pytest.mark.parametrize("size", [(5, 5, 5), (4, 3, 7), (1, 1, 1), (20, 2, 25)])
def test_whole_voxel_windows_are_slices(cropper, size):
    scans, scan, level, rng = mixed_case(80)
    centers = rng.integers(-8, 24, (len(scan), 3))
    windows = cropper(scans, centers, size, scan=scan, level=level)
    for n, center in enumerate(centers):
        volume = scans[scan[n]].levels[level[n]].numpy()
        expected = naive(volume, center, size, scans[scan[n]].background)
        np.testing.assert_array_equal(windows[n].numpy(), expected)


@pytest.mark.parametrize("length", [*range(1, 20), 31, 32, 33, 63, 64, 65, 66, 80, 129])
def test_rows_of_any_length_are_moved_whole(length):
    scan = pyramid((9, 8, 70), background=-1.0, channels=2)
    padded = np.pad(scan.levels[0].numpy(), [(0, 0)] + [(150, 150)] * 3, constant_values=-1.0)
    centers = np.random.default_rng(length).integers((-3, -3, -20), (12, 11, 90), (30, 3))
    windows = crop(scan, centers, (3, 4, length)).numpy()
    for window, center in zip(windows, centers, strict=True):
        i, j, k = center + 150 - (1, 2, length // 2)
        np.testing.assert_array_equal(window, padded[:, i : i + 3, j : j + 4, k : k + length])


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    size=st.tuples(*[st.integers(1, 9)] * 3),
    center=st.tuples(*[st.integers(-(2**62), 2**62) | st.integers(-5, 16)] * 3),
    as_float=st.booleans(),
)
def test_any_whole_voxel_window_is_a_slice(shape, size, center, as_float):
    scan = pyramid(shape, background=2.5)
    centers = np.array([center], dtype=np.float64 if as_float else np.int64)
    window = crop(scan, centers, size)[0].numpy()
    np.testing.assert_array_equal(window, naive(scan.levels[0].numpy(), center, size, 2.5))


@croppers
@pytest.mark.parametrize("size", [(5, 5, 5), (6, 3, 4)])
@pytest.mark.parametrize("turned", [False, True])
def test_interpolated_windows_agree_with_simpleitk(cropper, size, turned):
    rng = np.random.default_rng(3)
    scan = pyramid((12, 9, 15), background=-3.0, seed=3)
    centers = rng.uniform(-6, 20, (80, 3))
    centers[:30] = np.round(centers[:30] * 8) / 8 + 1e-3
    rotations = Rotation.random(80, random_state=4).as_matrix() if turned else None
    windows = cropper(scan, centers, size, rotation=rotations)
    for n, center in enumerate(centers):
        turn = rotations[n] if turned else np.eye(3)
        expected = by_sitk(scan.levels[0][0], center, size, turn, -3.0)
        np.testing.assert_allclose(windows[n, 0].numpy(), expected, atol=1e-4)


@croppers
def test_a_scan_ends_half_a_voxel_beyond_its_outermost_centers(cropper):
    scan = pyramid((4, 5, 6), background=9.0)
    volume = scan.levels[0][0]
    centers = np.array([[-0.5, 2, 2], [-0.51, 2, 2], [3.49, 2, 2], [3.5, 2, 2], [1, 4.25, 5.25]])
    expected = [volume[0, 2, 2], 9.0, volume[3, 2, 2], 9.0, volume[1, 4, 5]]
    values = cropper(scan, centers, 1).flatten()
    torch.testing.assert_close(values, torch.tensor(expected), rtol=0, atol=1e-6)
    by_itk = [by_sitk(volume, c, (1, 1, 1), np.eye(3), 9.0).item() for c in centers]
    np.testing.assert_allclose(values.numpy(), by_itk, atol=1e-6)


@croppers
def test_a_linear_ramp_is_interpolated_exactly(cropper):
    i, j, k = np.meshgrid(*map(np.arange, (20, 20, 20)), indexing="ij")
    ramp = torch.from_numpy(2.0 * i - 3.0 * j + 0.5 * k + 1).float()[None]
    scan = Pyramid((ramp,), (1.0,), (np.eye(4),))
    rotation = Rotation.from_euler("zyx", [20, -35, 50], degrees=True).as_matrix()
    center = np.array([9.3, 10.1, 9.7])
    window = cropper(scan, center[None], 7, rotation=rotation[None])[0, 0].numpy()
    offsets = np.stack(np.meshgrid(*[np.arange(7) - 3] * 3, indexing="ij"), axis=-1)
    places = center + offsets @ rotation.T
    np.testing.assert_allclose(window, places @ [2.0, -3.0, 0.5] + 1, atol=1e-4)


@croppers
@pytest.mark.parametrize(("axes", "axis"), [((0, 1), 2), ((1, 2), 0), ((2, 0), 1)])
def test_a_quarter_turn_is_rot90(cropper, axes, axis):
    scan = pyramid((11, 11, 11))
    rotation = Rotation.from_rotvec(np.eye(3)[axis] * np.pi / 2).as_matrix()
    straight = crop(scan, np.array([[5, 5, 5]]), 7)[0, 0].numpy()
    turned = cropper(scan, np.array([[5, 5, 5]]), 7, rotation=rotation)[0, 0].numpy()
    # The content turns the other way round than the window.
    np.testing.assert_allclose(turned, np.rot90(straight, -1, axes), atol=1e-6)


@croppers
def test_far_outside_is_background(cropper):
    scan = pyramid((6, 6, 6), background=-4.0)
    far = np.array([[1e4, 0, 0], [0, -1e30, 0], [0.5, 0.5, 1e300]])
    turn = Rotation.random(random_state=0).as_matrix()
    for rotation in (None, turn):
        assert (cropper(scan, far, 5, rotation=rotation) == -4.0).all()
    assert (cropper(scan, np.array([[2**62, 0, 0], [0, -(2**62), 0]]), 5) == -4.0).all()


def test_whole_centers_in_a_float_batch_are_copied():
    scans, scan, level, rng = mixed_case()
    # A value that interpolation would smear or lose: infinity times a zero weight is no number.
    scans[0].levels[0][0, 4, 4, 4] = torch.inf
    centers = rng.uniform(-4, 16, (len(scan), 3))
    whole = rng.random(len(scan)) < 0.5
    centers[whole] = np.round(centers[whole])
    windows = crop(scans, torch.from_numpy(centers), 5, scan=scan, level=level)
    for n in np.flatnonzero(whole):
        volume = scans[scan[n]].levels[level[n]].numpy()
        expected = naive(volume, centers[n], (5, 5, 5), scans[scan[n]].background)
        np.testing.assert_array_equal(windows[n].numpy(), expected)
    rest = np.flatnonzero(~whole)
    alone = crop(scans, centers[rest], 5, scan=scan[rest], level=level[rest])
    np.testing.assert_array_equal(windows[rest].numpy(), alone.numpy())


def test_non_contiguous_levels_and_inputs():
    volume = torch.rand(8, 9, 2, 12).permute(2, 0, 3, 1)[:, ::2]
    scan = Pyramid((volume,), (1.0,), (np.eye(4),))
    centers = np.asfortranarray(np.random.default_rng(0).integers(0, 8, (20, 3)))
    centers.setflags(write=False)
    windows = crop(scan, centers, (3, 4, 5))
    for n, center in enumerate(centers):
        np.testing.assert_array_equal(windows[n], naive(volume.numpy(), center, (3, 4, 5), 0))
    strided = torch.from_numpy(centers.repeat(2, axis=0))[::2]
    assert torch.equal(crop(scan, strided, (3, 4, 5)), windows)
    sliced = Pyramid((torch.rand(1, 10, 10, 10)[:, 2:, 3:, 1:9],), (1.0,), (np.eye(4),))
    window = crop(sliced, np.array([[4, 4, 4]]), 5)[0]
    assert torch.equal(window, sliced.levels[0][:, 2:7, 2:7, 2:7])


def test_out_is_filled_and_returned():
    scan, centers = pyramid((9, 9, 9)), np.array([[4, 4, 4], [0, 0, 0]])
    out = torch.full((2, 1, 5, 5, 5), torch.nan)
    assert crop(scan, centers, 5, out=out) is out
    assert torch.equal(out, crop(scan, centers, 5))


def test_no_agents_no_windows():
    assert crop(pyramid((9, 9, 9)), np.empty((0, 3)), (3, 4, 5)).shape == (0, 1, 3, 4, 5)


def test_many_threads_of_torch_and_of_python(monkeypatch):
    monkeypatch.setattr(cpu, "_BYTES_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    scans, scan, level, rng = mixed_case()
    centers = rng.integers(-8, 24, (len(scan), 3))
    floats = rng.uniform(-8, 24, (len(scan), 3))
    expected = [by_indexing(scans, c, 5, scan=scan, level=level) for c in (centers, floats)]
    wrong = []

    def work():
        for _ in range(20):
            for given_centers, windows in zip((centers, floats), expected, strict=True):
                found = crop(scans, given_centers, 5, scan=scan, level=level)
                if not torch.allclose(found, windows, rtol=0, atol=1e-6):
                    wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _child(scan, centers, queue):
    queue.put(float(crop(scan, centers, 5).sum()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_crops_too(monkeypatch):
    monkeypatch.setattr(cpu, "_BYTES_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    scan, centers = pyramid((9, 9, 9)), np.full((4, 3), 4)
    expected = float(crop(scan, centers, 5).sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(scan, centers, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(timeout=60)


def test_tables_are_kept_while_pyramids_live_and_then_forgotten():
    scans = [pyramid((6, 6, 6), seed=n) for n in range(3)]
    stack = table.stack_of(scans)
    assert table.stack_of(scans) is stack
    assert table.stack_of(list(scans)) is stack
    before = len(table._stacks)
    del scans, stack
    gc.collect()
    assert len(table._stacks) == before - 1
    for n in range(50):
        single = pyramid((3, 3, 3), seed=n)
        assert crop(single, np.array([[1, 1, 1]]), 1).item() == single.levels[0][0, 1, 1, 1]


SCAN = pyramid((6, 7, 8), (3, 4, 4))
SHALLOW = pyramid((6, 7, 8))
CENTERS = np.full((2, 3), 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((SCAN, np.zeros((2, 2)), 3), {}, "centers_voxel must be of shape"),
        ((SCAN, np.zeros(3), 3), {}, "centers_voxel must be of shape"),
        ((SCAN, np.array([[0, np.nan, 0]]), 3), {}, "centers_voxel must be finite"),
        ((SCAN, np.array([[0, np.inf, 0]]), 3), {}, "centers_voxel must be finite"),
        ((SCAN, np.array([["a", "b", "c"]]), 3), {}, "must hold numbers"),
        ((SCAN, CENTERS, 0), {}, "size must be"),
        ((SCAN, CENTERS, (3, 3)), {}, "size must be"),
        ((SCAN, CENTERS, 2.5), {}, "size must be"),
        ((SCAN, CENTERS, "big"), {}, "size must be"),
        ((SCAN, CENTERS, 3), {"scan": 1}, "scan must be between 0 and 0"),
        ((SCAN, CENTERS, 3), {"scan": np.array([0, -1])}, "scan must be between"),
        ((SCAN, CENTERS, 3), {"scan": np.array([0, 0, 0])}, "scan must be one whole number"),
        ((SCAN, CENTERS, 3), {"level": 2}, "level must be between 0 and 1"),
        ((SCAN, CENTERS, 3), {"level": np.array([0.5, 1.0])}, "level must be one whole number"),
        (([SCAN, SHALLOW], CENTERS, 3), {"scan": 1, "level": 1}, "level 1 does not exist"),
        (
            ([SCAN, SHALLOW], CENTERS, 3),
            {"scan": np.array([0, 1]), "level": np.array([1, 1])},
            "scan 1 has 1 levels",
        ),
        ((SCAN, CENTERS, 3), {"rotation": np.zeros((5, 3, 3))}, "rotation must be of shape"),
        ((SCAN, CENTERS, 3), {"rotation": np.full((3, 3), np.nan)}, "rotation must be finite"),
        ((SCAN, CENTERS, 3), {"out": torch.empty(2, 1, 3, 3)}, "out must be"),
        ((SCAN, CENTERS, 3), {"out": torch.empty(2, 1, 3, 3, 3).double()}, "out must be"),
        ((SCAN, CENTERS, 3), {"out": torch.empty(2, 1, 3, 3, 6)[..., ::2]}, "out must be"),
        (([], CENTERS, 3), {}, "at least one pyramid"),
        (([SCAN, pyramid((5, 5, 5), channels=2)], CENTERS, 3), {}, "same channels and device"),
        ((Pyramid((), (), ()), CENTERS, 3), {}, "no level at all"),
        ((Pyramid((torch.rand(4, 4, 4),), (1.0,), (np.eye(4),)), CENTERS, 3), {}, "float32 tensor"),
        (
            (Pyramid((torch.rand(1, 4, 4, 4).double(),), (1.0,), (np.eye(4),)), CENTERS, 3),
            {},
            "float32 tensor",
        ),
    ],
)
def test_bad_input_is_named(arguments, options, message):
    with pytest.raises(MedrlError, match=message):
        crop(*arguments, **options)


def device_cases(count=60):
    """Copied, mixed and rotated batches with their options."""
    scans, scan, level, rng = mixed_case(count)
    whole = rng.integers(-8, 24, (count, 3))
    mixed = np.where(rng.random((count, 1)) < 0.5, whole, rng.uniform(-8, 24, (count, 3)))
    rotation = Rotation.random(count, random_state=5).as_matrix()
    rows = {"scan": scan, "level": level}
    return scans, [(whole, rows), (mixed, rows), (mixed, {**rows, "rotation": rotation})]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("size", [(5, 5, 5), (4, 3, 17), (25, 25, 25)])
def test_cuda_gives_the_numbers_of_the_cpu(size):
    scans, cases = device_cases()
    on_device = [scan.to("cuda") for scan in scans]
    for centers, options in cases:
        expected = crop(scans, centers, size, **options)
        tensors = {name: torch.from_numpy(value).cuda() for name, value in options.items()}
        found = crop(on_device, torch.from_numpy(centers).cuda(), size, **tensors)
        assert found.device.type == "cuda"
        if centers.dtype == np.int64:
            assert torch.equal(found.cpu(), expected)
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)


TRITON_ON_CPU = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location("test_crop", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
scans, cases = tests.device_cases(16)
for size in ((4, 3, 17), (11, 12, 13)):
    for centers, options in cases:
        stack = tests.table.stack_of(scans)
        options = {"rotation": None, **options}
        request = tests.check_request(stack, centers, size, **options)
        found = torch.full((len(centers), 2, *size), torch.nan)
        tests.cuda.fill(found, stack, request)
        expected = tests.crop(scans, centers, size, **options)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
"""


@pytest.mark.skipif(not cuda.available(), reason="Triton is not installed (CPU build of PyTorch)")
def test_the_triton_kernels_in_tritons_own_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRITON_ON_CPU, __file__],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
