"""A tiny training: it is resumed to the same bits, and its model carries what is outlined."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medrl.cutting.carry import Carrier
from medrl.cutting.data import read_datalist
from medrl.cutting.dynamics import View
from medrl.cutting.learner import LearnerSettings
from medrl.cutting.model import ModelSettings
from medrl.cutting.train import TrainSettings, train
from medrl.errors import MedrlError

TINY = ModelSettings(view=View(side=16, moves=3), widths=(4, 6, 8))
LEARNER = LearnerSettings(batch=8, slots=4, refresh=1, policy_batch=16, replay=256)


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    """Bright ellipsoids that end within the scan."""
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), axis=-1)
    entries = []
    for number in range(2):
        away = (grid - [12, 11 + number, 12]) / [8, 6, 7]
        mask = ((away**2).sum(axis=-1) <= 1).astype(np.uint8)
        noise = np.random.default_rng(number).normal(0, 0.1, mask.shape)
        paths = {"image": f"{number}.nii.gz", "label": f"{number}_mask.nii.gz"}
        for key, values in (("image", (mask + noise).astype(np.float32)), ("label", mask)):
            image = nib.Nifti1Image(values, np.diag([2.0, 2.0, 3.0, 1.0]))
            nib.save(image, tmp_path / paths[key])
        entries.append(paths)
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"training": entries, "test": entries[:1]}))
    return path


def run(datalist: Path, out: Path, *, cut: int, policy: int, resume: bool = False) -> Path:
    settings = TrainSettings(
        name="tiny", cut_steps=cut, policy_steps=policy, model=TINY, learner=LEARNER, resume=resume
    )
    return train(settings, data=datalist, out=out)


def test_a_stopped_training_goes_on_with_the_same_bits(
    datalist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(datalist, tmp_path / "whole", cut=4, policy=3)
    from medrl.rl import stage

    seen = []

    def stopped(what: str, step: int, total: int, figures: object) -> None:
        seen.append((what, step))
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_REPORT_EVERY", 1)
    run_stage = stage.run_stage

    def every_step(*args, **options):
        return run_stage(*args, **{**options, "checkpoint_every": 1})

    monkeypatch.setattr("medrl.cutting.train.run_stage", every_step)
    settings = TrainSettings(
        name="tiny", cut_steps=4, policy_steps=3, model=TINY, learner=LEARNER, resume=True
    )
    with pytest.raises(KeyboardInterrupt):
        train(settings, data=datalist, out=tmp_path / "parts",
              report=lambda *a: None if a[0] == "reading" else stopped(*a))  # fmt: skip
    parts = train(settings, data=datalist, out=tmp_path / "parts")
    one, other = (path / "model.safetensors" for path in (whole, parts))
    assert one.read_bytes() == other.read_bytes()


def test_its_model_carries_what_is_outlined(datalist: Path, tmp_path: Path) -> None:
    carrier = Carrier.load(run(datalist, tmp_path / "run", cut=2, policy=2))
    source = read_datalist(datalist)["test"][0].load()
    assert source.axes == (0, 1, 2)
    mask = source.mask(1, 2).numpy()
    assert mask.shape == (24, 24, 24)
    outline = np.zeros((24, 24, 24), dtype=np.uint8)
    outline[:, :, 12] = mask[12]
    nib.save(nib.Nifti1Image(outline, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "o.nii.gz")
    carried = carrier.carry(datalist.parent / "0.nii.gz", tmp_path / "o.nii.gz")
    assert carried.axis == 2
    assert (carried.mask("object")[:, :, 12] == mask[12]).all()
    files = carried.save(tmp_path / "out", "case")
    written = nib.load(files["mask"])
    assert np.allclose(written.affine, np.diag([2.0, 2.0, 3.0, 1.0]))
    assert (np.asarray(written.dataobj)[:, :, 12] == mask[12]).all()
    assert {path.name for path in files.values()} == {
        f"case{ending}" for ending in (".seg.nii.gz", ".csv", ".trajectory.json", ".png", ".webp")
    }


def test_what_cannot_be_learned_from_is_said_in_a_line(datalist: Path, tmp_path: Path) -> None:
    content = json.loads(datalist.read_text())
    content["training"][0]["values"] = [7]
    other = datalist.with_name("other.json")
    other.write_text(json.dumps(content))
    with pytest.raises(MedrlError, match="none of the objects"):
        run(other, tmp_path / "run", cut=1, policy=1)
    content["training"][0]["values"] = ["one"]
    other.write_text(json.dumps(content))
    with pytest.raises(MedrlError, match="not a list of whole numbers"):
        read_datalist(other)
