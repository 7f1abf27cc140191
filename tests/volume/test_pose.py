"""How a scan is turned, found in blocks whose way is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation

from medrl.volume.intensity import NormalizeForeground
from medrl.volume.pose import PoseTemplate
from medrl.volume.space import as_affine

NORMALIZE = NormalizeForeground()


def body(seed: int) -> MetaTensor:
    """Blocks of several sizes, unlike from all sides, about the origin; 2 mm, some noise."""
    random = np.random.default_rng(seed)
    volume = random.normal(0.05, 0.02, (48, 48, 48)).clip(0)
    for low, high, bright in (
        ((10, 14, 16), (38, 34, 30), 0.6),
        ((10, 14, 30), (20, 22, 40), 1.0),
        ((32, 28, 8), (38, 34, 16), 0.9),
        ((18, 34, 18), (26, 40, 24), 0.8),
    ):
        low, high = np.array(low), np.array(high) + random.integers(-1, 2, 3)
        volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = bright
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -47.0
    return MetaTensor(torch.from_numpy(volume).float()[None], affine=torch.from_numpy(affine))


def moved(scan: MetaTensor, matrix: np.ndarray) -> MetaTensor:
    """The scan elsewhere in the world."""
    return MetaTensor(scan.as_tensor(), affine=torch.from_numpy(matrix @ as_affine(scan.affine)))


def rigid(seed: int) -> np.ndarray:
    """A random rotation and shift."""
    random = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=random).as_matrix()
    matrix[:3, 3] = random.normal(0, 50, 3)
    return matrix


@pytest.fixture(scope="module")
def template() -> PoseTemplate:
    return PoseTemplate.fit(map(body, range(4)), NORMALIZE)


def angle(matrix: np.ndarray) -> float:
    """Degrees by which a matrix turns."""
    return float(np.degrees(Rotation.from_matrix(matrix[:3, :3]).magnitude()))


@pytest.mark.parametrize("seed", range(6))
def test_any_rotation_is_found(template, seed):
    away = rigid(seed)
    pose = template.find(moved(body(10 + seed), away), NORMALIZE)
    rest = pose.matrix @ away
    assert angle(rest) < 4
    assert np.linalg.norm(rest[:3, 3]) < 3
    np.testing.assert_allclose(pose.matrix[:3, :3] @ pose.matrix[:3, :3].T, np.eye(3), atol=1e-9)
    assert pose.share > 0.95


def test_what_lies_straight_stays_so(template):
    pose = template.find(body(20), NORMALIZE)
    assert pose.turn_deg < 3
    assert pose.score > 0.9


def test_a_part_is_known_to_be_one(template):
    scan = body(21)
    pose = template.find(MetaTensor(scan.as_tensor()[:, :24], affine=scan.affine), NORMALIZE)
    assert pose.share < 0.8
    assert pose.turn_deg < 30


def test_a_template_is_stored_and_read(template):
    again = PoseTemplate.from_tensors(template.tensors())
    assert PoseTemplate.from_tensors({}) is None
    scan = moved(body(22), rigid(3))
    np.testing.assert_allclose(
        again.find(scan, NORMALIZE).matrix, template.find(scan, NORMALIZE).matrix, atol=0.2
    )
