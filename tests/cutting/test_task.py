"""What steps are worth, against the paper's cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medrl.cutting.dynamics import CUT, GONE, CutDynamics
from medrl.cutting.task import CutTask, Rewards, overlap


def test_moves_are_worth_the_change_of_the_overlap() -> None:
    change = torch.tensor([0.3, 0.05, 0.0, -0.02, -0.4])
    assert torch.allclose(Rewards().of_change(change), torch.tensor([1.0, 0.5, 0.0, -0.2, -1.0]))
    assert Rewards(form="sign").of_change(change).tolist() == [1, 1, -1, -1, -1]
    powers = Rewards(form="power", exponent=0.5).of_change(change)
    assert torch.allclose(powers, torch.tensor([3**0.5, 0.5**0.5, 0.0, -(0.2**0.5), -2.0]))


def test_overlap_is_intersection_over_union() -> None:
    ours, theirs = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    ours[0, :2], theirs[0, 1:3] = 1, 1
    assert overlap(ours, theirs).tolist() == pytest.approx([1 / 3, 1.0])


def test_ends_are_worth_three_where_they_are_true(dynamics: CutDynamics, masks: Tensor) -> None:
    task = CutTask(dynamics, masks)
    state = task.begin(16, torch.Generator().manual_seed(0))
    present = task.present[state.picture]
    whole = torch.ones(16)
    gone = task.reward_of(state, torch.full((16,), GONE), whole, whole)
    assert torch.equal(gone, torch.where(present, -3.0, 3.0))
    cut = task.reward_of(state, torch.full((16,), CUT), whole, whole)
    assert torch.equal(cut, torch.where(present, 3.0, -3.0))


def test_agents_begin_next_to_pictures_that_show_the_object(
    dynamics: CutDynamics, masks: Tensor
) -> None:
    task = CutTask(dynamics, masks)
    state = task.begin(64, torch.Generator().manual_seed(0))
    assert task.present[state.reference.picture].all()
    assert torch.equal(state.picture, state.reference.picture + state.direction)
    truth = task.truth_in(state)
    assert torch.allclose(task.overlap_of(state, truth)[task.present[state.picture]].mean(),
                          torch.tensor(1.0), atol=0.15)  # fmt: skip
