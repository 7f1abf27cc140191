"""How sure segmentations are, and clicks in what a model was not made for."""

import csv

import numpy as np
import pytest
import torch
from scipy import ndimage

import medrl
from medrl import read
from medrl.seednet.confidence import (
    RIGHT_DICE,
    confidence_of,
    confidence_tensors,
    kind_of,
    look_at,
)
from medrl.seednet.data import dice
from medrl.seednet.network import Features
from medrl.seednet.seeds import Seed
from medrl.volume.space import voxel_to_world
from medrl.walker.segmenter import FOREGROUND


@pytest.fixture(scope="module")
def segmenter():
    torch.set_num_threads(1)
    return medrl.load("hippocampus-t1")


@pytest.fixture(scope="module")
def crops(data_root):
    """Validation crops with their masks of the whole hippocampus."""
    root = data_root / "msd_hippocampus"
    with (root / "splits.csv").open() as file:
        names = [next(iter(r.values())) for r in csv.DictReader(file) if r["split"] == "val"][:4]
    return [
        (
            read(root / "images" / f"{name}.nii.gz"),
            read(root / "labels" / f"{name}.nii.gz", allow_constant=True).as_tensor()[0] > 0,
        )
        for name in names
    ]


def click(scan, where, number):
    voxels = np.argwhere(np.asarray(where))
    return Seed(voxel_to_world(voxels[number % len(voxels)], scan.affine), FOREGROUND)


def test_a_click_in_a_hippocampus_is_trusted(segmenter, crops):
    for scan, truth in crops:
        depth = ndimage.distance_transform_edt(truth)
        found = segmenter.segment(scan, [click(scan, depth == depth.max(), 0)])
        assert dice(found.mask[0], truth) >= RIGHT_DICE
        assert found.unfit == found.warnings == ()
        assert found.confidence > 0.8


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("spine_mr_lumbar/images/01.nii.gz", "anatomy or contrast"),
        ("ms_multimodal/patient01/study1_T2W.nii.gz", "anatomy or contrast"),
        ("mouse_skull_ct/images/AKR_J.nii.gz", "size"),
        ("vertebra_ct_mr/sample_mri/sub-mri_label-6_T2w.nii.gz", "anatomy or contrast"),
    ],
)
def test_a_click_in_something_else_is_answered_and_doubted(segmenter, data_root, file, what):
    scan = read(data_root / file)
    found = segmenter.segment(scan, [click(scan, scan[0] > scan.mean(), 12345)])
    assert found.mask.any()
    assert found.unfit[0].startswith(what)
    assert found.warnings[0].startswith("hippocampus-t1 was not made for this scan")
    assert found.confidence <= 0.1


def test_a_session_says_it_of_each_object(segmenter, crops):
    scan, truth = crops[0]
    session = segmenter.session()
    session.set_scan(scan)
    session.add_seeds([click(scan, truth, 500)])
    assert session.unfit() == ()
    assert 0.8 < session.confidence() <= 1


def test_what_is_looked_at_is_the_mask_and_what_is_around_it():
    """Features that are the mask itself: 1 inside, little around."""
    probability = torch.zeros(16, 16, 16)
    probability[4:12, 4:12, 4:12] = 0.9
    quarter = torch.nn.functional.avg_pool3d((probability > 0.5).float()[None, None], 4)
    features = Features(torch.zeros(1), torch.zeros(1), quarter)
    answer = look_at(features, probability, kind=2, spacing=2.0)
    inside, around = answer.features[0]
    assert inside == 1
    assert around == 0  # the shell lies in other cells
    assert answer.volume_ml[0] == pytest.approx(8**3 * 8 / 1000)
    assert answer.probability[0] == pytest.approx(0.9)
    assert look_at(features, torch.zeros(16, 16, 16), kind=0, spacing=1.0) is None


def test_every_target_and_choice_of_images_is_a_kind_of_its_own():
    shown = [(True, False), (False, True), (True, True)]
    assert sorted(kind_of(t, s) for t in range(3) for s in shown) == list(range(9))


def test_a_stored_confidence_says_the_same(segmenter):
    known = segmenter.model.confidence
    asked = np.array([[0.1, 1.0, 0.9], [3.0, -2.0, 0.6]])
    again = confidence_of(confidence_tensors(known))
    np.testing.assert_allclose(again(asked), known(asked), rtol=1e-5)
    assert confidence_of({}) is None
