"""What a localization leaves on disk, read by others, and its picture."""

from __future__ import annotations

import csv
import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.localization.answer import Box, Localization
from medrl.localization.picture import draw_localization
from medrl.trajectory import Trajectory

FOUND = np.array([[-10.0, 4, 6], [8.0, 20, 30]])
#: Voxels of 2 x 3 x 2.5 mm, the first axis to the left, the second to the feet.
AFFINE = np.array([[-2.0, 0, 0, 20], [0, 0, 2.5, -10], [0, -3.0, 0, 50], [0, 0, 0, 1]])


@pytest.fixture
def localization() -> Localization:
    """A box found, one by hand and one that is not there; every voxel has its own value."""
    values = torch.arange(22.0 * 24 * 26).reshape(1, 22, 24, 26)
    boxes = (
        Box("L1", FOUND, "found", 0.9),
        Box("L2", FOUND + 3, "by hand", math.nan, "a wall moved 3.0 mm"),
        Box("L3", FOUND + 99, "absent", 0.0),
    )
    told = Trajectory("localization", (), provenance={"model": "m", "version": "1", "scan": "a"})
    return Localization(boxes, told, (), 0.1, MetaTensor(values, affine=torch.from_numpy(AFFINE)))


def test_slicer_finds_boxes_where_they_are(localization, tmp_path):
    files = localization.save(tmp_path, "a", picture=False)
    content = json.loads(files["markups"].read_text())
    assert [one["type"] for one in content["markups"]] == ["ROI", "ROI"]
    first = content["markups"][0]
    assert first["coordinateSystem"] == "LPS"
    np.testing.assert_allclose(np.multiply(first["center"], [-1, -1, 1]), FOUND.mean(axis=0))
    size = np.abs(np.reshape(first["orientation"], (3, 3)) @ np.array(first["size"]))
    np.testing.assert_allclose(size, FOUND[1] - FOUND[0])


def test_the_table_has_a_row_for_what_is_not_there(localization, tmp_path):
    files = localization.save(tmp_path, "a", picture=False)
    with open(files["table"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["found", "by hand", "absent"]
    assert [float(rows[0][f"{axis}_{end}"]) for end in ("min", "max") for axis in "xyz"] == [
        *FOUND.ravel()
    ]
    assert rows[1]["confidence"] == ""
    assert rows[2]["x_min"] == ""


def test_a_crop_lies_where_it_was_cut_out(localization, tmp_path):
    files = localization.save(tmp_path, "a", picture=False, crop=["L1"], margin_mm=4)
    part = nib.load(files["crop of L1"])
    whole, values = localization.scan.numpy()[0], part.get_fdata()
    index = np.argwhere(np.ones(values.shape, bool))
    world = nib.affines.apply_affine(part.affine, index)
    there = np.rint(nib.affines.apply_affine(np.linalg.inv(AFFINE), world)).astype(int)
    np.testing.assert_array_equal(values.ravel(), whole[tuple(there.T)])
    # Its outer faces are those of the voxels that the box and its margin touch.
    spacing = np.array([2.0, 2.5, 3.0])
    assert (world.min(axis=0) - spacing / 2 <= FOUND[0] - 4 + 1e-6).all()
    assert (world.max(axis=0) + spacing / 2 >= FOUND[1] + 4 - 1e-6).all()
    assert (world.min(axis=0) + spacing / 2 > FOUND[0] - 4 - spacing).all()
    with pytest.raises(MedrlError, match="there is no L3"):
        localization.save(tmp_path, "b", crop=["L3"])
    assert not list(tmp_path.glob("b*"))


def test_the_picture_has_a_rectangle_for_each_box_that_is_there(localization):
    from matplotlib.patches import Rectangle

    figure = draw_localization(localization.scan, localization, title="a")
    drawn = [p for axes in figure.axes for p in axes.patches if isinstance(p, Rectangle)]
    # Three views and a tile of its own.
    assert len(drawn) == 2 * 4
    extents = {(round(abs(p.get_width()), 2), round(abs(p.get_height()), 2)) for p in drawn}
    x, y, z = FOUND[1] - FOUND[0]
    assert extents == {(x, y), (x, z), (y, z)}
    words = " ".join(text.get_text() for text in figure.findobj(lambda o: hasattr(o, "get_text")))
    assert "Not in this scan: L3" in words
    assert "2 of 3 boxes found" in words
