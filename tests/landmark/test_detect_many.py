"""Scans searched together: each has the answers that it has alone, whatever lies next to it."""

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.landmark.detect import LandmarkDetector


@pytest.fixture(scope="module")
def detector():
    return LandmarkDetector.load("brain-t1")


def blob(seed, shape, spacing=2.0):
    """Something round with texture, of no anatomy: the shape prior has much to reject."""
    generator = torch.Generator().manual_seed(seed)
    axes = [torch.linspace(-1, 1, n) for n in shape]
    distance = sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij"))
    texture = torch.rand(shape, generator=generator)
    affine = torch.diag(torch.tensor([spacing, -spacing, spacing, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.rand(3, generator=generator) * 50
    return MetaTensor((torch.exp(-2 * distance) * (0.5 + texture))[None], affine=affine)


@pytest.fixture(scope="module")
def scans():
    return [blob(1, (44, 60, 52)), blob(2, (40, 40, 60), 2.5), blob(4, (40, 40, 40))]


@pytest.fixture(scope="module")
def alone(detector, scans):
    return [detector.detect(scan) for scan in scans]


def assert_same(one, other):
    assert one.warnings == other.warnings
    for a, b in zip(one.landmarks, other.landmarks, strict=True):
        assert (a.name, a.status, a.note) == (b.name, b.status, b.note)
        # Batches of other sizes round their sums in another way; nothing else may differ.
        np.testing.assert_allclose(a.position_world, b.position_world, atol=1e-3)
        assert a.confidence == pytest.approx(b.confidence, abs=1e-3, nan_ok=True)
    assert one.trajectory.provenance == other.trajectory.provenance
    for a, b in zip(one.trajectory.agents, other.trajectory.agents, strict=True):
        np.testing.assert_array_equal(a.positions_world, b.positions_world)
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.scales_mm, b.scales_mm)
        np.testing.assert_allclose(a.values, b.values, atol=1e-2)
        assert a.outcome == b.outcome


@pytest.mark.parametrize("batch_size", [2, 8])
def test_together_each_has_the_answers_that_it_has_alone(detector, scans, alone, batch_size):
    # Second searches are shared as well.
    assert sum("others expect it" in lm.note for d in alone for lm in d.landmarks) > 3
    many = detector.detect_many(scans, batch_size=batch_size)
    for one, other in zip(alone, many, strict=True):
        assert_same(one, other)
        assert other.seconds > 0


def test_what_is_no_head_harms_nobody(detector, scans, alone):
    flat = MetaTensor(torch.full((1, 40, 40, 40), 3.0), affine=torch.eye(4).double())
    slab = MetaTensor(torch.rand(1, 80, 80, 1), affine=torch.eye(4).double())
    two = MetaTensor(torch.rand(2, 40, 40, 40), affine=torch.eye(4).double())
    found = detector.detect_many([flat, scans[0], slab, scans[2], two])
    for place, says in ((0, "constant"), (2, "not a slice"), (4, "one 3D volume")):
        assert isinstance(found[place], MedrlError)
        assert says in str(found[place])
    assert_same(alone[0], found[1])
    assert_same(alone[2], found[3])
    (only,) = detector.detect_many([flat])
    assert isinstance(only, MedrlError)
    assert detector.detect_many([]) == []


def test_what_is_asked_for_is_reported(detector, scans):
    wanted = ["Putamen_R_centroid", "CC_genu_anterior"]
    for detection in detector.detect_many(scans[:2], landmarks=wanted):
        assert [landmark.name for landmark in detection.landmarks] == wanted
        assert [agent.name for agent in detection.trajectory.agents] == wanted
    with pytest.raises(MedrlError, match="does not know elbow"):
        detector.detect_many(scans, landmarks=["elbow"])
    with pytest.raises(MedrlError, match="at least one scan"):
        detector.detect_many(scans, batch_size=0)


def test_so_many_scans_are_held_at_a_time_and_no_more(detector, scans, monkeypatch):
    held = []

    def infer(some, **options):
        held.append(len(some))
        return [MedrlError("not now")] * len(some)

    monkeypatch.setattr(detector, "_infer", infer)
    assert len(detector.detect_many(scans[2:] * 5, batch_size=2)) == 5
    assert held == [2, 2, 1]
