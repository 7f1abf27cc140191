"""The whole recipe on scans made for it: it learns, resumes, and says what is not there."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.data.augment import Augmentation
from medrl.localization.learner import BoxLearner, LearnerSettings
from medrl.localization.localize import Localizer
from medrl.localization.proposer_learner import ProposerLearner
from medrl.localization.train import TrainSettings, train
from medrl.rl.check import check_env
from medrl.volume.box_files import write_boxes
from medrl.volume.boxes import iou
from tests.localization.conftest import TINY, block_scan
from tests.rl.resume import assert_resumes

STILL = Augmentation(pose_probability=0.2, crop_probability=0.2, scanner_probability=0.2)
SMALL = LearnerSettings(
    batch=32, slots=6, refresh_every=4, agents=16, replay=512, proposals=2, augmentation=STILL
)


def box_learner(blocks):
    return BoxLearner(blocks, model=TINY, settings=SMALL, imitation_steps=4, dqn_steps=6, seed=0)


# The eighth step replaces a scan in which agents are on their way.
@pytest.mark.parametrize("interrupt_at", [2, 7, 8])
def test_box_learner_resumes_with_the_same_bits(blocks, tmp_path, interrupt_at):
    assert_resumes(lambda: box_learner(blocks), tmp_path, interrupt_at=interrupt_at)


def test_proposer_resumes_with_the_same_bits(blocks, tmp_path):
    def make():
        return ProposerLearner(blocks, model=TINY, settings=SMALL, steps=6, seed=0)

    assert_resumes(make, tmp_path, interrupt_at=3)


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    content = {"targets": {"bright": [1], "dim": [2]}}
    seed = 0
    for split, count in (("training", 12), ("validation", 3), ("test", 4)):
        content[split] = []
        for n in range(count):
            scan, boxes = block_scan(seed := seed + 1)
            name, affine = f"{split}{n}", scan.affine.numpy()
            nib.save(nib.Nifti1Image(scan[0].numpy(), affine), folder / f"{name}.nii.gz")
            entry = {"image": f"{name}.nii.gz"}
            if n % 2:
                named = dict(zip(("bright", "dim"), boxes.numpy() * 2, strict=True))
                write_boxes(folder / f"{name}.mrk.json", named)
                entry["boxes"] = f"{name}.mrk.json"
            else:
                mask = np.zeros(scan.shape[1:], dtype=np.uint8)
                for label, box in enumerate((boxes + 0.5).long(), 1):
                    mask[tuple(slice(a, b) for a, b in zip(*box.tolist(), strict=True))] = label
                nib.save(nib.Nifti1Image(mask, affine), folder / f"{name}_mask.nii.gz")
                entry["label"] = f"{name}_mask.nii.gz"
            content[split].append(entry)
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder / "datalist.json"


@pytest.fixture(scope="module")
def bundle(datalist, tmp_path_factory):
    settings = TrainSettings(
        name="blocks",
        proposer_steps=350,
        imitation_steps=360,
        dqn_steps=10,
        model=TINY,
        learner=replace(SMALL, batch=64),
    )
    return train(settings, data=datalist, out=tmp_path_factory.mktemp("run"))


def test_it_boxes_blocks_in_scans_it_has_not_seen(bundle):
    localizer = Localizer.load(bundle)
    assert localizer.target_names == ("bright", "dim")
    overlaps = []
    for seed in range(100, 106):
        scan, boxes = block_scan(seed)
        found = localizer.localize(scan)
        for box, truth in zip(found.boxes, boxes.numpy() * 2, strict=True):
            there = box.status == "found"
            overlaps.append(float(iou(box.corners_world, truth)) if there else 0.0)
    assert np.median(overlaps) > 0.5, overlaps
    assert np.mean(np.array(overlaps) > 0.1) > 0.8, overlaps


def test_what_is_cut_away_is_absent(bundle):
    localizer = Localizer.load(bundle)
    absent = []
    for seed in range(100, 108):
        scan, _ = block_scan(seed)
        cut = MetaTensor(scan.as_tensor()[:, :20, :20, :20].contiguous(), affine=scan.affine)
        absent.append(localizer.localize(cut)["dim"].status == "absent")
    assert np.mean(absent) >= 0.75


def test_a_scan_of_something_else_is_not_trusted(bundle):
    localizer = Localizer.load(bundle)
    assert localizer.model.familiarity is not None
    scan, _ = block_scan(300)
    assert localizer.localize(scan).unfit == ()
    # Stripes in the place of blocks.
    stripes = torch.sin(torch.arange(40.0) * 1.3)[None, :, None, None].abs().expand(1, 40, 40, 40)
    other = localizer.localize(MetaTensor(stripes * 1.0 + 0.1, affine=scan.affine))
    found = [box for box in other.boxes if box.status == "found"]
    assert not found or other.unfit
    assert all(box.confidence <= 0.1 for box in found)


def test_agents_move_with_the_scan(bundle):
    localizer = Localizer.load(bundle)
    scan, _ = block_scan(200)
    moved = scan.affine.clone()
    moved[:3, 3] += torch.tensor([30.0, -12.0, 7.0])
    here, there = (
        localizer.localize(scan),
        localizer.localize(MetaTensor(scan.as_tensor(), affine=moved)),
    )
    for a, b in zip(here.boxes, there.boxes, strict=True):
        assert np.allclose(b.corners_world - a.corners_world, [30.0, -12.0, 7.0], atol=1e-6)
    paths = here.trajectory.agents
    assert all(path.boxes_world.shape[1:] == (2, 3) for path in paths)


def test_other_people_can_learn_in_the_environment():
    from medrl.localization.env import make

    scans, boxes = zip(*(block_scan(seed) for seed in range(2)), strict=True)
    world = np.stack([box.numpy() * 2 for box in boxes])
    check_env(lambda batch_size: make(scans, world, view=TINY.view, batch_size=batch_size))
