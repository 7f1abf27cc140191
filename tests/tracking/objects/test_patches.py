"""Patches against scipy, and the search for a known shift."""

import numpy as np
import torch
from scipy import ndimage

from medrl.tracking.objects.patches import SIDE, look, search


def picture(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(ndimage.gaussian_filter(noise, 2.0).astype(np.float32))


def test_samples_are_those_of_scipy() -> None:
    frame = picture(0, (30, 28, 26))
    box = torch.tensor([[[8.2, 9.1, 7.7], [15.0, 17.3, 13.9]]], dtype=torch.float64)
    patch = look(frame, box).patch[0].numpy()
    middle, extent = box[0].mean(dim=0).numpy(), (box[0, 1] - box[0, 0]).numpy() * 1.25
    steps = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    points = [m + e * steps for m, e in zip(middle, extent, strict=True)]
    grid = np.stack(np.meshgrid(*points, indexing="ij")).reshape(3, -1)
    expected = ndimage.map_coordinates(frame.numpy(), grid, order=1)
    expected = expected - expected.mean()
    np.testing.assert_allclose(patch, expected / np.linalg.norm(expected), atol=1e-5)


def test_flat_samples_are_those_of_scipy() -> None:
    frame = picture(1, (40, 30, 1))
    box = torch.tensor([[[10.0, 12.0, -0.5], [18.0, 19.0, 0.5]]], dtype=torch.float64)
    looks = look(frame, box)
    steps = (np.arange(15) + 0.5) / 15 - 0.5
    grid = np.stack(np.meshgrid(14 + 10 * steps, 15.5 + 8.75 * steps, indexing="ij"))
    expected = ndimage.map_coordinates(frame[..., 0].numpy(), grid.reshape(2, -1), order=1)
    np.testing.assert_allclose(looks.level[0], [expected.mean(), expected.std()], atol=1e-4)


def test_a_box_finds_back_to_what_it_held() -> None:
    frame = picture(2, (60, 60, 1))
    box = torch.tensor([[[20.0, 20.0, -0.5], [36.0, 36.0, 0.5]]], dtype=torch.float64)
    template = look(frame, box).patch
    shift = torch.tensor([4.0, 2.0, 0.0], dtype=torch.float64)
    found, alike = search(frame, box + shift, template)
    away = (found - box).mean(dim=1).norm()
    assert away < 2.0 < shift.norm()
    assert alike[0] > 0.8
