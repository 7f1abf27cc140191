"""How heads lie, asked of the networks of brain-t1, against known turns and the labels' points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation

from medrl.landmark.detect import LandmarkDetector
from medrl.volume.procrustes import fit_many
from medrl.volume.read import read
from medrl.volume.space import apply_affine, as_affine
from medrl_datasets import get


@pytest.fixture(scope="module")
def detector() -> LandmarkDetector:
    return LandmarkDetector.load("brain-t1")


@pytest.fixture(scope="module")
def head(data_root):
    """A validation head, and its landmarks (RAS mm)."""
    root = data_root / "ixi_brain_t1"
    subject = get("ixi_brain_t1").splits(root)["val"][0]
    return read(root / "t1" / f"{subject}.nii.gz"), get("ixi_brain_t1").landmarks(root)[subject]


def turned(scan: MetaTensor, matrix: np.ndarray) -> MetaTensor:
    return MetaTensor(scan.as_tensor(), affine=torch.from_numpy(matrix @ as_affine(scan.affine)))


def mean_error(found, truth, matrix=None) -> float:
    matrix = np.eye(4) if matrix is None else matrix
    return float(
        np.mean(
            [
                np.linalg.norm(found[name].position_world - apply_affine(matrix, place))
                for name, place in truth.items()
            ]
        )
    )


def said(found) -> bool:
    return any("degrees from what the header says" in line for line in found.warnings)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_head_turned_in_any_way_is_found_as_well(detector, head, seed):
    scan, truth = head
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = 20, -40, 5
    found = detector.detect(turned(scan, matrix))
    assert mean_error(found, truth, matrix) < 1.5
    angle = np.degrees(Rotation.from_matrix(matrix[:3, :3]).magnitude())
    (line,) = [line for line in found.warnings if "degrees from" in line]
    assert abs(float(line.split(" by ")[1].split()[0]) - angle) < 12


def test_a_head_as_it_is_scanned_needs_no_remark(detector, head):
    scan, truth = head
    found = detector.detect(scan)
    assert mean_error(found, truth) < 1.5
    assert not said(found)


def test_half_a_head_is_searched_as_it_lies(detector, head):
    scan, truth = head
    half = MetaTensor(scan.as_tensor()[:, :60], affine=scan.affine)
    whole, part = detector.detect(scan), detector.detect(half)
    assert not said(part)
    there = [lm.name for lm in part.landmarks if lm.status != "absent"]
    assert 0 < len(there) < len(truth)
    for name in there:
        off = np.linalg.norm(part[name].position_world - whole[name].position_world)
        assert off < 4, name


def test_fits_bring_turned_and_smaller_points_back():
    random = np.random.default_rng(0)
    expected = random.normal(0, 30, (12, 3))
    turns = Rotation.random(4, random_state=1).as_matrix()
    shift = random.normal(0, 20, (4, 1, 3))
    seen = np.einsum("nij,kj->nki", turns, 0.9 * expected) + shift
    seen[:, 0] += 50  # nobody is sure of it
    weight = torch.ones((4, 12))
    weight[:, 0] = 0
    points, known = torch.from_numpy(seen).float(), torch.from_numpy(expected).float()
    turn, move, size = fit_many(points, known, weight, sizes=(0.5, 2.0))
    back = torch.einsum("nij,nkj->nki", turn, points) + move[:, None]
    np.testing.assert_allclose(turn, turns.transpose(0, 2, 1), atol=1e-4)
    np.testing.assert_allclose(size, 0.9, atol=1e-4)
    np.testing.assert_allclose(back[:, 1:], np.tile(0.9 * expected[1:], (4, 1, 1)), atol=1e-2)
    _, _, limited = fit_many(points, known, weight, sizes=(0.95, 2.0))
    np.testing.assert_allclose(limited, 0.95)
