"""The whole recipe on files made for it: it reproduces, resumes, and refuses."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from medrl.bundles import load_weights, read_manifest
from medrl.errors import MedrlError
from medrl.rl import stage as running
from medrl.seednet.learner import AgentSettings
from medrl.seednet.model import SeedModel
from medrl.seednet.perception import PerceptionSettings
from medrl.seednet.sampling import Sampling
from medrl.seednet.train import TrainSettings, train

SETTINGS = TrainSettings(
    name="blobs",
    channels=("CT:hounsfield",),
    targets=("whole=1,2", "front"),
    half_width=12,
    sampling=Sampling(window=(16, 16, 16), shift=2.0),
    # 4 windows in 2 batches: as many as there are training scans.
    perception=PerceptionSettings(steps=4, batch=2),
    agent=AgentSettings(imitation_steps=2, dqn_steps=2, windows=2, batch=4),
    threads=1,
)


class _Interrupted(Exception):  # noqa: N818
    pass


def test_a_seed_gives_the_model_and_an_interrupted_training_too(
    datalist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = partial(running.run_stage, checkpoint_every=2)
    monkeypatch.setattr("medrl.seednet.train.run_stage", often)
    monkeypatch.setattr(running, "_REPORT_EVERY", 1)
    seen: list[tuple[str, int, int]] = []
    bundle = train(
        SETTINGS,
        data=datalist,
        out=tmp_path / "a",
        card={"title": "Blobs"},
        report=lambda what, done, total, numbers: seen.append((what, done, total)),
    )
    assert bundle == tmp_path / "a" / "blobs"
    assert [event for event in seen if event[0] in ("perception", "agent")] == [
        (what, done, 4) for what in ("perception", "agent") for done in (1, 2, 3, 4)
    ]
    assert {"reading training", "reading validation", "prior weight", "stop threshold"} <= {
        what for what, _, _ in seen
    }
    for stage in ("perception", "agent"):
        assert list((tmp_path / "a" / "logs" / stage).glob("events*"))
        assert (tmp_path / "a" / "checkpoints" / f"{stage}.safetensors").is_file()
    manifest = read_manifest(bundle)
    assert manifest["task"] == "seednet"
    assert manifest["card"] == {"title": "Blobs"}
    model, _ = SeedModel.load(bundle)
    assert [target.labels for target in model.settings.targets] == [(1, 2), (1,)]
    assert model.settings.channels[0].intensity == "hounsfield"

    def interrupt(what: str, done: int, total: int, numbers: object) -> None:
        if (what, done) == ("perception", 3):
            raise _Interrupted

    with pytest.raises(_Interrupted):
        train(SETTINGS, data=datalist, out=tmp_path / "b", report=interrupt)
    with pytest.raises(MedrlError, match="holds checkpoints already: resume"):
        train(SETTINGS, data=datalist, out=tmp_path / "b")
    resumed: list[tuple[str, int]] = []
    other = train(
        replace(SETTINGS, resume=True),
        data=datalist,
        out=tmp_path / "b",
        report=lambda what, done, total, numbers: resumed.append((what, done)),
    )
    assert [done for what, done in resumed if what == "perception"] == [3, 4]
    assert read_manifest(other)["settings"] == manifest["settings"]
    first, second = load_weights(bundle), load_weights(other)
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_another_model(datalist: Path, tmp_path: Path) -> None:
    small = replace(
        SETTINGS,
        perception=PerceptionSettings(steps=1, batch=1),
        agent=AgentSettings(imitation_steps=1, dqn_steps=0, windows=1, batch=1),
    )
    weights = [
        load_weights(train(replace(small, seed=seed), data=datalist, out=tmp_path / str(seed)))
        for seed in (0, 1)
    ]
    name = "encoder.down1.0.convolution.weight"
    assert not torch.equal(weights[0][name], weights[1][name])


def test_without_validation_cases_it_trains_all_the_same(datalist: Path, tmp_path: Path) -> None:
    content = json.loads(datalist.read_text())
    alone = datalist.parent / "alone.json"
    alone.write_text(json.dumps({"training": content["training"]}))
    small = replace(
        SETTINGS,
        perception=PerceptionSettings(steps=1, batch=1),
        agent=AgentSettings(imitation_steps=1, dqn_steps=0, windows=1, batch=1),
    )
    model, _ = SeedModel.load(train(small, data=alone, out=tmp_path / "out"))
    assert model.settings.prior_weight == SETTINGS.model_settings().prior_weight


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": ()}, "channel"),
        ({"channels": ("CT", "CT:suv")}, "channel"),
        ({"channels": ("CT:loud",)}, "INTENSITY"),
        ({"targets": ()}, "target"),
        ({"targets": ("a=1", "a=2")}, "target"),
        ({"targets": ("a=x",)}, "NAME=LABEL"),
        ({"targets": ("a=7",)}, "none of the labels"),
        ({"spacing": 0.0}, "more than 0"),
        ({"half_width": 0}, "more than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    datalist: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(MedrlError, match=words) as caught:
        train(replace(SETTINGS, **changes), data=datalist, out=tmp_path / "out")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_checkpoints_of_other_settings_are_refused(datalist: Path, tmp_path: Path) -> None:
    small = replace(
        SETTINGS,
        perception=PerceptionSettings(steps=1, batch=1),
        agent=AgentSettings(imitation_steps=1, dqn_steps=0, windows=1, batch=1),
    )
    train(small, data=datalist, out=tmp_path)
    with pytest.raises(MedrlError, match="does not fit these settings"):
        train(replace(small, resume=True, targets=("whole",)), data=datalist, out=tmp_path)
