"""Corrections by hand: what they change, and what is written of them."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.landmark.corrections import corrected_by_hand
from medrl.landmark.detection import Detection, Landmark
from medrl.trajectory import AgentPath, Trajectory


def detection():
    places = {"moved": (10.0, 0, 5), "gone": (0, 8.0, 0), "kept": (1, 1, 1), "missed": (90, 0, 0)}
    landmarks, agents = [], []
    for name, place in places.items():
        status = "absent" if name == "missed" else "found"
        sure = 0.0 if name == "missed" else 0.9
        landmarks.append(Landmark(name, np.array(place, dtype=float), status, sure, ""))
        path = np.array([[0.0, 0, 0], place])
        agents.append(
            AgentPath(name, 0, path, np.ones(2), np.array([0, -1]), np.zeros(2), confidence=sure)
        )
    return Detection(tuple(landmarks), Trajectory("landmark", tuple(agents)), (), 0.1)


def corrected():
    points = {"moved": (13.0, 4, 5), "gone": None, "missed": [2, 3, 4]}
    return corrected_by_hand(detection(), points)


def test_what_a_person_changed_is_by_hand_and_the_rest_is_not():
    before, after = detection(), corrected()
    assert [lm.name for lm in after.landmarks] == [lm.name for lm in before.landmarks]
    np.testing.assert_array_equal(after["moved"].position_world, [13, 4, 5])
    assert (after["moved"].status, after["moved"].note) == ("by hand", "moved 5.0 mm")
    assert math.isnan(after["moved"].confidence)
    assert (after["missed"].status, after["missed"].note) == ("by hand", "not found by its agent")
    assert (after["gone"].status, after["gone"].confidence) == ("absent", 0.0)
    assert after["kept"].status == "found"
    assert after["kept"].confidence == 0.9
    assert before["moved"].status == "found"


def test_files_say_what_was_done_by_hand(tmp_path):
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -24
    scan = MetaTensor(torch.rand(1, 24, 24, 24), affine=torch.from_numpy(affine))
    paths = replace(corrected(), scan=scan).save(tmp_path, "s")
    control = json.loads(paths["markups"].read_text())["markups"][0]["controlPoints"]
    described = {point["label"]: point for point in control}
    assert set(described) == {"moved", "kept", "missed"}
    assert described["moved"]["description"] == "corrected by hand; moved 5.0 mm"
    assert described["moved"]["position"] == [-13.0, -4.0, 5.0]
    assert described["kept"]["description"] == "found, confidence 0.90"
    with paths["table"].open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert (rows["moved"]["status"], rows["moved"]["confidence"]) == ("by hand", "")
    assert (rows["gone"]["status"], rows["gone"]["x"]) == ("absent", "")
    assert paths["picture"].stat().st_size > 10_000
