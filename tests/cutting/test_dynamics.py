"""What actions do to boxes, pictures and masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from medrl.cutting.dynamics import (
    ACTIONS,
    ARRIVED,
    CUT,
    ENDED,
    GONE,
    LOST,
    CutDynamics,
    CutState,
    Stack,
)
from medrl.errors import MedrlError


def begin(dynamics: CutDynamics, masks: Tensor, picture: int = 4, direction: int = 1) -> CutState:
    seen = dynamics.outlined(torch.tensor([picture]), masks[picture][None])
    return dynamics.reset(
        torch.tensor([0]),
        torch.tensor([picture + direction]),
        torch.tensor([direction]),
        last=seen,
        reference=seen,
    )


def act(dynamics: CutDynamics, state: CutState, name: str, **more: Tensor) -> CutState:
    return dynamics.step(state, torch.tensor([ACTIONS.index(name)]), **more)


def test_moves_change_the_boxes_by_their_share(dynamics: CutDynamics, masks: Tensor) -> None:
    state = begin(dynamics, masks)
    size = state.object[0, 1] - state.object[0, 0]
    share = dynamics.view.share
    right = act(dynamics, state, "object right")
    assert torch.allclose(right.object - state.object, torch.tensor([0.0, share * size[1]]))
    larger = act(dynamics, state, "context grow")
    assert torch.equal(larger.object, state.object)
    grown = (larger.context[0, 1] - larger.context[0, 0]) / (
        state.context[0, 1] - state.context[0, 0]
    )
    assert torch.allclose(grown, torch.full((2,), 1 + share))


def test_the_last_mask_moves_along_with_the_box(dynamics: CutDynamics, masks: Tensor) -> None:
    state = begin(dynamics, masks)
    before = dynamics.window(state)
    after = dynamics.window(act(dynamics, state, "object down"))
    last = -4
    assert torch.allclose(before[0, last], after[0, last], atol=1e-4)
    assert not torch.allclose(before[0, 0], after[0, 0], atol=0.1)


def test_the_context_never_lies_inside_the_object(dynamics: CutDynamics, masks: Tensor) -> None:
    state = begin(dynamics, masks)
    shrinks = ACTIONS.index("context shrink")
    for _ in range(dynamics.view.moves):
        if not dynamics.allowed(state)[0, shrinks]:
            break
        state = replace(act(dynamics, state, "context shrink"), moves=state.moves)
    else:
        pytest.fail("the context may become smaller for ever")
    assert (state.context[0, 0] <= state.object[0, 0]).all()
    assert (state.context[0, 1] >= state.object[0, 1]).all()


def test_moves_are_counted_and_a_cut_is_always_open(dynamics: CutDynamics, masks: Tensor) -> None:
    state = replace(begin(dynamics, masks), moves=torch.tensor([dynamics.view.moves]))
    assert torch.nonzero(dynamics.allowed(state)[0])[:, 0].tolist() == [CUT, GONE]
    bound = replace(state, bound=torch.tensor([True]))
    assert torch.nonzero(dynamics.allowed(bound)[0])[:, 0].tolist() == [CUT]


def test_a_cut_leads_to_the_next_picture_with_its_box(dynamics: CutDynamics, masks: Tensor) -> None:
    state = begin(dynamics, masks)
    truth = dynamics.outlined(torch.tensor([5]), masks[5][None])
    state = replace(state, context=truth.context)
    after = act(dynamics, state, "cut", mask=truth.mask)
    assert after.picture.tolist() == [6]
    assert torch.allclose(after.object, truth.object, atol=0.7)
    assert after.moves.tolist() == [0]
    assert abs(float(after.last.area) / float(masks[5].sum()) - 1) < 0.1


def test_agents_end_by_their_word_with_the_pictures_or_with_nothing(
    dynamics: CutDynamics, masks: Tensor
) -> None:
    state = begin(dynamics, masks)
    assert act(dynamics, state, "gone").status.tolist() == [ENDED]
    assert act(dynamics, state, "cut").status.tolist() == [LOST]
    last = replace(state, picture=torch.tensor([9]))
    mask = torch.ones((1, 48, 48))
    assert act(dynamics, last, "cut", mask=mask).status.tolist() == [ARRIVED]


def test_what_has_ended_stays(dynamics: CutDynamics, masks: Tensor) -> None:
    gone = act(dynamics, begin(dynamics, masks), "gone")
    again = act(dynamics, gone, "object up")
    assert all(
        torch.equal(one, gone.state_dict()[name]) for name, one in again.state_dict().items()
    )


def test_the_contrast_is_that_around_the_object(masks: Tensor) -> None:
    noise = torch.rand((10, 1, 40, 40), generator=torch.Generator().manual_seed(0))
    pictures = 100 * masks[:, None] + 10 * noise
    windows = []
    for change in (pictures, 3 * pictures - 700):
        dynamics = CutDynamics([Stack(change, (2.0, 2.0), 3.0)])
        windows.append(dynamics.window(begin(dynamics, masks)))
    assert torch.allclose(*windows, atol=1e-3)


def test_places_are_in_the_world(masks: Tensor) -> None:
    affine = np.array([[2.0, 0, 0, 5], [0, 0, 3, 6], [0, 4, 0, 7], [0, 0, 0, 1]])
    dynamics = CutDynamics([Stack(masks[:, None], (2.0, 4.0), 3.0, affine)])
    places = dynamics.places(begin(dynamics, masks))
    # Of picture 5 the box of the mask of picture 4: middle (18, 18).
    expected = affine @ [18, 18, 5, 1]
    assert np.allclose(places.position_world[0].numpy(), expected[:3])


def test_stacks_of_different_pictures_are_refused(masks: Tensor) -> None:
    with pytest.raises(MedrlError, match="one size"):
        CutDynamics([Stack(masks[:, None]), Stack(masks[:, None, :10])])
