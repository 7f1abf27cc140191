"""Training windows, against the coordinates that are written into the scans they are cut from."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from medrl.errors import MedrlError
from medrl.seednet.data import LabelledGrid
from medrl.seednet.sampling import Sample, Sampler, Sampling
from medrl.seednet.windows import Grid
from medrl.volume.channels import Channel

SIDE = 56
MIDDLE = np.array([26.0, 30.5, 27.0])
#: Nothing but the pose changes.
POSED = Sampling(window=(16, 24, 16), shift=3.0, scanner_probability=0.0, drop_channel=0.0)
STRAIGHT = replace(POSED, rotation_deg=0.0, scaling=0.0, flips=False)
MakeCases = Callable[..., list[LabelledGrid]]


def mapped_case() -> LabelledGrid:
    """An ellipsoid off centre in a scan with four channels: three of coordinates, one its mask."""
    places = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1).astype(np.float32)
    inside = (((places - MIDDLE) / (4.0, 6.5, 5.0)) ** 2).sum(-1) < 1
    # Hounsfield units that come out of the normalisation as coordinates over 100, and as 0 or 1.
    volumes = [torch.from_numpy(40 + 1.5 * places[..., axis]) for axis in range(3)]
    volumes.append(torch.from_numpy(40 + 150.0 * inside).float())
    channels = tuple(Channel(name, "hounsfield") for name in "ijkm")
    grid = Grid(tuple(volumes), channels, np.eye(4))
    return LabelledGrid("map", grid, torch.from_numpy(inside)[None])


def draw(settings: Sampling, count: int, *, seed: int = 0, augment: bool = True) -> Sample:
    generator = Generator().manual_seed(seed)
    return Sampler([mapped_case()], settings, generator).draw(count, augment=augment)


def pose_of(image: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset from voxels of a window, counted from its centre, to voxels of the scan."""
    coordinates = 100 * image[:3].double().numpy()
    shape = coordinates.shape[1:]
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    grid = grid.reshape(-1, 3) - (np.array(shape) - 1) / 2
    columns = np.column_stack([grid, np.ones(len(grid))])
    wanted = coordinates.reshape(3, -1).T
    solution, *_ = np.linalg.lstsq(columns, wanted, rcond=None)
    assert np.abs(columns @ solution - wanted).max() < 0.02
    return solution[:3].T, solution[3]


def test_poses_are_affine_and_within_their_bounds() -> None:
    sample = draw(POSED, 24)
    assert sample.image.shape == (24, 4, 16, 24, 16)
    assert sample.truth.shape == (24, 16, 24, 16)
    flipped, angles, sizes = [], [], []
    for image in sample.image:
        matrix, center = pose_of(image)
        assert np.abs(center - MIDDLE).max() <= POSED.shift + 0.6
        scales = np.linalg.norm(matrix, axis=0)
        limit = 1.5 * POSED.scaling + 0.01
        assert np.abs(np.log(scales)).max() < limit
        turn = matrix / scales
        np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=0.01)
        flipped.append(np.linalg.det(matrix) < 0)
        turn = turn @ np.diag([-1.0 if flipped[-1] else 1.0, 1, 1])
        angles.append(np.degrees(np.arccos((np.trace(turn) - 1) / 2)))
        sizes.append(scales.mean())
    assert 0 < sum(flipped) < 24
    assert 10 < max(angles) < POSED.rotation_deg * np.sqrt(3) + 1
    assert np.std(sizes) > 0.03


def test_image_and_mask_stay_together() -> None:
    sample = draw(POSED, 12)
    seen = sample.image[:, 3] > 0.5
    assert float((seen == sample.truth).float().mean()) > 0.9999
    assert sample.truth.flatten(1).sum(dim=1).min() > 50


def test_simpleitk_cuts_the_same_mask_in_the_same_pose() -> None:
    case = mapped_case()
    source = sitk.GetImageFromArray(case.truth[0].numpy().astype(np.float32).transpose(2, 1, 0))
    sample = draw(POSED, 6, seed=3)
    for image, truth in zip(sample.image, sample.truth, strict=True):
        matrix, center = pose_of(image)
        # A point p of the window lies at matrix (p - middle) + center of the scan.
        middle = (np.array(truth.shape) - 1) / 2
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(matrix.ravel().tolist())
        transform.SetTranslation((center - matrix @ middle).tolist())
        onto = sitk.Image(list(truth.shape), sitk.sitkFloat32)
        cut = sitk.GetArrayFromImage(sitk.Resample(source, onto, transform, sitk.sitkLinear))
        differing = (cut.transpose(2, 1, 0) > 0.5) != truth.numpy()
        assert differing.mean() < 0.002


