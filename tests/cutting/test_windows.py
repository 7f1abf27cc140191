"""Boxes and windows, against indexing and scikit-image."""

from __future__ import annotations

import numpy as np
import torch
from skimage.transform import resize

from medrl.cutting.windows import (
    box_of_mask,
    grown,
    in_box,
    look,
    mapped,
    picture_levels,
    put_back,
)


def _random(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_a_window_of_whole_pixels_is_what_indexing_gives() -> None:
    picture = _random((2, 3, 20, 30))
    box = torch.tensor([[[3.5, 9.5], [11.5, 17.5]]])
    window = look(picture_levels(picture), torch.tensor([1]), box, 8)
    assert torch.allclose(window[0], picture[1, :, 4:12, 10:18], atol=1e-5)


def test_a_finer_window_is_what_scikit_image_makes_of_it() -> None:
    picture = _random((1, 1, 16, 16))
    window = in_box(picture, torch.tensor([[[-0.5, -0.5], [15.5, 15.5]]]), 32, padding="border")
    expected = resize(picture[0, 0].numpy(), (32, 32), order=1, mode="edge")
    assert np.allclose(window[0, 0].numpy(), expected, atol=1e-5)


def test_large_boxes_are_looked_at_without_skipping_pixels() -> None:
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    picture = checks.float()[None, None]
    box = torch.tensor([[[-0.5, -0.5], [63.5, 63.5]]])
    window = look(picture_levels(picture), torch.tensor([0]), box, 16)
    assert torch.allclose(window, torch.full_like(window, 0.5), atol=1e-5)


def test_what_was_made_in_a_box_comes_back_to_its_pixels() -> None:
    window = _random((1, 8, 8))
    back = put_back(window, torch.tensor([[[3.5, 9.5], [11.5, 17.5]]]), (20, 30))
    assert torch.allclose(back[0, 4:12, 10:18], window[0], atol=1e-5)
    assert float(back.sum()) - float(window.sum()) < 1e-3


def test_the_box_of_a_mask_is_that_of_its_pixels() -> None:
    mask = torch.zeros(2, 20, 30)
    mask[0, 4:12, 10:18] = 1
    box, found = box_of_mask(mask)
    assert found.tolist() == [True, False]
    assert box[0].tolist() == [[3.5, 9.5], [11.5, 17.5]]


def test_boxes_lie_to_another_frame_as_to_their_own() -> None:
    frame = torch.tensor([[[0.0, 0.0], [10.0, 20.0]]])
    onto = torch.tensor([[[5.0, 5.0], [10.0, 15.0]]])
    box = torch.tensor([[[1.0, 2.0], [5.0, 10.0]]])
    assert torch.allclose(mapped(box, frame, onto), torch.tensor([[[5.5, 6.0], [7.5, 10.0]]]))
    assert torch.allclose(grown(frame, 2.0, 1.0), torch.tensor([[[-6.0, -11.0], [16.0, 31.0]]]))
