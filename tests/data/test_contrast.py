"""Contrasts that are made up: what tissues become bright, and that nothing moves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from medrl.data import contrast
from medrl.data.augment import Augmentation, augment
from medrl.data.contrast import TISSUES, recolored

NONE = Augmentation(
    pose_probability=0, scanner_probability=0, crop_probability=0, contrast_probability=1
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def head() -> tuple[torch.Tensor, torch.Tensor]:
    """Layers of every tissue, four voxels thick, with some texture; about 1000 bright."""
    tissues = torch.arange(len(TISSUES)).repeat_interleave(4)[:, None, None].expand(-1, 12, 12)
    typical = torch.tensor([0.0, 200, 500, 800, 50, 450, 1000, 30])
    texture = 20 * torch.rand(tissues.shape, generator=generator(0)) * (tissues > 0)
    return (typical[tissues] + texture)[None], tissues.to(torch.uint8)


def means(volume: torch.Tensor, tissues: torch.Tensor) -> dict[str, float]:
    """Mean of the inner voxels of each layer: the outer ones share borders."""
    inner = torch.arange(len(tissues)) % 4
    kept = ((inner == 1) | (inner == 2))[:, None, None].expand_as(tissues)
    return {name: float(volume[0][kept & (tissues == k)].mean()) for k, name in enumerate(TISSUES)}


@pytest.mark.parametrize(
    ("kind", "rising"),
    [
        ("T1", ("air", "fluid", "grey matter", "fat")),
        ("T2", ("air", "white matter", "grey matter", "fluid")),
        ("FLAIR", ("air", "fluid", "white matter")),
        ("CT", ("air", "fluid", "grey matter", "bone")),
    ],
)
def test_tissues_are_as_bright_as_in_scans_of_that_kind(monkeypatch, head, kind, rising):
    monkeypatch.setattr(contrast, "_KINDS", {kind: contrast._KINDS[kind]})
    volume, tissues = head
    for seed in range(5):
        found = means(recolored(volume, tissues, generator(seed)), tissues)
        values = [found[name] for name in rising]
        # Borders are blurred by less than a voxel, and textures are kept in part.
        assert all(a < b + 60 for a, b in pairwise(values)), (seed, found)
        assert values[0] < 60
        assert values[-1] > values[0] + 250


def test_what_no_map_tells_apart_stays_visible(monkeypatch, head):
    """Half of the white matter is brighter: after any change the halves differ still."""
    volume, tissues = head
    half = (tissues == TISSUES.index("white matter"))[None].clone()
    half[..., 6:] = False
    volume = volume + 150 * half
    rest = (tissues == TISSUES.index("white matter"))[None] & ~half
    monkeypatch.setattr(contrast, "_PARTIAL_VOLUME", 0.0)
    differ = [
        abs(float(made[half].mean() - made[rest].mean()))
        for made in (recolored(volume, tissues, generator(seed)) for seed in range(20))
    ]
    assert np.median(differ) > 15


def test_without_a_map_brightness_goes_through_one_curve():
    volume = torch.rand((1, 10, 10, 10), generator=generator(1)) * 500
    volume[0, 0] = 0
    made = recolored(volume, None, generator(2))
    assert made.shape == volume.shape
    assert float(made[0, 0].max()) == 0
    order = volume.flatten().argsort()
    steps = made.flatten()[order].diff().abs()
    assert float(steps.max()) < 25  # equal brightness stays equal
    others = recolored(volume, None, generator(3))
    assert not torch.allclose(made, others)


def test_augmentation_changes_the_contrast_and_moves_no_landmark(head):
    volume, tissues = head
    points = torch.tensor([[5.0, 6, 7]])
    made, same = augment(volume, points, NONE, generator(0), tissues=tissues)
    assert torch.equal(same, points)
    assert made.shape == volume.shape
    assert not torch.allclose(made, volume)
    never = Augmentation(pose_probability=0, scanner_probability=0, crop_probability=0)
    kept, _ = augment(volume, points, never, generator(0), tissues=tissues)
    assert torch.equal(kept, volume)
