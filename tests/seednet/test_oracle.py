"""The oracle against errors whose middle is known, scikit-image's components and brute force."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_components

from medrl.seednet.dynamics import SeedDynamics, SeedState, Windows
from medrl.seednet.geometry import dilate
from medrl.seednet.oracle import oracle_actions, oracle_seed, oracle_seeds

NONE, BACKGROUND, FOREGROUND = -1, 0, 1
SHAPE = (14, 17, 12)


def box(*bounds: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


def blobs(seed: int, share: float = 0.4, smooth: float = 1.2) -> NDArray[np.bool_]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), smooth)
    return noise > np.quantile(noise, 1 - share)


def test_middle_of_what_is_missing_and_of_what_is_too_much() -> None:
    small, large = box((1, 4), (1, 4), (1, 4)), box((5, 12), (6, 13), (2, 9))
    nothing = np.zeros(SHAPE, dtype=bool)
    assert oracle_seed(nothing, small | large) == ((8, 9, 5), FOREGROUND)
    assert oracle_seed(small | large, nothing) == ((8, 9, 5), BACKGROUND)
    assert oracle_seed(large, small) == ((8, 9, 5), BACKGROUND)
    assert oracle_seed(large, small | large) == ((2, 2, 2), FOREGROUND)


def test_no_error_no_seed() -> None:
    truth = blobs(0)
    assert oracle_seed(truth, truth) is None
    everything = np.ones((2, *SHAPE), dtype=bool)
    assert oracle_seed(~truth, truth, forbidden=everything) is None


def test_outside_the_window_counts_as_outside() -> None:
    slab = box((0, 14), (0, 17), (0, 5))
    (i, j, k), label = oracle_seed(np.zeros(SHAPE, dtype=bool), slab) or ((0, 0, 0), NONE)
    assert label == FOREGROUND
    assert k == 2
    assert 2 <= i <= 11
    assert 2 <= j <= 14


def test_missing_and_too_much_are_not_one_error_where_they_touch() -> None:
    truth, mask = box((2, 7), (2, 7), (2, 7)), box((7, 13), (2, 7), (2, 7))
    seed = oracle_seed(mask, truth)
    assert seed is not None
    assert mask[seed[0]]
    assert seed[1] == BACKGROUND


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("barring", [False, True])
def test_against_brute_force(seed: int, barring: bool) -> None:
    """Largest component by scikit-image, depth by the distance to every voxel outside it."""
    mask, truth = blobs(seed), blobs(seed + 100)
    barred = np.zeros((2, *SHAPE), dtype=bool)
    if barring:
        barred = np.stack([blobs(seed + 200, 0.6, 2.5), blobs(seed + 300, 0.6, 2.5)])
    found = oracle_seed(mask, truth, forbidden=barred if barring else None)
    assert found is not None
    voxel, label = found
    assert (mask[voxel], truth[voxel]) == (label == BACKGROUND, label == FOREGROUND)
    assert not barred[label][voxel]

    sizes = {}
    for own, wrong in ((BACKGROUND, mask & ~truth), (FOREGROUND, truth & ~mask)):
        components = label_components(wrong, connectivity=1)
        for number in range(1, components.max() + 1):
            component = components == number
            if (component & ~barred[own]).any():
                sizes[own, number] = int(component.sum())
            if own == label and component[voxel]:
                mine, size = component, int(component.sum())
    assert size == max(sizes.values())
    outside = np.argwhere(~np.pad(mine, 1)) - 1
    inside = np.argwhere(mine & ~barred[label])
    depth = np.linalg.norm(inside[:, None] - outside, axis=-1).min(axis=1)
    assert depth[(inside == voxel).all(axis=1)] == pytest.approx(depth.max())


def test_ties_are_drawn_by_the_generator() -> None:
    beam = box((4, 5), (3, 14), (6, 7))
    nothing = np.zeros(SHAPE, dtype=bool)
    assert oracle_seed(nothing, beam) == ((4, 3, 6), FOREGROUND)

    def draws(seed: int) -> list[Any]:
        generator = torch.Generator().manual_seed(seed)
        return [oracle_seed(nothing, beam, generator=generator) for _ in range(100)]

    assert draws(0) == draws(0)
    assert {voxel[1] for voxel, _ in draws(0)} == set(range(3, 14))


def test_many_windows() -> None:
    mask = torch.from_numpy(np.stack([blobs(n) for n in range(4)]))
    truth = torch.from_numpy(np.stack([blobs(n + 10) for n in range(4)]))
    truth[2] = mask[2]
    barred = torch.zeros((4, 2, *SHAPE), dtype=torch.bool)
    barred[3, :, :, :9] = True
    voxels, labels = oracle_seeds(mask, truth, forbidden=barred)
    assert voxels[2].tolist() == [-1, -1, -1]
    assert int(labels[2]) == NONE
    assert int(voxels[3, 1]) >= 9
    for n in (0, 1, 3):
        expected = oracle_seed(mask[n], truth[n], forbidden=barred[n])
        assert expected == (tuple(voxels[n].tolist()), int(labels[n]))


class Blurred:
    """Stand-in segmenter: a fixed, wrong answer around the seeds."""

    def solve(self, system: Any, seeds: torch.Tensor, **_: Any) -> torch.Tensor:
        return dilate(seeds == FOREGROUND, 3.0).float()


def test_actions_are_allowed_and_lead_to_the_error() -> None:
    truth = torch.from_numpy(np.stack([blobs(n, 0.05, 2.0) for n in range(6)]))
    truth[5] = False
    seeds = torch.full(truth.shape, NONE, dtype=torch.int8)
    for n in range(5):
        i, j, k = truth[n].nonzero()[len(truth) * n]
        seeds[n, i, j, k] = FOREGROUND
    same = type("Same", (), {"select": lambda self, rows: self, "shape": (len(seeds), *SHAPE)})()
    segmenter: Any = Blurred()
    rules = SeedDynamics(segmenter, stride=2, max_seeds=6, exclusion_radius=5.0)
    dynamics = rules.on(Windows(same))
    state: SeedState = dynamics.reset(seeds)
    stop = dynamics.actions(SHAPE) - 1
    taken = []
    for _ in range(6):
        action = oracle_actions(dynamics, state, truth)
        taken.append(action)
        assert dynamics.allowed(state).gather(1, action[:, None]).all()
        assert int(action[5]) == stop
        before = state
        voxel, label = dynamics.place(state, action)
        state = dynamics.step(state, action)
        for n in (action != stop).nonzero()[:, 0].tolist():
            seed = oracle_seed(before.mask[n], truth[n], forbidden=~before.free[n])
            assert seed is not None
            assert seed[1] == int(label[n])
            # The rule inside the cell may choose another voxel than the oracle's.
            assert [x // 2 for x in seed[0]] == (voxel[n] // 2).tolist()
    assert len(set(torch.stack(taken).flatten().tolist())) > 10
