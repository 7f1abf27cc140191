import landmark_accuracy
import numpy as np
import pytest
import SimpleITK as sitk
from evaluation.images import LabelledImage

from medrl.landmark.detection import Landmark
from medrl.landmark.evaluate import AGENTS


def test_large_errors_and_presence_are_those_of_the_agents() -> None:
    image = sitk.Image([50, 50, 50], sitk.sitkFloat32)
    image.SetSpacing([2.0, 2.0, 2.0])
    image.SetOrigin([-49.0, -49.0, -49.0])
    points = {"good": (0, 0, 0), "bad": (10, 0, 0), "missed": (0, 20, 0), "outside": (0, 0, 70)}
    truth = {name: np.array(point, dtype=float) for name, point in points.items()}
    off = {"good": (0, 0, 1), "bad": (0, 6, 0), "missed": (0, 0, 0), "outside": (0, 0, -22)}
    answer = {name: Landmark(name, truth[name] + off[name], "found", 0.9, "") for name in truth} | {
        "missed": Landmark("missed", truth["missed"], "absent", 0.0, "")
    }
    head = LabelledImage("block", "block", image, truth)
    measured = landmark_accuracy.run([head], {AGENTS: lambda _: answer})
    figures = landmark_accuracy.accuracy(measured)
    assert figures["all"]["count"] == 2
    assert figures["all"]["missed"] == 1
    assert figures["all"]["mean"] == pytest.approx(3.5)
    assert figures["above_5_mm"] == [["block", "bad", 6.0]]
    told = landmark_accuracy.presence(measured)
    words = landmark_accuracy.presence_in_words({"presence": {"halves": {"any": told}}})
    assert words == "50.0% right"


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
