"""Scans that are laid straight by their landmarks, and mirrored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.landmark.data import Sample
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.frame import Frame, laid_straight, mirrored
from medrl.landmark.train import TrainSettings, train
from medrl.volume.read import read
from medrl.volume.space import apply_affine, as_affine

LEFT = np.array([[-9.0, 2, 1], [-6, -7, 3], [-8, 5, -6], [-4, 9, 7]])
POINTS = np.concatenate([LEFT, LEFT * (-1, 1, 1), [[0, 8, -3.0], [0, -9, 5]]])
NAMES = tuple(f"{k:02d}" for k in range(len(POINTS)))
PARTNERS = [4, 5, 6, 7, 0, 1, 2, 3, 8, 9]


@pytest.fixture
def samples() -> list[Sample]:
    """Four turned copies of a body that is alike on both sides, nearly."""
    random = np.random.default_rng(0)
    found = []
    for n in range(4):
        turn = Rotation.random(random_state=random).as_matrix()
        own = (POINTS + random.normal(0, 0.1, POINTS.shape)) @ turn.T + random.normal(0, 30, 3)
        found.append(Sample(Path(f"{n}.nii"), dict(zip(NAMES, own, strict=True))))
    return found


def test_turned_scans_lie_alike(samples):
    straight, mean = laid_straight(samples, NAMES)
    for sample in straight:
        places = apply_affine(sample.straight, np.stack(list(sample.points_world.values())))
        assert np.linalg.norm(places - mean, axis=1).max() < 0.5


def test_mirror_images_have_left_and_right_exchanged(samples):
    straight, mean = laid_straight(samples, NAMES)
    for copy, sample in zip(mirrored(straight, NAMES, mean), straight, strict=True):
        assert np.linalg.det(copy.straight[:3, :3]) < 0
        for k, name in enumerate(NAMES):
            partner = sample.points_world[NAMES[PARTNERS[k]]]
            np.testing.assert_array_equal(copy.points_world[name], partner)
            assert np.linalg.norm(apply_affine(copy.straight, partner) - mean[k]) < 0.6


def test_too_few_points_do_not_say_how_a_scan_lies(samples):
    few = Sample(Path("few.nii"), {"00": np.zeros(3)})
    with pytest.raises(MedrlError, match=r"few\.nii has fewer than 3 landmarks"):
        laid_straight([*samples, few], NAMES)


def test_what_is_seen_is_the_scan_in_the_straight_world():
    random = np.random.default_rng(1)
    straight = np.eye(4)
    straight[:3, :3] = Rotation.random(random_state=random).as_matrix()
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -20
    # Values that are linear in the world stay exact under linear interpolation.
    slope = np.array([1.0, -2.0, 0.5])
    voxels = np.stack(np.meshgrid(*[np.arange(41)] * 3, indexing="ij"), -1)
    values = apply_affine(affine, voxels) @ slope
    scan = MetaTensor(torch.from_numpy(values).float()[None], affine=torch.from_numpy(affine))
    seen = Frame(POINTS / 2, 0.5, 1.0).seen(scan, straight)
    place = np.array([7, 9, 5])
    world = apply_affine(np.linalg.inv(straight) @ as_affine(seen.affine), place)
    assert float(seen[0, *place]) == pytest.approx(float(world @ slope), abs=1e-3)


def test_mirror_images_need_straight_scans(tmp_path):
    with pytest.raises(MedrlError, match="mirror images need scans that are laid straight"):
        train(TrainSettings(mirror=True), data=tmp_path / "none.json", out=tmp_path)


def test_a_skull_is_found_in_any_pose(data_root):
    """A validation specimen and a turned copy of it, against the expert's points."""
    from medrl_datasets import get

    root = data_root / "mouse_skull_ct"
    detector = LandmarkDetector.load("mouse-skull-ct")
    subject = get("mouse_skull_ct").splits(root)["val"][0]
    truth = get("mouse_skull_ct").landmarks(root)[subject]
    scan = read(root / "images" / f"{subject}.nii.gz")
    turn = np.eye(4)
    turn[:3, :3] = Rotation.random(random_state=2).as_matrix()
    turned = MetaTensor(scan.as_tensor(), affine=torch.from_numpy(turn @ as_affine(scan.affine)))
    for one, matrix in ((scan, np.eye(4)), (turned, turn)):
        found = detector.detect(one)
        assert found.unfit == ()
        off = [
            np.linalg.norm(found[n].position_world - apply_affine(matrix, p))
            for n, p in truth.items()
        ]
        assert np.mean(off) < 0.3
        assert np.max(off) < 1.0
