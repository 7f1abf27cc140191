"""Evaluation and baselines against errors that are known beforehand."""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medrl.errors import MedrlError
from medrl.landmark.baselines import LandmarkAtlas, MeanPosition
from medrl.landmark.data import Sample
from medrl.landmark.evaluate import evaluate
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
    model = SimpleNamespace(settings=SimpleNamespace(good_mm=4.0))

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


def single(evaluation, metric="error_mm", method="agents"):
    """Values of one method by scan and landmark."""
    return {
        (row["case"], row["group"]): row["value"]
        for row in evaluation.files["rows.csv"]
        if row["metric"] == metric and row["method"] == method
    }


def test_errors_and_presence(cases):
    detector = FakeDetector((0, 3, 4))
    detector.truth = iter([case.points_world for case in cases])
    result = evaluate(detector, cases, baselines=[MeanPosition(cases, NAMES)])
    assert single(result) == {
        ("s1", "A"): 5,
        ("s1", "B"): 10,
        ("s1", "C"): pytest.approx(15),
        ("s2", "B"): 10,
    }
    assert single(result, method="mean position")["s2", "B"] == 5
    summary = result.summary
    assert summary["presence"] == {
        "true_positive": 4,
        "false_negative": 0,
        "false_positive": 1,
        "true_negative": 0,
    }
    every = summary["methods"]["agents"]["all"]
    assert (every["count"], every["missed"], every["mean"], every["max"]) == (4, 0, 10, 15)
    assert (every["above_5"], every["above_10"]) == (0.75, 0.25)
    assert summary["methods"]["agents"]["landmarks"]["A"]["mean"] == 5
    assert summary["agents_minus"]["mean position"]["pairs"] == 4
    assert summary["confidence"]["auc"] is None
    assert summary["confidence"]["bad"] == 4
    assert single(result, "margin_mm")["s2", "C"] < 0
    assert "of 4 landmarks in the scans, 0 called absent; of 1 outside, 1 called" in result.lines[0]


def test_a_landmark_called_absent_is_a_miss(cases):
    detector = FakeDetector((0, 0, 1.5), absent=("B", "C"))
    detector.truth = iter([case.points_world for case in cases])
    summary = evaluate(detector, cases).summary
    every = summary["methods"]["agents"]["all"]
    assert (every["count"], every["missed"], every["above_10"]) == (1, 3, 0.75)
    told = summary["presence"]
    assert (told["false_negative"], told["true_negative"]) == (3, 1)


def test_what_the_confidence_is_worth(cases):
    # Errors 1.5, 3.0, 4.5 mm: only C is bad, and it has the lowest confidence.
    detector = FakeDetector((0, 0, 1.5))
    detector.truth = iter([case.points_world for case in cases])
    told = evaluate(detector, cases).summary["confidence"]
    assert (told["judged"], told["bad"], told["auc"]) == (4, 1, 1.0)
    expected = np.mean([0.1**2, 0.2**2, 0.2**2, 0.2**2])
    assert told["reliability"]["brier"] == pytest.approx(expected)


def test_a_bad_scan_does_not_stop_the_others(cases, tmp_path: Path):
    (tmp_path / "broken.nii").touch()
    broken = Sample(tmp_path / "broken.nii", cases[0].points_world)
    detector = FakeDetector((0, 0, 1))
    detector.truth = iter([cases[0].points_world])
    result = evaluate(detector, [broken, cases[0]])
    assert {case for case, _ in single(result)} == {"s1"}
    assert "empty" in result.summary["failed"]["broken"]
    assert [str(broken.image) in line for line in result.failed] == [True]
    with pytest.raises(MedrlError, match="no scan could be used"):
        evaluate(detector, [broken])
    with pytest.raises(MedrlError, match="labelled"):
        evaluate(detector, [Sample(cases[0].image, {"Z": np.zeros(3)})])


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
    atlas = LandmarkAtlas([Sample(tmp_path / "atlas.nii.gz", points)], names, count=1, spacing=4.0)
    found = atlas.predict(from_sitk(moved))
    expected = np.array([moved_from_head.TransformPoint(p) for p in points_lps.tolist()])
    assert np.linalg.norm(found - expected * (-1, -1, 1), axis=1).max() < 2.0
