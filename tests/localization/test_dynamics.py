"""Moves of boxes against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from medrl.errors import MedrlError
from medrl.localization.dynamics import (
    ACTIONS,
    CAPPED,
    LOOPED,
    TRIGGER,
    TRIGGERED,
    BoxDynamics,
    View,
)
from medrl.localization.task import Rewards, action_rewards, optimal_values, overlap
from medrl.volume.boxes import iou
from medrl.volume.itk import to_sitk
from medrl.volume.pyramid import build_pyramid
from tests.localization.conftest import TINY, block_scan

BOX = torch.tensor([[[10.0, 12.0, 8.0], [20.0, 22.0, 28.0]]], dtype=torch.float64)


@pytest.fixture(scope="module")
def dynamics() -> BoxDynamics:
    pyramid = build_pyramid(block_scan(0)[0], spacings=TINY.spacings)
    return BoxDynamics([pyramid], targets=2, view=View(window=13, wide=9, shares=(0.1, 0.2)))


def start(dynamics: BoxDynamics, box: torch.Tensor = BOX):
    zero = torch.zeros(len(box), dtype=torch.int64)
    return dynamics.reset(zero, zero, box)


def act(dynamics: BoxDynamics, state, name: str):
    return dynamics.step(state, torch.full((len(state),), ACTIONS.index(name)))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("right", [12, 12, 8], [22, 22, 28]),
        ("down", [10, 12, 4], [20, 22, 24]),
        ("grow", [9, 11, 6], [21, 23, 30]),
        ("taller", [10, 12, 6], [20, 22, 30]),
    ],
)
def test_moves_are_shares_of_the_size(dynamics, name, low, high):
    after = act(dynamics, start(dynamics), name)
    assert torch.allclose(after.box[0], torch.tensor([low, high], dtype=torch.float64))


def test_every_move_has_one_that_takes_it_back(dynamics):
    pairs = [("right", "left"), ("forward", "back"), ("up", "down"), ("grow", "shrink")]
    pairs += [("wider", "narrower"), ("deeper", "shallower"), ("taller", "shorter")]
    for there, back in pairs:
        after = act(dynamics, act(dynamics, start(dynamics), there), back)
        assert torch.allclose(after.box, BOX), there
        assert after.share.item() == 0, "a box seen before makes the steps finer"
        again = act(dynamics, act(dynamics, after, there), back)
        assert again.status.item() == LOOPED


def test_trigger_and_the_last_step_end(dynamics):
    assert act(dynamics, start(dynamics), "trigger").status.item() == TRIGGERED
    short = BoxDynamics(dynamics.scans, targets=2, view=View(window=13, wide=9, max_steps=1))
    assert act(short, start(short), "up").status.item() == CAPPED
    ended = act(dynamics, start(dynamics), "trigger")
    assert torch.equal(act(dynamics, ended, "up").box, ended.box)


def test_the_middle_stays_in_the_scan(dynamics):
    box = torch.tensor([[[30.0, 2.0, 2.0], [48.0, 10.0, 10.0]]])
    state = start(dynamics, box)
    assert not dynamics.allowed(state)[0, ACTIONS.index("right")]
    assert dynamics.allowed(state)[0, ACTIONS.index("left")]


def test_windows_are_what_simpleitk_samples(dynamics):
    box = torch.tensor([[[4.0, 5.0, 6.0], [14.0, 13.0, 17.0]]], dtype=torch.float64)
    window, _ = dynamics.windows(torch.zeros(1, dtype=torch.int64), box)
    scan = dynamics.scans[0]
    step, center = dynamics.window_step(box)[0].numpy(), box.mean(dim=1)[0].numpy()
    image = to_sitk(block_scan(0)[0])
    for element in [(6, 6, 6), (2, 7, 9), (11, 4, 5)]:
        place = center + (np.array(element) - 6) * step
        level = image.EvaluateAtContinuousIndex([float(v) for v in place], sitk.sitkLinear)
        assert window[0, 0][element] == pytest.approx(level, abs=1e-4)
    assert scan.strides[0] == 1


def test_world_boxes_come_back(dynamics):
    zero = torch.zeros(1, dtype=torch.int64)
    world = dynamics.to_world(zero, BOX)
    assert torch.allclose(world, BOX * 2)
    assert torch.allclose(dynamics.to_voxel(zero, world), BOX)


def test_overlap_is_the_floors(dynamics):
    random = torch.Generator().manual_seed(0)
    boxes = torch.rand((50, 2, 3), generator=random, dtype=torch.float64).sort(dim=1).values
    expected = iou(boxes[:25].numpy(), boxes[25:].numpy())
    assert np.allclose(overlap(boxes[:25], boxes[25:]).numpy(), expected)


@pytest.mark.parametrize("form", ["sign", "dense"])
def test_the_best_action_by_value_leads_to_the_truth(dynamics, form):
    truth = torch.tensor([[[13.0, 14.0, 12.0], [21.0, 25.0, 30.0]]], dtype=torch.float64)
    state, rewards = start(dynamics), Rewards(form=form, fits=0.7)
    for _ in range(30):
        values = optimal_values(dynamics, state.box, state.share, truth, rewards)
        state = dynamics.step(state, values.argmax(dim=1))
        if not state.active.any():
            break
    assert state.status.item() == TRIGGERED
    assert overlap(state.box, truth).item() >= 0.7


def test_a_trigger_is_worth_three_where_it_fits_and_minus_three_elsewhere(dynamics):
    share = torch.zeros(3, dtype=torch.int64)
    boxes = BOX.expand(3, 2, 3)
    truth = torch.stack([BOX[0], BOX[0] + 8.0, torch.full((2, 3), torch.nan)])
    worth, _ = action_rewards(dynamics, boxes, share, truth, Rewards(form="sign"))
    assert worth[:, TRIGGER].tolist() == [3.0, -3.0, -3.0]
    assert (worth[2, :TRIGGER] == 0).all()
    assert (worth[0, :TRIGGER] == -1).all(), "no change for the better is -1"


def test_scans_must_fit_each_other():
    with pytest.raises(MedrlError, match="at least one scan"):
        BoxDynamics([], targets=1)
