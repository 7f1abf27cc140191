"""A fine map that looks once more where agents end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.ndimage import gaussian_filter
from torch import nn

from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.judging import load_model, save_model
from medrl.landmark.model import LandmarkModel, ModelSettings
from medrl.landmark.parts.network import FineNetwork

NAMES = ("a", "b", "c")
#: Untrained agents do not come far in so few steps.
SETTINGS = ModelSettings(spacings=(2.0, 4.0), window=9, channels=(4, 8), features=8, max_steps=2)


class Sees(nn.Module):
    """A fine map with its peak so many voxels from the middle of the window."""

    def __init__(self, away):
        super().__init__()
        self.away = torch.tensor(away)

    def forward(self, windows, landmark):
        logits = torch.full((len(windows), *windows.shape[2:]), -40.0)
        i, j, k = (self.away + windows.shape[2] // 2).tolist()
        logits[:, i, j, k] = 40.0
        return logits


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    networks = tuple(SETTINGS.build_network(len(NAMES)).eval() for _ in SETTINGS.spacings)
    return LandmarkModel(NAMES, SETTINGS, networks)


@pytest.fixture(scope="module")
def scan():
    values = gaussian_filter(np.random.default_rng(0).uniform(0, 100, (40, 44, 36)), 2)
    affine = torch.tensor(
        [[0.0, -2, 0, 30], [2, 0, 0, -40], [0, 0, 2, -20], [0, 0, 0, 1]], dtype=torch.float64
    )
    return MetaTensor(torch.from_numpy(values)[None].float(), affine=affine)


def test_agents_meet_a_map_that_agrees_halfway(model, scan):
    alone = LandmarkDetector(model).candidates(scan)
    found = [k for k, status in enumerate(alone.status) if status == "found"]
    assert found
    met = LandmarkDetector(replace(model, fine=Sees([1, 0, 0]))).candidates(scan)
    # The grid that agents walk on has the axes of the world and voxels of 2 mm.
    for k in found:
        moved = met.positions_world[k] - alone.positions_world[k]
        np.testing.assert_allclose(moved, [1, 0, 0], atol=0.55)
    assert met.windows == alone.windows + len(found)


def test_agents_stay_where_the_map_sees_something_else(model, scan):
    alone = LandmarkDetector(model).candidates(scan)
    other = LandmarkDetector(replace(model, fine=Sees([4, 0, 0]))).candidates(scan)
    np.testing.assert_array_equal(other.positions_world, alone.positions_world)


def test_a_bundle_keeps_the_map(model, scan, tmp_path):
    torch.manual_seed(1)
    whole = replace(model, fine=FineNetwork(len(NAMES)).eval())
    again, _ = load_model(save_model(whole, tmp_path / "m", name="m", card={}))
    one, other = (LandmarkDetector(m).candidates(scan).positions_world for m in (whole, again))
    np.testing.assert_allclose(one, other, atol=0.1)
    assert set(again.fine.state_dict()) == set(whole.fine.state_dict())
