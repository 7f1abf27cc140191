"""Evaluation and baselines against errors that are known beforehand."""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medrl.errors import MedrlError
from medrl.landmark.baselines import AffineAtlas, MeanPosition
from medrl.landmark.data import Sample
from medrl.landmark.evaluate import evaluate, figures
from medrl.volume.itk import from_sitk
from medrl.volume.read import write_nifti

NAMES = ("A", "B", "C")


def save_scan(path: Path, seed: int) -> Path:
    volume = np.random.default_rng(seed).random((20, 20, 20), np.float32)
    nib.save(nib.Nifti1Image(volume, np.diag([5.0, 5, 5, 1])), path)
    return path


class FakeDetector:
    """Answers that are off by a known vector; what it calls absent, by name."""

    landmark_names = NAMES

    def __init__(self, offset, *, absent=(), confidence=(0.9, 0.8, 0.2)):
        self.offset = np.asarray(offset, dtype=float)
        self.absent = absent
        self.confidence = confidence
        self.truth = iter(())

    def detect(self, scan):
        points = next(self.truth)
        landmarks = [
            SimpleNamespace(
                name=name,
                position_world=points.get(name, np.zeros(3)) + self.offset * (k + 1),
                status="absent" if name in self.absent else "found",
                confidence=self.confidence[k],
            )
            for k, name in enumerate(NAMES)
        ]
        return SimpleNamespace(landmarks=landmarks, seconds=0.5)


@pytest.fixture
def cases(tmp_path: Path) -> list[Sample]:
    """Two scans of 0 to 95 mm; C is outside the second, A not labelled in it."""
    first = {"A": np.array([10.0, 20, 30]), "B": np.array([50.0, 50, 50]), "C": np.full(3, 80.0)}
    second = {"B": np.array([40.0, 50, 50]), "C": np.array([80.0, 80, 200])}
    return [
        Sample(save_scan(tmp_path / "s1.nii", 1), first),
        Sample(save_scan(tmp_path / "s2.nii", 2), second),
    ]


def test_errors_presence_and_confidence(cases):
    detector = FakeDetector((0, 3, 4))
    detector.truth = iter([case.points_world for case in cases])
    result = evaluate(detector, cases, baselines=[MeanPosition(cases, NAMES)])
    expected = [[5, 10, 15], [np.nan, 10, np.nan]]
    np.testing.assert_allclose(result.errors_mm["agents"], expected)
    np.testing.assert_allclose(result.errors_mm["mean position"][:, 1], [5, 5])
    summary = result.summary()
    assert summary["presence"] == {
        "present_said_present": 4,
        "present_said_absent": 0,
        "absent_said_present": 1,
        "absent_said_absent": 0,
    }
    every = summary["methods"]["agents"]["all"]
    assert (every["count"], every["mean"], every["max"]) == (4, 10, 15)
    assert (every["above_5"], every["above_10"]) == (0.75, 0.25)
    assert summary["methods"]["agents"]["landmarks"]["A"]["mean"] == 5
    assert summary["confidence_auc"] is None
    rows = {(r["scan"], r["landmark"]): r for r in result.rows() if r["method"] == "agents"}
    assert rows["s2", "C"]["labelled"] == "outside the scan"
    assert rows["s2", "A"]["labelled"] == "no"
    assert rows["s1", "C"]["error_mm"] == 15


def test_absent_answers_are_no_errors_but_counted(cases):
    detector = FakeDetector((0, 0, 1.5), absent=("B", "C"))
    detector.truth = iter([case.points_world for case in cases])
    result = evaluate(detector, cases)
    assert np.isnan(result.errors_mm["agents"][:, 1:]).all()
    presence = result.summary()["presence"]
    assert (presence["present_said_absent"], presence["absent_said_absent"]) == (3, 1)


def test_confidence_auc(cases):
    # Errors 1.5, 3.0, 4.5 mm: only C is bad, and it has the lowest confidence.
    detector = FakeDetector((0, 0, 1.5))
    detector.truth = iter([case.points_world for case in cases])
    assert evaluate(detector, cases).summary()["confidence_auc"] == 1.0


def test_a_bad_scan_does_not_stop_the_others(cases, tmp_path: Path):
    (tmp_path / "broken.nii").touch()
    broken = Sample(tmp_path / "broken.nii", cases[0].points_world)
    detector = FakeDetector((0, 0, 1))
    detector.truth = iter([cases[0].points_world])
    result = evaluate(detector, [broken, cases[0]])
    assert result.scans == ("s1",)
    assert "empty" in result.failed[str(broken.image)]
    with pytest.raises(MedrlError, match="no scan could be used"):
        evaluate(detector, [broken])
    with pytest.raises(MedrlError, match="labelled"):
        evaluate(detector, [Sample(cases[0].image, {"Z": np.zeros(3)})])


def test_figures_of_nothing():
    assert figures(np.array([np.nan])).mean is None
    assert figures(np.array([])).count == 0


def test_affine_atlas_undoes_a_known_affine(data_root: Path, tmp_path: Path):
    """A head, and the same one moved by SimpleITK: the carried points must move alike."""
    path = data_root / "afids_templates" / "images" / "MNI305_T1w.nii.gz"
    head = sitk.ReadImage(str(path), sitk.sitkFloat32)
    moved_from_head = sitk.AffineTransform(3)
    moved_from_head.Rotate(0, 1, 0.15)
    moved_from_head.Scale((1.05, 0.96, 1.03))
    moved_from_head.SetTranslation((9, -6, 12))
    moved = sitk.Resample(head, head, moved_from_head.GetInverse(), sitk.sitkLinear, 0.0)
    write_nifti(tmp_path / "atlas.nii.gz", from_sitk(head))
    points_lps = np.array([[0.0, 0, 0], [30, 20, 10], [-30, 20, 10], [0, -40, 25]])
    names = ("A", "B", "C", "D")
    points = dict(zip(names, points_lps * (-1, -1, 1), strict=True))
    atlas = AffineAtlas([Sample(tmp_path / "atlas.nii.gz", points)], names, count=1, spacing=4.0)
    found = atlas.predict(from_sitk(moved))
    expected = np.array([moved_from_head.TransformPoint(p) for p in points_lps.tolist()])
    assert np.linalg.norm(found - expected * (-1, -1, 1), axis=1).max() < 2.0
