"""Normalised mutual information, against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import normalized_mutual_information

from medrl.registration import similarity as module
from medrl.registration.similarity import BINS, similarity


def windows(count: int = 3, side: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    fixed = 1.4 * torch.rand((1, 1, side, side, side), generator=generator)
    noise = torch.rand((count, 1, side, side, side), generator=generator)
    share = torch.linspace(0, 1, count)[:, None, None, None, None]
    return fixed, (1.4 - fixed) * (1 - share) + noise * share


def binned(volume: torch.Tensor) -> np.ndarray:
    scale = BINS / 1.2
    return np.minimum((volume.numpy() * np.float32(scale)).astype(int), BINS - 1)


def test_it_is_that_of_scikit_image_less_one() -> None:
    fixed, moving = windows()
    found = similarity(fixed, moving)
    for n, value in enumerate(found.tolist()):
        wanted = normalized_mutual_information(
            binned(fixed[0, 0]), binned(moving[n, 0]), bins=[np.arange(BINS + 1)] * 2
        )
        assert value == pytest.approx(wanted - 1, abs=1e-6)
    assert found[0] > 3 * found[2]


def test_only_what_both_scans_show_counts() -> None:
    fixed, moving = windows(1)
    whole = similarity(fixed[..., :6], moving[..., :6])
    hidden_moving, hidden_fixed = moving.clone(), fixed.clone()
    hidden_moving[..., 6:8] = -1
    hidden_fixed[..., 8:] = -1
    assert similarity(hidden_fixed, hidden_moving) == pytest.approx(whole)


def test_too_little_in_common_is_not_judged() -> None:
    fixed, moving = windows(1)
    moving[..., 2:] = -1
    assert similarity(fixed, moving) == 0


def test_a_blank_pair_has_nothing_to_say() -> None:
    fixed = torch.ones((1, 1, 4, 4, 4))
    assert similarity(fixed, fixed) == 0


def test_counting_with_torch_gives_the_same() -> None:
    """What runs on CUDA, here on the CPU."""
    fixed, moving = windows()
    moving[:, :, :3] = -1
    voxels = fixed.flatten()
    label = torch.where(voxels < 0, -1, (voxels * BINS / 1.2).long().clamp(max=BINS - 1)).int()[
        None
    ]
    numba = module._joint(label, moving.flatten(1))
    assert torch.equal(module._count(label, moving.flatten(1)), numba)
