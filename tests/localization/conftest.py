"""Small scans with bright blocks that agents box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.localization.data import LabelledScan
from medrl.localization.dynamics import View
from medrl.localization.model import ModelSettings

#: Corners of a unit cube.
CUBE = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
TINY = ModelSettings(
    view=View(window=13, wide=9, shares=(0.05, 0.15), max_steps=30),
    widths=(8, 16),
    features=32,
    proposer=(4, 8, 8, 8),
)


def block_scan(seed: int) -> tuple[MetaTensor, torch.Tensor]:
    """A noisy scan of 40^3 voxels of 2 mm with a bright and a dim block, and their boxes."""
    random = np.random.default_rng(seed)
    volume = random.normal(0.1, 0.02, (40, 40, 40)).clip(0)
    boxes = []
    for brightness, low in ((1.0, random.integers(3, 10, 3)), (0.6, random.integers(20, 26, 3))):
        high = low + random.integers(8, 12, 3)
        volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = brightness
        boxes.append(np.stack([low - 0.5, high - 0.5]))
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    return MetaTensor(torch.from_numpy(volume).float()[None], affine=affine), torch.tensor(
        np.stack(boxes)
    )


@pytest.fixture(scope="session")
def blocks() -> list[LabelledScan]:
    """Eight labelled scans."""
    found = []
    for seed in range(8):
        scan, boxes = block_scan(seed)
        shapes = boxes[:, None, 0] + CUBE * (boxes[:, None, 1] - boxes[:, None, 0])
        found.append(LabelledScan(f"{seed}", scan.as_tensor(), shapes.float()))
    return found
