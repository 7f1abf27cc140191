"""The picture of a segmentation, judged by its pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image

from medrl.results.picture import save_picture
from medrl.seednet.picture import draw_segmentation
from medrl.seednet.session import SeedSession
from medrl.volume.channels import Channel


def pixels(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def panel(figure, image: np.ndarray, number: int) -> np.ndarray:
    box = figure.axes[number].get_window_extent()
    rows = slice(int(image.shape[0] - box.y1) + 2, int(image.shape[0] - box.y0) - 2)
    return image[rows, int(box.x0) + 2 : int(box.x1) - 2]


def middle(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0) / mask.shape


@pytest.mark.parametrize("grid", ["flipped", "oblique"])
def test_outline_and_seeds_lie_on_the_object(model, make_scan, grid: str, tmp_path: Path):
    session = SeedSession(model)
    session.set_scan(make_scan(grid, dim=False))
    session.add_seed(make_scan.center, "fg")
    session.add_seed(make_scan.center + np.array([19.0, 0, 0]), "bg")
    session.accept_all()
    figure = draw_segmentation(session, title="a scan")
    assert len(figure.axes) == 3
    image = pixels(figure)
    for number in range(3):
        shown = panel(figure, image, number)
        red, green, blue = shown[..., 0], shown[..., 1], shown[..., 2]
        outline = (red > 200) & (green > 160) & (blue < 130)
        bright = (red > 150) & (np.ptp(shown, axis=2) < 8)
        edge = round(0.12 * min(bright.shape))
        inner = np.zeros_like(bright)
        inner[edge:-edge, edge:-edge] = True
        ball = middle(bright & inner)
        assert np.abs(middle(outline) - ball).max() < 0.05
        if number < 2:
            # 19 mm to the patient's right of the centre: left on the picture.
            seed = middle((red > 220) & (green < 130) & (blue < 130))
            assert seed[1] < ball[1] - 0.1
    texts = [text.get_text() for text in figure.texts]
    assert any("right is on the left" in text for text in texts)
    assert any("ml" in text for text in texts)

    save_picture(tmp_path / "a.png", figure)
    assert Image.open(tmp_path / "a.png").size[0] == 1540


def test_a_row_for_each_image(make_model, make_scan):
    model = make_model(channels=(Channel("CT", "hounsfield"), Channel("PET", "suv")))
    ct, low = make_scan(), make_scan("coarser")
    session = SeedSession(model)
    session.set_scan({"CT": ct, "PET": MetaTensor((low.as_tensor() > 0) * 8.0, affine=low.affine)})
    session.add_seed([make_scan.center, make_scan.center + 5], "fg")
    figure = draw_segmentation(session)
    assert len(figure.axes) == 6
    names = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert {"CT", "PET"} <= set(names)


def test_an_empty_mask(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    session.edit(torch.ones(30, 32, 28, dtype=torch.bool), "bg")
    assert int(session.mask().sum()) == 1
    assert len(draw_segmentation(session).axes) == 3
