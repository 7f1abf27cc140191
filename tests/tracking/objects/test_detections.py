"""Tables of detections: both forms of CSV, and what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medrl.errors import MedrlError
from medrl.tracking.objects.detections import Detections, boxes_of_labels, read_detections

NAMED = "frame,track,cx,cy,x0,y0,x1,y1\n1,7,2,3,1,1,4,6\n0,7,2,3,0,1,4,6\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def test_named_columns(tmp_path: Path) -> None:
    table = read_detections(written(tmp_path, NAMED))
    assert table.frame.tolist() == [0, 1]
    assert table.track.tolist() == [7, 7]
    # An edge at 0 is the outer face of the first voxel, whose middle is 0.
    np.testing.assert_array_equal(table.box[0], [[-0.5, 0.5, -0.5], [3.5, 5.5, 0.5]])


def test_both_forms_agree(tmp_path: Path) -> None:
    named = read_detections(written(tmp_path, NAMED))
    mot = read_detections(written(tmp_path, "1,7,1,2,4,5,1\n2,7,2,2,3,5,0.5\n"))
    np.testing.assert_array_equal(mot.box, named.box)
    np.testing.assert_array_equal(mot.frame, named.frame)
    np.testing.assert_array_equal(mot.score, [1.0, 0.5])


def test_volumes(tmp_path: Path) -> None:
    table = read_detections(written(tmp_path, "frame,x0,y0,z0,x1,y1,z1\n0,0,0,2,1,1,4\n"))
    np.testing.assert_array_equal(table.box[0, :, 2], [1.5, 3.5])
    assert table.track.tolist() == [-1]


def test_points_get_a_size(tmp_path: Path) -> None:
    path = written(tmp_path, "frame,x0,y0,x1,y1\n0,5,5,5,5\n")
    table = read_detections(path, size=4)
    np.testing.assert_array_equal(table.box[0], [[2.5, 2.5, -0.5], [6.5, 6.5, 0.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("frame,x0,y0\n0,1,1\n", "no column x1, y1"),
        ("frame,x0,y0,x1,y1\n0,5,5,5,5\n", "no size"),
        ("frame,x0,y0,x1,y1\n0,1,2,a,5\n", "not made of numbers"),
        ("frame,x0,y0,x1,y1\n0,1,2,nan,5\n", "not finite"),
        ("frame,x0,y0,x1,y1\n0,1,2\n", "more or fewer fields"),
        ("frame,track,x0,y0,x1,y1\n0,3,0,0,1,1\n0,3,4,4,5,5\n", "identity 3 is given twice"),
        ("1,2,3\n", "fewer than six columns"),
        ("0,1,1,1,4,4,1\n", "count from 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(MedrlError, match=message) as caught:
        read_detections(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(MedrlError, match="no such file"):
        read_detections(tmp_path / "nothing.csv")


def test_a_frame_beyond_the_film() -> None:
    one = Detections.of([9], np.array([[[0, 0, 0], [1, 1, 1]]]))
    with pytest.raises(MedrlError, match="of frame 9, but the film ends with frame 4"):
        one.check_fits((5, 10, 10, 10))


def test_boxes_of_labels_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    labels, count = ndimage.label(rng.random((20, 18, 6)) < 0.1)
    table = boxes_of_labels(labels, 3)
    assert len(table) == count
    for value, cut in enumerate(ndimage.find_objects(labels), start=1):
        box = table.box[table.label == value][0]
        np.testing.assert_array_equal(box[0] + 0.5, [side.start for side in cut])
        np.testing.assert_array_equal(box[1] + 0.5, [side.stop for side in cut])
