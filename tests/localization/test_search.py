"""Candidates of a whole scan, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from medrl.localization.search import largest_near


@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (1, 1, 4, 2)])
def test_the_largest_of_a_cell_and_its_neighbours(shape):
    heat = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = ndimage.maximum_filter(heat.numpy(), size=(1, 3, 3, 3))
    np.testing.assert_array_equal(largest_near(heat).numpy(), expected)
