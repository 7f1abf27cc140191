"""The shipped model on heads as it knows them, and on what it was not made for."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation

from medrl.bundles import guard_of
from medrl.data.augment import Augmentation
from medrl.landmark.data import LabelledScan
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.guard import fit_guard
from medrl.landmark.judging import load_model, save_model
from medrl.landmark.model import LandmarkModel, ModelSettings
from medrl.volume.read import read


@pytest.fixture(scope="module")
def detector():
    torch.set_num_threads(1)
    return LandmarkDetector.load("brain-t1", alone=True)


@pytest.fixture(scope="module")
def bare(detector):
    """The same model as it was before it had a guard."""
    return LandmarkDetector(replace(detector.model, guard=None), manifest=detector.manifest)


@pytest.fixture(scope="module")
def head(data_root):
    """A validation subject."""
    with (data_root / "ixi_brain_t1" / "splits.csv").open() as file:
        name = next(r["subject"] for r in csv.DictReader(file) if r["split"] == "val")
    return read(data_root / "ixi_brain_t1" / "t1" / f"{name}.nii.gz")


def moved(scan, linear):
    affine = np.eye(4)
    affine[:3, :3] = linear
    return MetaTensor(scan.as_tensor(), affine=torch.from_numpy(affine @ scan.affine.numpy()))


def sure(detection):
    return np.array([landmark.confidence for landmark in detection.landmarks])


def test_a_head_is_judged_as_before(detector, bare, head):
    found = detector.detect(head)
    assert found.unfit == ()
    assert found.warnings == bare.detect(head).warnings
    np.testing.assert_array_equal(sure(found), sure(bare.detect(head)))


@pytest.mark.parametrize("turn", [[90, 0, 0], [0, -90, 0], [0, 0, 180], [50, 70, -120]])
def test_a_turned_head_is_laid_straight(detector, head, turn):
    linear = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    found, straight = detector.detect(moved(head, linear)), detector.detect(head)
    assert found.unfit == ()
    assert sure(found).min() > 0.5
    for one, other in zip(found.landmarks, straight.landmarks, strict=True):
        assert np.linalg.norm(one.position_world - linear @ other.position_world) < 1.0
    # Paths are in the scan's world as well.
    for path, landmark in zip(found.trajectory.agents, found.landmarks, strict=True):
        assert np.linalg.norm(path.positions_world[-1] - landmark.position_world) < 10


@pytest.mark.parametrize("turn", [[90, 0, 0], [50, 70, -120]])
def test_a_turned_head_that_is_not_laid_straight_is_doubted(detector, head, turn):
    scan = moved(head, Rotation.from_euler("xyz", turn, degrees=True).as_matrix())
    found = LandmarkDetector(
        replace(detector.model, frame=None), manifest=detector.manifest
    ).detect(scan)
    assert sure(found).max() <= 0.1
    (reason,) = found.unfit
    assert reason.startswith("pose or anatomy: ")
    assert found.warnings[0].startswith("brain-t1 was not made for this scan")
    assert reason in found.warnings[0]


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0])
def test_a_head_of_another_size_is_doubted(detector, head, factor):
    found = detector.detect(moved(head, factor * np.eye(3)))
    assert found.unfit
    assert sure(found).max() <= 0.1


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("ms_multimodal/patient01/study1_T2W.nii.gz", "contrast"),
        ("ms_multimodal/patient01/study1_FLAIR.nii.gz", "contrast"),
        ("afids_templates/images/MNI152Lin_T2w.nii.gz", "contrast"),
        ("mouse_skull_ct/images/AKR_J.nii.gz", "size: the scan is 18 mm across"),
        ("fetal_atlas_t2/fetal_SB_atlas_GA25_notoperated/srr.nii.gz", "size"),
        ("spine_mr_lumbar/images/01.nii.gz", "anatomy"),
        ("msd_hippocampus/images/hippocampus_001.nii.gz", "size"),
    ],
)
def test_other_contrasts_and_anatomies_are_doubted(detector, data_root, file, what):
    found = detector.detect(read(data_root / file))
    assert what in found.unfit[0]
    assert sure(found).max() <= 0.1


@pytest.mark.parametrize(
    "name", ["MNI152Lin_T1w", "MNI152NLin2009cAsym_T1w_brain", "Colin27_T1w_ch2"]
)
def test_t1_of_other_scanners_is_not(detector, data_root, name):
    found = detector.detect(read(data_root / "afids_templates" / "images" / f"{name}.nii.gz"))
    assert found.unfit == ()
    assert np.mean(sure(found) > 0.5) > 0.8


def test_of_several_scans_only_those_are_doubted_that_are_unlike(detector, head):
    one, other = detector.detect_many([head, moved(head, 2 * np.eye(3))])
    assert one.unfit == ()
    assert other.unfit


def test_the_guard_is_kept_with_the_model(tmp_path):
    torch.manual_seed(0)
    settings = ModelSettings(spacings=(4.0, 8.0), window=9, channels=(4, 4), features=8)
    networks = tuple(settings.build_network(2).eval() for _ in settings.spacings)
    model = LandmarkModel(("a", "b"), settings, networks)
    scans = [
        LabelledScan(str(n), torch.rand(1, 30, 30, 30), torch.tensor([[9.0, 9, 9], [20, 20, 20]]))
        for n in range(10)
    ]
    fitted = fit_guard(model, scans, augmentation=Augmentation(), repeats=2)
    folder = save_model(fitted, tmp_path / "tiny", name="tiny", card={})
    again, manifest = load_model(folder)
    assert again.guard == fitted.guard == guard_of(manifest)
    np.testing.assert_allclose(again.familiarity.means, fitted.familiarity.means, rtol=1e-5)
    old, _ = load_model(save_model(model, tmp_path / "old", name="old", card={}))
    assert old.guard is None
    assert old.familiarity is None
