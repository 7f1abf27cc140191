import landmark_accuracy
import numpy as np
import pytest
import SimpleITK as sitk
from evaluation.images import LabelledImage
from landmark_accuracy import AGENTS, Found

from medrl.evaluation import Measurements


@pytest.fixture(scope="module")
def measured() -> Measurements:
    """Four landmarks, one of them outside the scan; errors 1 and 6 mm, one missed, one made up."""
    image = sitk.Image([50, 50, 50], sitk.sitkFloat32)
    image.SetSpacing([2.0, 2.0, 2.0])
    image.SetOrigin([-49.0, -49.0, -49.0])
    points = {"good": (0, 0, 0), "bad": (10, 0, 0), "missed": (0, 20, 0), "outside": (0, 0, 70)}
    truth = {name: np.array(point, dtype=float) for name, point in points.items()}
    answer = {
        "good": Found(truth["good"] + (0, 0, 1), True, 0.9),
        "bad": Found(truth["bad"] + (0, 6, 0), True, 0.2),
        "missed": Found(truth["missed"], False, 0.0),
        "outside": Found(np.array([0.0, 0.0, 48.0]), True, 0.4),
    }
    head = LabelledImage("block", "block", image, truth)
    return landmark_accuracy.run([head], {AGENTS: lambda _: answer})


def test_answers_are_counted_where_they_belong(measured) -> None:
    figures = landmark_accuracy.accuracy(measured)
    assert figures["all"]["count"] == 2
    assert figures["all"]["missed"] == 1
    assert figures["all"]["mean"] == pytest.approx(3.5)
    assert figures["all"]["above_5"] == pytest.approx(2 / 3)
    assert figures["above_5_mm"] == [["block", "bad", 6.0]]
    told = landmark_accuracy.presence(measured)["all"]
    assert told["counts"].true_positive == 2
    assert told["counts"].false_negative == 1
    assert told["counts"].false_positive == 1
    assert told["accuracy"] == pytest.approx(0.5)


def test_confidence_is_judged_on_present_answers_only(measured) -> None:
    figures = landmark_accuracy.trust(measured)
    assert figures["judged"] == 2
    assert figures["above_4_mm"] == 1
    assert figures["auc"] == pytest.approx(1.0)
    assert figures["reliability"].brier == pytest.approx((0.1**2 + 0.2**2) / 2)


def test_cases_are_the_same_in_every_run(data_root, monkeypatch) -> None:
    monkeypatch.setenv("MEDRL_DATA", str(data_root.resolve()))
    subject = landmark_accuracy.ixi.subjects("train")[0]
    first, second = (list(landmark_accuracy.halves(subject, 1)) for _ in range(2))
    assert [h.image.GetSize() for h in first] == [h.image.GetSize() for h in second]
    assert len({head.name for head in first}) == 6
    whole = landmark_accuracy.ixi.load(subject)
    assert all(whole.present.values())
    absent = [not there for head in first for there in head.present.values()]
    assert 0.2 < np.mean(absent) < 0.8
