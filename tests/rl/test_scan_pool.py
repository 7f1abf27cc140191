"""The scans that training agents walk in."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medrl.data.augment import Augmentation
from medrl.landmark.data import LabelledScan
from medrl.rl.scan_pool import ScanPool

SPACINGS = (2.0, 4.0)


def labelled(number: int) -> LabelledScan:
    """A scan with one blob on a landmark, and one landmark that is not labelled."""
    shape = (40 + number, 36, 32)
    point = np.array([18.0 + number, 20.0, 15.0])
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    volume = 100 * np.exp(-((grid - point) ** 2).sum(-1) / 18)
    points = np.stack([point, np.full(3, np.nan)])
    return LabelledScan(
        f"scan {number}", torch.from_numpy(volume).float()[None], torch.from_numpy(points).float()
    )


def build(*, slots: int, seed: int = 0, **settings: float) -> ScanPool:
    still = {"pose_probability": 0.0, "crop_probability": 0.0, "scanner_probability": 0.0}
    return ScanPool(
        [labelled(number) for number in range(4)],
        slots=slots,
        spacings=SPACINGS,
        augmentation=Augmentation(**(still | settings)),
        generator=torch.Generator().manual_seed(seed),
    )


def test_every_slot_holds_a_scan_with_its_landmarks() -> None:
    pool = build(slots=6, pose_probability=1.0, crop_probability=0.5)
    assert len(pool.pyramids) == 6
    for slot, pyramid in enumerate(pool.pyramids):
        assert pyramid.spacings == SPACINGS
        assert pool.shapes[slot].tolist() == list(pyramid.levels[0].shape[1:])
        assert pool.points[slot].isnan().any(dim=1).tolist() == [False, True]
        point = pool.points[slot, 0].numpy()
        fine = pyramid.levels[0][0].numpy()
        if ((point < 10) | (point > np.array(fine.shape) - 11)).any():
            continue
        bright = np.where(fine > 0.3 * fine.max(), fine, 0)
        assert np.linalg.norm(ndimage.center_of_mass(bright) - point) < 0.3


def test_intensities_are_normalised() -> None:
    for pyramid in build(slots=4, scanner_probability=1.0).pyramids:
        assert float(pyramid.levels[0].min()) >= 0
        assert 0.9 < float(pyramid.levels[0].max()) <= 1.5


def test_scans_take_turns() -> None:
    pool = build(slots=8)
    sizes = pool.shapes[:, 0].tolist()
    assert sorted(sizes[:4]) == sorted(sizes[4:]) == [40, 41, 42, 43]


def test_refresh_replaces_the_oldest_slot() -> None:
    pool = build(slots=3)
    assert pool.versions.tolist() == [0, 0, 0]
    kept = pool.pyramids[1]
    pool.refresh()
    assert pool.versions.tolist() == [1, 0, 0]
    assert pool.pyramids[1] is kept
    for _ in range(3):
        pool.refresh()
    assert pool.versions.tolist() == [2, 1, 1]
    assert [list(p.levels[0].shape[1:]) for p in pool.pyramids] == pool.shapes.tolist()


@pytest.mark.parametrize("refreshes", [0, 5])
def test_seeds_reproduce(refreshes: int) -> None:
    pools = [
        build(slots=3, seed=seed, pose_probability=1.0, scanner_probability=0.5)
        for seed in (1, 1, 2)
    ]
    for pool in pools:
        for _ in range(refreshes):
            pool.refresh()
    one, same, other = pools
    assert torch.equal(one.points[:, 0], same.points[:, 0])
    assert not torch.equal(one.points[:, 0], other.points[:, 0])
    for a, b in zip(one.pyramids, same.pyramids, strict=True):
        assert torch.equal(a.levels[0], b.levels[0])
