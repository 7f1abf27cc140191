"""A model in memory and on disk, and what it promises its user."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medrl.agents import rollout
from medrl.bundles import load_weights, read_manifest, save
from medrl.errors import MedrlError
from medrl.seednet.data import LabelledGrid
from medrl.seednet.dynamics import SeedState
from medrl.seednet.model import EncodedWindows, ModelSettings, SeedModel, SeedPolicy
from medrl.seednet.simulated_user import Start, starts

MakeCases = Callable[..., list[LabelledGrid]]


@pytest.fixture
def start(make_cases: MakeCases) -> Start:
    return starts(make_cases(1), half_width=12, seed=0, targets=[0])[0]


def seen(model: SeedModel, start: Start) -> tuple[EncodedWindows, Tensor]:
    encoded = model.encode(start.image, torch.tensor([start.target]))
    return encoded, model.prior(encoded, start.seeds)


def run(model: SeedModel, encoded: EncodedWindows, seeds: Tensor, prior: Tensor) -> SeedState:
    """Let the agent add its seeds until it stops."""
    dynamics = model.on(encoded, prior)
    return rollout(dynamics, SeedPolicy(model, encoded), dynamics.reset(seeds)).state


def test_a_bundle_brings_everything_back(model: SeedModel, start: Start, tmp_path: Path) -> None:
    settings = replace(model.settings, prior_weight=0.2, stop_threshold=0.003, exclusion_radius=2.0)
    model = SeedModel(settings, model.network)
    folder = model.save(tmp_path / "m", name="m", card={"title": "Blobs"})
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 2**20
    loaded, manifest = SeedModel.load(folder)
    assert loaded.settings == settings
    assert manifest["name"] == "m"
    assert loaded.dynamics.exclusion_radius == 2.0
    assert not loaded.network.training
    (one, prior), (other, again) = seen(model, start), seen(loaded, start)
    torch.testing.assert_close(again, prior, atol=1e-4, rtol=0)
    dynamics, theirs = model.on(one, prior), loaded.on(other, again)
    state = dynamics.reset(start.seeds)
    values = model.values(one, dynamics, state)
    torch.testing.assert_close(loaded.values(other, theirs, state), values, atol=1e-4, rtol=1e-3)


def test_settings_are_plain_json(settings: ModelSettings) -> None:
    text = json.dumps(asdict(settings))
    assert ModelSettings.from_json(json.loads(text)) == settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("edges"), "edges"),
        (lambda s: s.update(colour=3), "colour"),
        (lambda s: s.update(channels=[{"nome": "CT"}]), "damaged"),
        (lambda s: s.update(channels=3), "damaged"),
        (lambda s: s.update(targets=[{"labels": [1]}]), "damaged"),
        (lambda s: s.update(widths=None), "damaged"),
        (lambda s: s.update(widths=[4, 4, 8, 16]), "do not fit"),
    ],
)
def test_damaged_bundles_are_refused(
    model: SeedModel, tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    folder = model.save(tmp_path / "m", name="m", card={})
    manifest = read_manifest(folder)
    change(manifest["settings"])
    save(folder, load_weights(folder), manifest)
    with pytest.raises(MedrlError, match=words) as caught:
        SeedModel.load(folder)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_task_is_refused(model: SeedModel, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "m", name="m", card={})
    save(folder, load_weights(folder), {**read_manifest(folder), "task": "registration"})
    with pytest.raises(MedrlError, match="a registration model"):
        SeedModel.load(folder)


def test_targets_go_by_name(model: SeedModel) -> None:
    assert [model.target_index(name) for name in (None, "whole", "front")] == [0, 0, 1]
    with pytest.raises(MedrlError, match="it has whole, front"):
        model.target_index("back")


def test_values_are_gains_in_dice_and_stop_is_the_limit(model: SeedModel, start: Start) -> None:
    encoded, prior = seen(model, start)
    dynamics = model.on(encoded, prior)
    state = dynamics.reset(start.seeds)
    values = model.values(encoded, dynamics, state)
    allowed = dynamics.allowed(state)
    assert torch.equal(values.isfinite(), allowed)
    assert bool(allowed[0, -1])
    assert float(values[0, -1]) == model.settings.stop_threshold
    picky = SeedModel(replace(model.settings, stop_threshold=0.02), model.network)
    other = picky.values(encoded, dynamics, state)
    assert float(other[0, -1]) == pytest.approx(0.02)
    torch.testing.assert_close(other[:, :-1], values[:, :-1])


def test_the_agent_never_goes_against_the_user(model: SeedModel, start: Start) -> None:
    eager = SeedModel(replace(model.settings, stop_threshold=-1e9), model.network)
    encoded, prior = seen(eager, start)
    seeds = start.seeds.clone()
    corner = (0, 2, 2, 2)
    seeds[corner] = 0
    state = run(eager, encoded, seeds, prior)
    assert int(state.steps[0]) == eager.settings.max_seeds
    given = seeds >= 0
    assert torch.equal(state.seeds[given], seeds[given])
    assert bool((state.mask[given] == (seeds[given] == 1)).all())
    placed = (state.seeds >= 0) & ~given
    assert placed.any()
    for label in (0, 1):
        theirs = (given & (seeds == 1 - label)).nonzero()[:, 1:].double()
        own = (placed & (state.seeds == label)).nonzero()[:, 1:].double()
        if len(own):
            assert float(torch.cdist(own, theirs).min()) > eager.settings.exclusion_radius


def test_some_of_the_windows_are_as_all_of_them(model: SeedModel, make_cases: MakeCases) -> None:
    sizes = [s for s in starts(make_cases(3, shape=(24, 24, 24)), half_width=12, seed=0)]
    some = [s for s in sizes if s.truth.shape == sizes[0].truth.shape][:3]
    image = torch.cat([s.image for s in some])
    target = torch.tensor([s.target for s in some])
    seeds = torch.cat([s.seeds for s in some])
    encoded = model.encode(image, target)
    rows = torch.tensor([len(some) - 1, 0])
    part = encoded.select(rows)
    prior = model.prior(encoded, seeds)
    torch.testing.assert_close(model.prior(part, seeds[rows]), prior[rows], atol=1e-5, rtol=0)
    every = run(model, encoded, seeds, prior)
    alone = run(model, part, seeds[rows], prior[rows])
    assert torch.equal(alone.steps, every.steps[rows])
    assert float((alone.mask == every.mask[rows]).float().mean()) > 0.999
