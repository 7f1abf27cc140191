"""Rotations, against SciPy's."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from medrl.volume.rotations import rotation, spread_rotations


def test_rotation_vectors_are_scipys():
    turns = np.random.default_rng(0).uniform(-180, 180, (20, 3))
    expected = Rotation.from_rotvec(turns, degrees=True).as_matrix()
    np.testing.assert_allclose(rotation(torch.from_numpy(turns)).numpy(), expected, atol=1e-12)


def test_no_way_of_turning_is_far_from_one():
    spread = Rotation.from_matrix(spread_rotations(2000).numpy())
    for other in Rotation.random(300, random_state=1):
        assert np.degrees((spread * other.inv()).magnitude().min()) < 17
