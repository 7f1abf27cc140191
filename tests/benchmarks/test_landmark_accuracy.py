import landmark_accuracy
import numpy as np
import pytest
import SimpleITK as sitk
from evaluation.cases import Case

from medrl.landmark.detect import Detection, Landmark
from medrl.trajectory import Trajectory


def case_and_detection() -> tuple[Case, Detection]:
    """Four landmarks, one of them outside the scan; errors 1 and 6 mm, one missed, one made up."""
    image = sitk.Image([50, 50, 50], sitk.sitkFloat32)
    image.SetSpacing([2.0, 2.0, 2.0])
    image.SetOrigin([-49.0, -49.0, -49.0])
    points = {"good": (0, 0, 0), "bad": (10, 0, 0), "missed": (0, 20, 0), "outside": (0, 0, 70)}
    truth = {name: np.array(point, dtype=float) for name, point in points.items()}
    found = (
        Landmark("good", truth["good"] + (0, 0, 1), "found", 0.9, ""),
        Landmark("bad", truth["bad"] + (0, 6, 0), "corrected", 0.2, "moved"),
        Landmark("missed", truth["missed"], "absent", 0.0, ""),
        Landmark("outside", np.array([0.0, 0.0, 48.0]), "found", 0.4, ""),
    )
    detection = Detection(found, Trajectory("landmark", (), {}), (), 0.1)
    return Case("block", image, truth), detection


def test_answers_are_counted_where_they_belong() -> None:
    case, detection = case_and_detection()
    answers = landmark_accuracy.compare(case, "block", detection)
    figures = landmark_accuracy.accuracy(answers)
    assert figures["all"]["count"] == 2
    assert figures["all"]["missing"] == 1
    assert figures["all"]["mean_mm"] == pytest.approx(3.5)
    assert figures["corrected_by_shape_prior"] == 1
    assert [entry["landmark"] for entry in figures["above_5_mm"]] == ["bad"]
    told = landmark_accuracy.presence(answers)["all"]
    assert told["present_said_present"] == 2
    assert told["present_said_absent"] == 1
    assert told["absent_said_present"] == 1
    assert told["right_percent"] == pytest.approx(50)


def test_confidence_is_judged_on_present_answers_only() -> None:
    case, detection = case_and_detection()
    figures = landmark_accuracy.trust(landmark_accuracy.compare(case, "block", detection))
    assert figures["judged"] == 2
    assert figures["above_4_mm"] == 1
    assert figures["auc"] == pytest.approx(1.0)
    assert figures["reliability"]["brier"] == pytest.approx((0.1**2 + 0.2**2) / 2)


def test_cases_are_the_same_in_every_run(data_root, monkeypatch) -> None:
    monkeypatch.setenv("MEDRL_DATA", str(data_root.resolve()))
    subject = landmark_accuracy.ixi.subjects("train")[0]
    first = [case.image.GetSize() for case in landmark_accuracy.halves(subject, 1)]
    second = [case.image.GetSize() for case in landmark_accuracy.halves(subject, 1)]
    assert first == second
    assert len(first) == 6
    whole = landmark_accuracy.ixi.load(subject)
    assert all(whole.present.values())
    absent = [not p for c in landmark_accuracy.halves(subject, 1) for p in c.present.values()]
    assert 0.2 < np.mean(absent) < 0.8
