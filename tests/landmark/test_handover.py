"""Scans that brain-t1 was not made for are searched by head-any, and the user is told."""

from __future__ import annotations

import numpy as np
import pytest

from medrl.errors import MedrlError
from medrl.landmark.detect import LandmarkDetector
from medrl.volume.read import read


@pytest.fixture(scope="module")
def detector() -> LandmarkDetector:
    return LandmarkDetector.load("brain-t1")


@pytest.fixture(scope="module")
def head_ct(data_root):
    return read(data_root / "cranium_ct" / "cranium_ct.nii.gz")


def searched_by(found) -> object:
    return found.trajectory.provenance["model"]


def test_a_head_ct_is_searched_and_its_header_is_not_believed(detector, head_ct):
    """Its header turns the head by half a turn: left is where the anatomy has it."""
    found = detector.detect(head_ct)
    assert searched_by(found) == "head-any"
    assert found.warnings[0].startswith("searched by head-any, as brain-t1 is for other scans: ")
    assert "looks like a CT" in found.instead[0]
    assert any("degrees from what the header says" in line for line in found.warnings)
    assert found.unfit == ()
    places = {lm.name: lm.position_world for lm in found.landmarks}
    forwards = places["CC_genu_anterior"] - places["CC_splenium_posterior"]
    upwards = places["3rdVentricle_centroid"] - places["BrainStem_inferior"]
    right = np.cross(forwards, upwards) / np.linalg.norm(np.cross(forwards, upwards))
    for name in ("Thalamus", "Pallidum", "Putamen", "Hippocampus", "Amygdala", "Caudate"):
        across = places[f"{name}_R_centroid"] - places[f"{name}_L_centroid"]
        assert 15 < across @ right < 70, name
    for side in "LR":
        behind = places[f"Amygdala_{side}_centroid"] - places[f"Hippocampus_{side}_centroid"]
        assert behind @ forwards > 0
    assert (places["BrainStem_centroid"] - places["4thVentricle_centroid"]) @ forwards > 0
    # Seen from the header, the left side is on the right.
    assert places["Thalamus_L_centroid"][0] > places["Thalamus_R_centroid"][0]


def test_a_t2_head_is_searched_as_its_flair_is(detector, data_root):
    """Within a visit they are at most 6 mm apart."""
    folder = data_root / "ms_multimodal" / "patient01"
    many = detector.detect_many([folder / f"study1_{name}.nii.gz" for name in ("T2W", "FLAIR")])
    assert [searched_by(found) for found in many] == ["head-any"] * 2
    assert all("contrast" in found.instead[0] for found in many)
    both = [
        (one.position_world, other.position_world)
        for one, other in zip(many[0].landmarks, many[1].landmarks, strict=True)
        if "absent" not in (one.status, other.status)
    ]
    assert len(both) >= 23
    assert np.mean([np.linalg.norm(one - other) for one, other in both]) < 6


def test_alone_a_model_refuses_or_doubts_as_it_does(head_ct):
    alone = LandmarkDetector.load("brain-t1", alone=True)
    with pytest.raises(MedrlError, match="looks like a CT"):
        alone.detect(head_ct)


def test_what_no_model_was_made_for_stays_refused(detector, data_root):
    with pytest.raises(MedrlError, match="looks like a CT"):
        detector.detect(data_root / "body_ct_mr" / "example_ct.nii.gz")


def test_a_t1_head_is_not_handed_on(detector, data_root):
    found = detector.detect(
        data_root / "afids_templates" / "images" / "MNI152NLin2009cAsym_T1w_brain.nii.gz"
    )
    assert searched_by(found) == "brain-t1"
    assert found.instead == ()
