"""The frame of a picture: panels where they belong, and what must stand in every one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image

from medrl.results.picture import (
    Sheet,
    line_handle,
    marker_handle,
    projected_handle,
    row_height,
    save_picture,
)
from medrl.results.views import VIEWS, display_volume


@pytest.fixture
def shown():
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.5, 1.0], dtype=torch.float64))
    return display_volume(MetaTensor(torch.rand(1, 40, 30, 50), affine=affine))


def test_a_row_fills_the_width_in_the_proportions_of_the_body(shown):
    high = row_height(shown, 12.0)
    sheet = Sheet(12.0, high + 1)
    panels = list(sheet.row(shown, 0.5, high))
    assert [view for view, _ in panels] == list(VIEWS)
    right = 0.0
    for view, axes in panels:
        box = axes.get_position()
        assert box.x0 * 12 > right
        wide, tall = box.width * 12, box.height * (high + 1)
        assert wide / tall == pytest.approx(shown.size_mm(view.right) / shown.size_mm(view.up))
        right = box.x1 * 12
    assert 11.5 < right < 12
    assert row_height(shown, 1000.0) == 8.0


def test_every_picture_says_how_to_read_it(shown, tmp_path: Path):
    sheet = Sheet(10.0, 4.0)
    handles = [line_handle("path", "red"), marker_handle("seed", "o", "red"), projected_handle(2.5)]
    figure = sheet.finish("a scan", "3 found", handles, note="One is missing. ")
    texts = [text.get_text() for text in figure.texts]
    assert texts[:2] == ["a scan", "3 found"]
    line = texts[2]
    assert "right is on the left" in line
    assert "One is missing." in line
    assert line.endswith("For research; not for diagnosis.")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["path", "seed", "more than 2.5 mm off the slice, projected"]
    save_picture(tmp_path / "a.png", figure)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert picture.shape == (440, 1100, 3)
    assert picture.std() > 0
