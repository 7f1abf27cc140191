"""The picture, judged by its pixels: right is left, round is round, crosses are on target."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image

from medrl.landmark.detection import Detection, Landmark
from medrl.landmark.picture import draw_detection, short_name
from medrl.results.picture import save_picture
from medrl.trajectory import AgentPath, Trajectory

TARGET = np.array([24.0, 30.0, 18.0])  # right, anterior, up


def blob_scan(signs=(1, 1, 1), spacing=(2.0, 1.5, 4.0)) -> MetaTensor:
    """A bright ball of radius 8 mm at TARGET in a grey cube of +-60 mm, any axis direction."""
    shape = [round(120 / s) + 1 for s in spacing]
    affine = np.diag([*(np.array(signs) * spacing), 1.0])
    affine[:3, 3] = -np.array(signs) * 60.0
    voxel = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = voxel * np.diag(affine)[:3] + affine[:3, 3]
    distance = np.linalg.norm(world - TARGET, axis=-1)
    volume = 50 + 200 * np.clip((10 - distance) / 4, 0, 1)
    return MetaTensor(torch.from_numpy(volume)[None].float(), affine=torch.from_numpy(affine))


def detection(*landmarks: Landmark, path=None) -> Detection:
    agents = [
        AgentPath(
            name=landmark.name,
            start=0,
            positions_world=np.array([[0.0, 0, 0], [8, 0, 0], [8, 4, 0]]) if path is None else path,
            scales_mm=np.array([8.0, 4, 4]),
            actions=np.array([0, 2, -1]),
            values=np.zeros(3),
        )
        for landmark in landmarks
    ]
    return Detection(landmarks, Trajectory("landmark", tuple(agents), {}), (), 0.1)


def landmark(name="AC", place=TARGET, status="found", confidence=0.9) -> Landmark:
    return Landmark(name, np.asarray(place, dtype=float), status, confidence, "")


def pixels(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def panel(figure, image: np.ndarray, number: int) -> np.ndarray:
    """The part of the rendered figure that one of its axes covers."""
    box = figure.axes[number].get_window_extent()
    rows = slice(int(image.shape[0] - box.y1) + 2, int(image.shape[0] - box.y0) - 2)
    return image[rows, int(box.x0) + 2 : int(box.x1) - 2]


def bright_grey(image: np.ndarray) -> np.ndarray:
    """(P, 2) rows and columns of pixels that are nearly white, text aside."""
    spread = image.max(axis=2) - image.min(axis=2)
    mask = (image.min(axis=2) > 150) & (spread < 8)
    inner = np.zeros_like(mask)
    edge_r, edge_c = (round(0.12 * n) for n in mask.shape)
    inner[edge_r:-edge_r, edge_c:-edge_c] = True
    return np.argwhere(mask & inner)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_radiological_convention_and_aspect(signs):
    """Nothing is drawn over the scan here: an absent landmark has no marker."""
    nowhere = detection(landmark(status="absent"), path=np.full((3, 3), 500.0))
    figure = draw_detection(blob_scan(signs), nowhere)
    # The slice is the middle one; move the ball there by looking along each axis in turn.
    image = pixels(figure)
    assert len(figure.axes) == 3
    scan = blob_scan(signs)
    middle = {0: TARGET * (1, 1, 0), 1: TARGET * (1, 0, 1), 2: TARGET * (0, 1, 1)}
    for number, place in middle.items():
        affine = scan.affine.clone()
        affine[:3, 3] += torch.from_numpy(place - TARGET)
        moved = MetaTensor(scan.as_tensor(), affine=affine)
        # A landmark on the wanted slice chooses it; its marker is small and coloured.
        figure = draw_detection(
            moved, detection(landmark(place=place), path=np.full((3, 3), 500.0))
        )
        image = panel(figure, pixels(figure), number)
        found = bright_grey(image)
        center = found.mean(axis=0) / image.shape[:2]
        up, left = center[0] < 0.5, center[1] < 0.5
        # Axial and coronal: right is left. Sagittal: anterior is left. Up is anterior or superior.
        assert (up, left) == (True, True), number
        height, width = np.ptp(found, axis=0) + 1
        assert height / width == pytest.approx(1, abs=0.12)


def test_crosshair_is_on_target():
    figure = draw_detection(blob_scan((-1, 1, -1)), detection(landmark()))
    image = pixels(figure)
    tile = panel(figure, image, 3)
    green = (tile[..., 1] - tile[..., 0] > 60) & (tile[..., 1] > 120)
    cross = np.argwhere(green).mean(axis=0)
    ball = bright_grey(tile).mean(axis=0)
    # A tile of 64 mm: one millimetre is this many pixels.
    millimetre = tile.shape[0] / 64
    assert np.abs(cross - ball).max() < 1.5 * millimetre


def test_many_kinds_of_landmarks(tmp_path: Path):
    found = detection(
        landmark("Putamen_L_centroid", confidence=0.99),
        landmark("a rather long name of a landmark", (20, 28, 18), confidence=0.6),
        landmark("low", (0, 0, 0), confidence=0.1),
        landmark("unknown", (-20, 0, 0), confidence=float("nan")),
        landmark("moved", (-10, 10, 20), status="corrected", confidence=0.4),
        landmark("outside", (0, 0, 300), status="absent", confidence=0.0),
        *[landmark(f"n{n}", (n, n, n)) for n in range(-20, 28)],
    )
    path = tmp_path / "a.png"
    figure = draw_detection(blob_scan(), found, title="a scan")
    save_picture(path, figure)
    image = Image.open(path)
    assert image.format == "PNG"
    assert image.size[0] == 1650
    text = [t.get_text() for t in figure.texts]
    assert any("Not in this scan: outside" in line for line in text)
    assert any("right is on the left" in line for line in text)


def test_nothing_found_in_a_ct():
    scan = blob_scan()
    scan = MetaTensor(scan.as_tensor() - 1000, affine=scan.affine)
    figure = draw_detection(scan, detection(landmark(status="absent", place=(0, 0, 400))))
    assert len(figure.axes) == 3
    assert figure.axes[0].images[0].get_clim() == (-160.0, 240.0)


def test_no_global_state():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    draw_detection(blob_scan(), detection(landmark()))
    assert plt.get_fignums() == before


def test_short_names():
    assert short_name("Putamen_L_centroid") == "Putamen L"
    assert short_name("AC") == "AC"