def test_without_augmentation_windows_are_plain_cuts() -> None:
    sample = draw(POSED, 8, augment=False)
    corners = set()
    for image, truth in zip(sample.image, sample.truth, strict=True):
        corner = np.rint(100 * image[:3, 0, 0, 0].numpy()).astype(int)
        box = tuple(slice(a, a + n) for a, n in zip(corner, truth.shape, strict=True))
        assert torch.equal(truth, mapped_case().truth[0][box])
        coordinates = np.stack(np.mgrid[box])
        np.testing.assert_allclose(100 * image[:3].numpy(), coordinates, atol=0.01)
        corners.add(tuple(corner))
    assert len(corners) > 4


def test_outside_the_scan_there_is_nothing_of_the_object(make_cases: MakeCases) -> None:
    wide = replace(STRAIGHT, window=(40, 40, 40), shift=14.0)
    cases = make_cases(2, shape=(24, 24, 24), noise=0.0)
    sample = Sampler(cases, wide, Generator().manual_seed(0)).draw(10)
    seen = sample.image[:, 0] > 2 / 3
    whole = sample.target == 0
    assert torch.equal(seen[whole], sample.truth[whole])


def test_the_click_is_one_voxel_of_the_object() -> None:
    sample = draw(POSED, 10)
    assert sample.click.dtype == torch.int8
    assert set(sample.click.unique().tolist()) == {-1, 1}
    marked = sample.click == 1
    assert marked.flatten(1).sum(dim=1).tolist() == [1] * 10
    assert bool(sample.truth[marked].all())
    assert len({tuple(place[1:].tolist()) for place in marked.nonzero()}) > 5


def test_every_patient_takes_its_turn_and_targets_their_share(make_cases: MakeCases) -> None:
    cases = make_cases(5, noise=0.0)
    for n, case in enumerate(cases):
        volume = case.grid.volumes[0]
        assert volume is not None
        volume[:] = 40 + 15.0 * n
    sampler = Sampler(cases, STRAIGHT, Generator().manual_seed(0))
    targets = []
    for _ in range(8):
        sample = sampler.draw(5)
        # The scan is constant, so a window's middle tells whose it is.
        whose = (10 * sample.image[:, 0, 8, 12, 8]).round().int().tolist()
        assert sorted(whose) == [0, 1, 2, 3, 4]
        targets += sample.target.tolist()
    # Half of the time the first, otherwise either: three quarters.
    assert 0.55 < np.mean([target == 0 for target in targets]) < 0.92


def test_a_target_that_a_patient_lacks_is_not_asked_for(make_cases: MakeCases) -> None:
    cases = make_cases(1)
    cases[0].truth[0] = False
    sampler = Sampler(cases, STRAIGHT, Generator().manual_seed(0))
    assert sampler.draw(6).target.tolist() == [1] * 6


def test_one_channel_is_dropped_but_never_the_last() -> None:
    case = mapped_case()
    channels = case.grid.channels[:2]
    volumes: tuple[Tensor | None, ...] = case.grid.volumes[1:3]
    both = LabelledGrid("both", Grid(volumes, channels, np.eye(4)), case.truth)
    settings = replace(POSED, drop_channel=1.0)
    seen = Sampler([both], settings, Generator().manual_seed(0)).draw(12).image
    there = seen.flatten(2).any(dim=2)
    assert there.sum(dim=1).tolist() == [1] * 12
    assert there.any(dim=0).all()

    one = LabelledGrid("one", Grid((volumes[0], None), channels, np.eye(4)), case.truth)
    there = Sampler([one], settings, Generator().manual_seed(0)).draw(8).image.flatten(2).any(dim=2)
    assert there.tolist() == [[True, False]] * 8


def test_scanner_effects_change_the_image_only_and_leave_a_missing_one_empty() -> None:
    case = mapped_case()
    volume = torch.rand((SIDE, SIDE, SIDE), generator=Generator().manual_seed(1)) * 90 + 200
    grid = Grid((volume, None), (Channel("MR"), Channel("PET", "suv")), np.eye(4))
    noisy = replace(STRAIGHT, shift=0.0, scanner_probability=1.0)
    cases = [LabelledGrid("x", grid, case.truth)]
    plain = Sampler(cases, replace(noisy, scanner_probability=0.0), Generator().manual_seed(0))
    other = Sampler(cases, noisy, Generator().manual_seed(0))
    before, after = plain.draw(1), other.draw(4)
    assert all(torch.equal(truth, before.truth[0]) for truth in after.truth)
    assert all(not torch.allclose(image, before.image[0], atol=0.01) for image in after.image)
    assert not after.image[:, 1].any()
    assert bool(after.image.isfinite().all())


def test_a_seed_reproduces_windows() -> None:
    noisy = replace(POSED, scanner_probability=0.5, drop_channel=0.5)
    first, again, other = (draw(noisy, 3, seed=seed) for seed in (5, 5, 6))
    for name in ("image", "truth", "target", "click"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.image, other.image)


def test_windows_that_cannot_be_halved_are_refused() -> None:
    for window in ((40, 44, 40), (0, 8, 8), (-8, 8, 8)):
        with pytest.raises(MedrlError, match="multiples of 8"):
            Sampling(window=window)
