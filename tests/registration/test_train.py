"""The whole recipe at toy size: it writes a model that runs, goes on, and refuses."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from medrl import Registrar
from medrl.bundles import load_weights, read_manifest
from medrl.errors import MedrlError
from medrl.registration import refine
from medrl.registration import train as recipe
from medrl.registration.actor_critic import ActorCriticSettings
from medrl.registration.calibrate import calibrate
from medrl.registration.confidence import FEATURES
from medrl.registration.imitation import ImitationSettings
from medrl.registration.train import TrainSettings, train
from medrl.rl import stage
from medrl.volume.read import read

SETTINGS = TrainSettings(
    name="toy",
    imitation=ImitationSettings(steps=3, batch=4, pairs=2, renew=1),
    reinforcement=ActorCriticSettings(steps=2, agents=3, horizon=2, pairs=2, renew=1),
    threads=1,
)
STAGES = ("fine-imitation", "fine-reinforcement", "coarse-imitation", "coarse-reinforcement")


class _Interrupted(Exception):  # noqa: N818
    pass


@pytest.fixture(autouse=True)
def small(levels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks, one round of calibration, few walks to judge by, and every step told."""
    monkeypatch.setattr(refine, "_SCHEDULE", ((2, 1.0, 2_000, 5, 1.0),))
    monkeypatch.setattr(recipe, "FINE", levels[0])
    monkeypatch.setattr(recipe, "COARSE", levels[1])
    monkeypatch.setattr(recipe, "calibrate", partial(calibrate, rounds=2))
    monkeypatch.setattr(recipe, "_COMPARED", 8)
    monkeypatch.setattr(recipe, "_COMPARED_STEPS", 2)
    monkeypatch.setattr(stage, "_REPORT_EVERY", 1)
    monkeypatch.setattr(recipe, "run_stage", partial(stage.run_stage, checkpoint_every=1))


def test_a_training_that_is_interrupted_goes_on_to_a_model_that_runs(
    heads: Path, tmp_path: Path, levels
) -> None:
    def interrupt(what: str, done: int, total: int, numbers: object) -> None:
        if (what, done) == ("fine-imitation", 2):
            raise _Interrupted

    with pytest.raises(_Interrupted):
        train(SETTINGS, data=heads, out=tmp_path, report=interrupt)
    with pytest.raises(MedrlError, match="holds checkpoints already: resume"):
        train(SETTINGS, data=heads, out=tmp_path)

    seen: list[tuple[str, int, int, Mapping[str, float]]] = []
    bundle = train(
        replace(SETTINGS, resume=True),
        data=heads,
        out=tmp_path,
        card={"title": "Toy"},
        report=lambda *told: seen.append(told),
    )
    assert bundle == tmp_path / "toy"
    assert [done for what, done, _, _ in seen if what == STAGES[0]] == [2, 3]
    assert [done for what, done, _, _ in seen if what == STAGES[3]] == [1, 2]
    whats = [what for what, _, _, _ in seen]
    for what in ("reading training", "reading validation", "coarse walks", "confidence", *STAGES):
        assert what in whats
    for what in STAGES:
        assert list((tmp_path / "logs" / what).glob("events*"))
        assert (tmp_path / "checkpoints" / what.split("-")[0] / f"{what}.safetensors").is_file()

    manifest = read_manifest(bundle)
    assert (manifest["task"], manifest["card"]) == ("registration", {"title": "Toy"})
    registrar = Registrar.load(bundle)
    settings = registrar.model.settings
    assert settings.levels == levels
    assert settings.confidence is not None
    assert len(settings.confidence.weights) == len(FEATURES)
    # Of each level the network that ended nearer was kept, and remembers if it learned to.
    judged = [numbers for what, _, _, numbers in seen if what.endswith(" walks")]
    wanted = tuple(each["reinforcement"] < each["imitation"] for each in judged)
    assert settings.search.memory == wanted
    tensors = load_weights(bundle)
    for number, remembers in enumerate(wanted):
        assert bool(tensors[f"level{number}.recall.weight"].any()) == remembers

    scan = read(a_scan(heads))
    found = registrar.register(scan, scan, refine=False)
    assert 0 <= found.confidence <= 1
    assert np.abs(found.transform_world - np.eye(4)).max() < 1.5


def a_scan(datalist: Path) -> Path:
    return datalist.parent / json.loads(datalist.read_text())["test"][0]["image"]


def test_reading_is_the_same_for_a_seed(heads: Path, levels) -> None:
    from medrl.registration.data import load_sources, read_datalist

    scans = read_datalist(heads)["training"][:1]
    one, two, three = (
        load_sources(scans, spacing=levels[0].spacing, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert torch.equal(one.points, two.points)
    assert torch.equal(one.volume, three.volume)
    assert not torch.equal(one.points, three.points)
    # The working grid is twice as coarse as what is stored, and points lie in the object.
    assert tuple(2 * n for n in one.body.shape[1:]) == tuple(one.volume.shape[1:])
    i, j, k = one.points.long().T
    assert bool((one.body[0, i, j, k] > 0).all())


def test_what_cannot_be_learned_from_is_refused(heads: Path, tmp_path: Path) -> None:
    content = json.loads(heads.read_text())
    absolute = {
        split: [{"image": str(heads.parent / entry["image"])} for entry in entries]
        for split, entries in content.items()
    }
    scan = absolute["training"][0]
    data = tmp_path / "datalist.json"
    for changed, words in (
        ({"training": [scan]}, 'no "validation" scans'),
        ({"training": [scan, {"label": "a.nii"}], "validation": [scan]}, 'entry 1 .* "image"'),
        ({"training": [{"image": "gone.nii.gz"}]}, "gone.nii.gz does not exist"),
        ({"validation": [scan]}, '"training"'),
    ):
        data.write_text(json.dumps(changed))
        with pytest.raises(MedrlError, match=words) as caught:
            train(SETTINGS, data=data, out=tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
