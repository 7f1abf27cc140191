"""What a person does to boxes, and where it is kept."""

import json
import math

import numpy as np
import pytest

from medrl.errors import MedrlError
from medrl.localization.answer import Box, Localization
from medrl.localization.corrections import add_sample, corrected_by_hand
from medrl.trajectory import Trajectory

L1, L2 = np.array([[0.0, 0, 0], [10, 20, 30]]), np.array([[0.0, 0, -40], [10, 20, -10]])


def found():
    boxes = (Box("L1", L1, "found", 0.9), Box("L2", L2, "absent", 0.0))
    return Localization(boxes, Trajectory("localization", (), {}), (), 1.0)


def test_boxes_are_moved_added_and_taken_away():
    moved = L1 + np.array([[-1.0, 0, 0], [0, 0, 2.5]])
    now = corrected_by_hand(found(), {"L1": moved, "L2": L2, "L3": L2 - 50, "gone": None})
    assert [box.name for box in now.boxes] == ["L1", "L2", "L3"]
    assert {box.status for box in now.boxes} == {"by hand"}
    assert all(math.isnan(box.confidence) for box in now.boxes)
    assert [box.note for box in now.boxes] == [
        "a wall moved 2.5 mm",
        "not found by its agent",
        "added by hand",
    ]
    np.testing.assert_array_equal(now["L1"].corners_world, moved)
    # What the agents found stays as it was.
    away = corrected_by_hand(found(), {"L1": None})
    assert (away["L1"].status, away["L1"].confidence) == ("absent", 0.0)
    np.testing.assert_array_equal(away["L1"].corners_world, L1)
    assert away["L2"].note == ""
    assert away.confidence is None


@pytest.mark.parametrize(
    "corners", [L1[::-1], L1[:1], np.full((2, 3), np.nan), np.zeros((2, 3)), [[0, 0, 0], [1, 1, 0]]]
)
@pytest.mark.parametrize("name", ["L1", "new"])
def test_what_is_no_box_is_refused(name, corners):
    with pytest.raises(MedrlError, match=f"the box '{name}' is not two corners"):
        corrected_by_hand(found(), {name: corners})


def test_boxes_go_into_a_datalist_and_keep_those_that_were_there(tmp_path):
    boxes = pytest.importorskip("medrl.volume.boxes")
    scan = tmp_path / "s1.nii.gz"
    scan.write_bytes(b"")
    datalist = tmp_path / "training" / "d.json"
    add_sample(datalist, scan, {"L1": L1})
    written = add_sample(datalist, scan, {"L2": L2})
    assert written == datalist.parent / "s1.mrk.json"
    kept = boxes.read_boxes(written)
    np.testing.assert_allclose(kept["L1"], L1)
    np.testing.assert_allclose(kept["L2"], L2)
    (entry,) = json.loads(datalist.read_text())["training"]
    assert entry == {"image": "../s1.nii.gz", "boxes": "s1.mrk.json"}
    with pytest.raises(MedrlError, match="no boxes of"):
        add_sample(datalist, scan, {})
