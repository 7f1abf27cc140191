"""Rewards against scikit-learn's scores, SciPy's morphology and values worked out by hand."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import f1_score, jaccard_score

from medrl.errors import MedrlError
from medrl.seednet.rewards import (
    STRONG_BACKGROUND,
    STRONG_FOREGROUND,
    WEAK_BACKGROUND,
    WEAK_FOREGROUND,
    RewardSettings,
    dice,
    exponential_iou,
    iou,
    seed_regions,
    seed_rewards,
)

NONE, BACKGROUND, FOREGROUND = -1, 0, 1
SHAPE = (12, 15, 10)


def blobs(seed: int, share: float = 0.4) -> NDArray[np.bool_]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.5)
    return noise > np.quantile(noise, 1 - share)


def masks(count: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([blobs(seed + n, 0.2 + 0.05 * n) for n in range(count)]))


@pytest.mark.parametrize(("ours", "theirs"), [(dice, f1_score), (iou, jaccard_score)])
def test_overlaps_are_scikit_learns(ours: Any, theirs: Any) -> None:
    mask, truth = masks(6, 0), masks(6, 50)
    expected = [theirs(t.flatten(), m.flatten()) for m, t in zip(mask, truth, strict=True)]
    np.testing.assert_allclose(ours(mask, truth).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("overlap", [dice, iou])
def test_overlaps_at_the_ends(overlap: Any) -> None:
    mask = masks(1, 0)
    empty = torch.zeros_like(mask)
    assert float(overlap(mask, mask)) == 1
    assert float(overlap(mask, ~mask)) == 0
    assert float(overlap(empty, mask)) == 0
    assert float(overlap(empty, empty)) == 1


def test_exponential_iou() -> None:
    truth = torch.zeros((5, *SHAPE), dtype=torch.bool)
    truth[:, :, :, :8] = True
    mask = torch.zeros_like(truth)
    for n, planes in enumerate((0, 2, 4, 6, 8)):
        mask[n, :, :, :planes] = True
    share = np.array([0, 0.25, 0.5, 0.75, 1])
    for k in (5.0, 10.0):
        expected = (np.exp(k * share) - 1) / (np.exp(k) - 1)
        np.testing.assert_allclose(exponential_iou(mask, truth, k=k), expected, rtol=1e-5)
    # Of the last quarter nearly all.
    assert float(exponential_iou(mask, truth)[3]) == pytest.approx(0.0820, abs=1e-4)


@pytest.mark.parametrize(("erosion", "dilation"), [(1.0, 1.0), (2.0, 1.5), (0.0, 3.0), (2.5, 0.0)])
def test_regions_are_morphology(erosion: float, dilation: float) -> None:
    truth = blobs(7)
    truth[:4] = True
    voxels = torch.tensor(list(np.ndindex(SHAPE)))
    many = torch.from_numpy(truth).expand(len(voxels), *SHAPE)
    found = seed_regions(many, voxels, erosion=erosion, dilation=dilation).reshape(SHAPE).numpy()

    def ball(radius: float) -> NDArray[np.bool_]:
        reach = np.arange(-3, 4)
        grid = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"))
        return np.linalg.norm(grid, axis=0) <= radius

    eroded = ndimage.binary_erosion(truth, ball(erosion), border_value=1)
    dilated = ndimage.binary_dilation(truth, ball(dilation))
    expected = np.select(
        [eroded, truth, dilated],
        [STRONG_FOREGROUND, WEAK_FOREGROUND, WEAK_BACKGROUND],
        STRONG_BACKGROUND,
    )
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) == 4 - (erosion == 0) - (dilation == 0)


def rewards(label: list[int], place: list[list[int]], **settings: Any) -> NDArray[np.float32]:
    """Rewards of some seeds, the masks and the truth always the same slabs.

    Truth: j < 8. Before: j < 4, Dice 2/3, IoU 1/2. After: j < 6, Dice 6/7, IoU 3/4.
    """
    plane = torch.arange(SHAPE[1])[None, None, :, None]
    slab = [(plane < last).expand(len(label), *SHAPE) for last in (4, 6, 8)]
    found = seed_rewards(
        *slab, torch.tensor(place), torch.tensor(label), RewardSettings(**settings)
    )
    assert found.dtype == torch.float32
    return found.numpy()


INSIDE, INSIDE_EDGE, OUTSIDE_EDGE, OUTSIDE = [5, 3, 5], [5, 7, 5], [5, 8, 5], [5, 13, 5]
PLACES = [INSIDE, INSIDE_EDGE, OUTSIDE_EDGE, OUTSIDE]
NOWHERE = [-1, -1, -1]


@pytest.mark.parametrize(("kind", "gain"), [("dice", 6 / 7 - 2 / 3), ("iou", 0.25)])
def test_overlap_rewards(kind: str, gain: float) -> None:
    right = rewards([1, 1, 0, 0], PLACES, kind=kind)
    np.testing.assert_allclose(right, gain, atol=1e-6)
    # A wrong label costs nothing of its own unless it is to.
    np.testing.assert_allclose(rewards([0, 0, 1, 1], PLACES, kind=kind), gain, atol=1e-6)
    mixed = rewards([1, 0, 1, 0, 1], [*PLACES, NOWHERE], kind=kind, wrong_seed=0.5, step_cost=0.01)
    expected = gain - 0.01 - 0.5 * np.array([0, 1, 1, 0, 1])
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_overlap_rewards_telescope() -> None:
    truth, steps = masks(4, 50), [masks(4, 100 * n) for n in range(5)]
    place, label = torch.zeros((4, 3), dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    settings = RewardSettings(kind="dice", step_cost=0.125)
    total = sum(seed_rewards(a, b, truth, place, label, settings) for a, b in pairwise(steps))
    torch.testing.assert_close(total, dice(steps[-1], truth) - dice(steps[0], truth) - 0.5)


def test_exponential_reward_is_of_the_new_mask() -> None:
    expected = (np.exp(7.5) - 1) / (np.exp(10) - 1)
    np.testing.assert_allclose(rewards([1, 0], [INSIDE, OUTSIDE], kind="exp_iou"), expected)
    steep = rewards([1], [INSIDE], kind="exp_iou", k=5.0)
    np.testing.assert_allclose(steep, (np.exp(3.75) - 1) / (np.exp(5) - 1), rtol=1e-5)


def test_four_regions() -> None:
    good = (np.exp(7.5) - 1) / (np.exp(10) - 1)
    foreground = rewards([1] * 5, [*PLACES, NOWHERE], kind="regions")
    background = rewards([0] * 5, [*PLACES, NOWHERE], kind="regions")
    np.testing.assert_allclose(foreground, [good, good - 1, -1, -1, -1], atol=1e-6)
    np.testing.assert_allclose(background, [-1, -1, good - 1, good, -1], atol=1e-6)
    # Without margins there is no weak region.
    sharp = {"kind": "regions", "erosion": 0.0, "dilation": 0.0}
    np.testing.assert_allclose(rewards([1, 0], PLACES[1:3], **sharp), good, atol=1e-6)
    # The penalty of the other forms is not added; the cost of a step is.
    charged = rewards([1, 1], [INSIDE, OUTSIDE], kind="regions", wrong_seed=9.0, step_cost=0.5)
    np.testing.assert_allclose(charged, [good - 0.5, -1.5], atol=1e-6)


@pytest.mark.parametrize("kind", ["dice", "iou", "exp_iou", "regions"])
def test_stopping_is_worth_nothing(kind: str) -> None:
    found = rewards([NONE], [NOWHERE], kind=kind, step_cost=0.1, wrong_seed=1.0)
    assert found.tolist() == [0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "best"}, "kind must be"), ({"k": 0.0}, "k must"), ({"erosion": -1.0}, "erosion")],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MedrlError, match=message):
        RewardSettings(**options)
