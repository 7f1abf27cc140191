"""Training that begins with a trained model, and ends between the two."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medrl.errors import MedrlError
from medrl.landmark.judging import load_model, save_model
from medrl.landmark.model import LandmarkModel
from medrl.landmark.train import TrainSettings, train
from tests.landmark.blobs import SMALL, write_datalist

STEPS = TrainSettings(imitation_steps=(2, 2), dqn_steps=(1, 1), learner=SMALL)


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    return write_datalist(tmp_path_factory.mktemp("blobs"))


def untrained(folder, names):
    """A model of the same layers that knows some landmarks; its heads say which is which."""
    settings = SMALL.model_settings()
    torch.manual_seed(7)
    networks = tuple(settings.build_network(len(names)) for _ in SMALL.spacings)
    for network in networks:
        for k, name in enumerate(names):
            network.actions.bias.data[6 * k : 6 * k + 6] = len(name)
    model = LandmarkModel(names, settings, networks)
    return save_model(model, folder / "start", name="start", card={})


def test_what_both_know_is_kept_whatever_its_order(datalist, tmp_path):
    start = untrained(tmp_path, ("dark", "other", "bright"))
    settings = replace(STEPS, start=str(start), learner=replace(SMALL, learning_rate=1e-9))
    settings = replace(settings, learner=replace(settings.learner, dqn_learning_rate=1e-9))
    model, _ = load_model(train(settings, data=datalist, out=tmp_path / "out"))
    before, _ = load_model(start)
    for network, other in zip(model.networks, before.networks, strict=True):
        np.testing.assert_allclose(network.actions.bias[:6].detach(), len("bright"), atol=0.01)
        np.testing.assert_allclose(network.actions.bias[6:].detach(), len("dark"), atol=0.01)
        torch.testing.assert_close(
            network.encoder.project[0].weight, other.encoder.project[0].weight, atol=1e-3, rtol=0
        )


def test_a_blend_lies_between_its_start_and_what_was_learned(datalist, tmp_path):
    start = untrained(tmp_path, ("bright", "dark"))
    fast = replace(SMALL, learning_rate=0.05)
    settings = replace(STEPS, start=str(start), learner=fast)
    learned, _ = load_model(train(settings, data=datalist, out=tmp_path / "learned"))
    blended, _ = load_model(
        train(replace(settings, blend=0.25), data=datalist, out=tmp_path / "blended")
    )
    before, _ = load_model(start)
    for a, b, c in zip(before.networks, learned.networks, blended.networks, strict=True):
        first, last, between = (network.encoder.project[0].weight for network in (a, b, c))
        # Bundles hold half precision.
        torch.testing.assert_close(between, 0.25 * first + 0.75 * last, atol=2e-3, rtol=0)
        assert (first - last).abs().max() > 0.01


@pytest.mark.parametrize(
    ("changes", "names", "why"),
    [
        ({"blend": 0.5}, None, "blend is a share below 1 of the agents of start"),
        ({"blend": 1.0}, ("bright", "dark"), "blend is a share"),
        ({"blend": 0.5}, ("dark", "bright"), "cannot be blended with: it has other landmarks"),
    ],
)
def test_what_cannot_be_blended_is_refused(datalist, tmp_path, changes, names, why):
    start = None if names is None else str(untrained(tmp_path, names))
    with pytest.raises(MedrlError, match=why):
        train(replace(STEPS, start=start, **changes), data=datalist, out=tmp_path / "out")
