"""A stack that everything in here can be checked on by hand: a disc that moves and ends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medrl.cutting.dynamics import CutDynamics, Stack

SIDE = 40
#: Middle (row, column) and radius of the disc by picture; it is in pictures 2 to 7.
DISC = {n: (14.0 + n, 18.0, 6.0) for n in range(2, 8)}


def disc(row: float, column: float, radius: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).float()


@pytest.fixture
def masks() -> Tensor:
    nothing = torch.zeros(SIDE, SIDE)
    return torch.stack([disc(*DISC[n]) if n in DISC else nothing for n in range(10)])


@pytest.fixture
def dynamics(masks: Tensor) -> CutDynamics:
    noise = torch.rand((10, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    return CutDynamics([Stack(100 * masks[:, None] + 10 * noise, (2.0, 2.0), 3.0)])
