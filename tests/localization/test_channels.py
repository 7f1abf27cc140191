"""A model that looks at several images of a patient."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.cli import main
from medrl.errors import MedrlError
from medrl.localization.data import load_labelled, objects_of, read_datalist
from medrl.localization.layout import Layout
from medrl.localization.localize import Localizer
from medrl.localization.model import BoxModel
from medrl.volume.box_files import write_boxes
from medrl.volume.channels import Channel
from medrl.volume.prepare import Preprocessing
from tests.localization.conftest import TINY

CHANNELS = (Channel("PET", "suv"), Channel("CT", "hounsfield"))
SETTINGS = replace(TINY, preprocessing=Preprocessing(channels=CHANNELS))
BOX = np.array([[10.0, 12, 14], [30.0, 32, 40]])


@pytest.fixture(scope="module")
def model() -> BoxModel:
    torch.manual_seed(0)
    return BoxModel(
        ("tumour",),
        SETTINGS,
        SETTINGS.build_network(1).eval(),
        SETTINGS.build_proposer(1).eval(),
        Layout.fit(np.stack([BOX[None], BOX[None] + 1])),
    )


@pytest.fixture(scope="module")
def images() -> dict[str, MetaTensor]:
    random = np.random.default_rng(0)
    affine = torch.diag(torch.tensor([2.0, 2, 2, 1], dtype=torch.float64))
    values = {"PET": random.uniform(0, 8, (24,) * 3), "CT": random.uniform(-1000, 900, (24,) * 3)}
    return {
        name: MetaTensor(torch.from_numpy(own).float()[None], affine=affine)
        for name, own in values.items()
    }


def test_every_image_counts_and_their_order_does_not(model, images):
    localizer = Localizer(model)
    there = localizer.looked_at(images)
    back = localizer.looked_at(dict(reversed(images.items())))
    torch.testing.assert_close(there.as_tensor(), back.as_tensor())
    answer = localizer.localize(images)
    assert [box.name for box in answer.boxes] == ["tumour"]


def test_what_is_missing_or_cannot_be_meant_is_said(model, images):
    localizer = Localizer(model)
    with pytest.raises(MedrlError, match="needs a CT image, too"):
        localizer.localize({"PET": images["PET"]})
    with pytest.raises(MedrlError, match="looks at PET and CT, not at MR"):
        localizer.localize({**images, "MR": images["PET"]})
    with pytest.raises(MedrlError, match="Hounsfield"):
        localizer.localize({"PET": images["CT"], "CT": images["CT"]})


def test_a_bundle_remembers_its_channels(model, tmp_path):
    bundle = model.save(tmp_path / "two", name="two", card={})
    assert Localizer.load(bundle).model.settings.channels == CHANNELS


def test_training_reads_images_by_channel(images, tmp_path):
    for name, scan in images.items():
        nib.save(nib.Nifti1Image(scan.numpy()[0], scan.affine.numpy()), tmp_path / f"{name}.nii")
    write_boxes(tmp_path / "a.mrk.json", {"tumour": BOX})
    entry = {"image": {"CT": "CT.nii", "PET": "PET.nii"}, "boxes": "a.mrk.json"}
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [entry]}))
    samples = read_datalist(tmp_path / "datalist.json", channels=CHANNELS)["training"]
    (scan,) = load_labelled(samples, objects_of(samples), SETTINGS.preprocessing)
    assert scan.volume.shape == (2, 24, 24, 24)
    both = torch.cat([image.as_tensor() for image in images.values()])
    made = SETTINGS.preprocessing(MetaTensor(both, affine=images["CT"].affine))
    torch.testing.assert_close(scan.volume, made.as_tensor() - made.as_tensor().min())
    with pytest.raises(MedrlError, match="the model knows"):
        read_datalist(tmp_path / "datalist.json", channels=CHANNELS[:1])


def test_the_command_takes_images_by_channel(model, images, tmp_path, capsys):
    bundle = model.save(tmp_path / "two", name="two", card={})
    files = {}
    for name, scan in images.items():
        files[name] = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(scan.numpy()[0], scan.affine.numpy()), files[name])
    named = [f"--image={name}={file}" for name, file in files.items()]
    run = ["localize", "--model", str(bundle), "-o"]
    assert main([*run, str(tmp_path / "a"), *named]) == 0
    assert main([*run, str(tmp_path / "b"), named[1], str(files["PET"])]) == 0
    (one,), (other,) = ((tmp_path / folder).glob("*.csv") for folder in "ab")
    assert one.read_text() == other.read_text()
    assert main([*run, str(tmp_path / "c"), named[1], str(files["PET"]), str(files["CT"])]) == 2
    assert "one scan at a time" in capsys.readouterr().err
