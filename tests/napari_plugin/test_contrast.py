"""Black and white: presets of CT, what is chosen for an MR, and the mouse."""

import gc

import napari
import numpy as np
import pytest
from qtpy.QtCore import Qt

from medrl_napari.views.canvas import PLANES
from medrl_napari.views.widget import OrthoViews
from medrl_napari.windowing import PRESETS, auto_limits

#: Width and level as radiologists know them, and the Hounsfield units of black and white.
USUAL = {
    "brain": (80, 40, 0, 80),
    "subdural": (200, 75, -25, 175),
    "bone": (1800, 400, -500, 1300),
    "lung": (1500, -600, -1350, 150),
    "soft tissue": (400, 40, -160, 240),
    "mediastinum": (350, 50, -125, 225),
}


def ct(shape=(40, 40, 40)) -> np.ndarray:
    """A body of 40 HU with bone in air."""
    volume = np.full(shape, -1000, np.float32)
    volume[8:32, 8:32, 8:32] = 40
    volume[16:20, 16:20, 8:32] = 1200
    return volume


def mr(shape=(60, 60, 60), *, unit=1.0) -> np.ndarray:
    """Two tissues in noisy air, and a few voxels of a bright vessel."""
    rng = np.random.default_rng(0)
    volume = np.abs(rng.normal(0, 6, shape))
    volume[15:45, 15:45, 15:45] = rng.normal(300, 20, (30, 30, 30))
    volume[25:40, 15:45, 15:45] = rng.normal(600, 20, (15, 30, 30))
    volume[30, 30, 20:40] = 9000
    return (volume * unit).astype(np.float32)


def test_a_ct_is_shown_as_soft_tissue():
    assert auto_limits(ct()) == (-160, 240)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_an_mr_is_shown_from_air_to_bright_tissue(unit):
    low, high = np.array(auto_limits(mr(unit=unit))) / unit
    assert 0 <= low < 10
    # White is the brightest of the tissue, not the vessel.
    assert 600 < high < 700
    # More air around the patient changes next to nothing.
    padded = np.array(auto_limits(np.pad(mr(unit=unit), 40))) / unit
    np.testing.assert_allclose(padded, (low, high), atol=25)


class Counted:
    """An array that tells how much of it was read."""

    def __init__(self, array):
        self.array, self.shape, self.read = array, array.shape, 0

    def __getitem__(self, key):
        part = self.array[key]
        self.read += part.size
        return part


def test_a_large_scan_is_not_read_as_a_whole():
    volume = Counted(np.random.default_rng(0).uniform(0, 1, (256, 256, 256)).astype(np.float32))
    auto_limits(volume)
    assert 0 < volume.read <= 64**3


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_constant_scan_is_no_trouble(value):
    low, high = auto_limits(np.full((9, 9, 9), value, np.float32))
    assert np.isfinite([low, high]).all()
    assert high > low


# -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def window(qapp):
    """One viewer with the views for all tests that follow."""
    # napari collects garbage whenever a layer goes; there is no need to go through all of torch.
    gc.freeze()
    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    views = OrthoViews(viewer)
    viewer.window.add_dock_widget(views, name="views", area="right")
    yield viewer, views
    viewer.close()
    gc.unfreeze()


@pytest.fixture
def scan(window):
    """A CT in the viewer."""
    viewer, _ = window
    layer = viewer.add_image(ct(), contrast_limits=(0, 100))
    yield layer
    viewer.layers.clear()


def settle(qtbot, views):
    qtbot.waitUntil(lambda: views.up_to_date, timeout=30_000)


def test_presets_set_the_window(window, scan, qtbot):
    _, views = window
    assert [preset.name for preset in PRESETS] == list(USUAL)
    box = views.contrast.presets
    for name, (width, level, low, high) in USUAL.items():
        index = box.findData(name)
        # What a user does: choose it in the list.
        box.setCurrentIndex(index)
        box.activated.emit(index)
        assert tuple(scan.contrast_limits) == (low, high)
        assert (views.contrast.width_box.value(), views.contrast.level_box.value()) == (
            width,
            level,
        )
        assert box.currentData() == name
        settle(qtbot, views)
        for view in views.views:
            assert tuple(view.model.layers[0].contrast_limits) == (low, high)
    scan.contrast_limits = (3, 44)
    assert box.currentData() is None


def test_presets_have_keys_in_every_canvas(window, scan, qtbot):
    viewer, views = window
    canvases = [viewer.window._qt_viewer.canvas.native]
    canvases += [view.canvas.canvas.native for view in views.views]
    keys = [
        Qt.Key.Key_F3,
        Qt.Key.Key_F4,
        Qt.Key.Key_F5,
        Qt.Key.Key_F6,
        Qt.Key.Key_F7,
        Qt.Key.Key_F8,
    ]
    for canvas in canvases:
        for key, (_, _, low, high) in zip(keys, USUAL.values(), strict=True):
            qtbot.keyClick(canvas, key)
            assert tuple(scan.contrast_limits) == (low, high)
        scan.contrast_limits = (0, 1)
        qtbot.keyClick(canvas, Qt.Key.Key_F2)
        assert tuple(scan.contrast_limits) == (-160, 240)


def test_width_and_level_can_be_typed(window, scan):
    _, views = window
    views.contrast.width_box.setValue(600)
    views.contrast.level_box.setValue(-100)
    assert tuple(scan.contrast_limits) == (-400, 200)


@pytest.mark.parametrize("place", ["main", *(plane.name for plane in PLANES)])
def test_the_right_button_drags_the_window_and_does_not_zoom(window, scan, qtbot, mouse, place):
    viewer, views = window
    settle(qtbot, views)
    own = {view.plane.name: view for view in views.views}
    model = viewer if place == "main" else own[place].model
    canvas = viewer.window._qt_viewer.canvas if place == "main" else own[place].canvas.canvas
    scan.contrast_limits = (0, 1000)
    zoom, center = model.scene.camera.zoom, model.scene.camera.center
    mouse.drag(canvas.native, (60, 60), (110, 60), button="right")
    low, high = scan.contrast_limits
    # 500 pixels are the whole range of the values, from -1000 to 1200: 50 are 220.
    assert high - low == pytest.approx(1000 + 220, rel=1e-6)
    assert (high + low) / 2 == pytest.approx(500)
    mouse.drag(canvas.native, (60, 60), (60, 35), button="right")
    low, high = scan.contrast_limits
    assert high - low == pytest.approx(1220, rel=1e-6)
    # Up is brighter: a lower level.
    assert (high + low) / 2 == pytest.approx(500 - 110)
    assert (model.scene.camera.zoom, model.scene.camera.center) == (zoom, center)
    assert viewer.dims.ndisplay == 2


def test_a_drag_never_turns_the_window_round(window, scan, mouse):
    viewer, _ = window
    scan.contrast_limits = (0, 50)
    mouse.drag(viewer.window._qt_viewer.canvas.native, (300, 60), (20, 60), button="right")
    low, high = scan.contrast_limits
    assert low < high < low + 10


def test_a_layer_that_is_drawn_on_keeps_its_right_button(window, scan, mouse):
    viewer, _ = window
    labels = viewer.add_labels(np.zeros(scan.data.shape, np.uint8))
    labels.mode = "paint"
    mouse.drag(viewer.window._qt_viewer.canvas.native, (60, 60), (110, 90), button="right")
    assert tuple(scan.contrast_limits) == (0, 100)
