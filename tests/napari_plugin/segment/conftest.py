"""A user before a real viewer, with a mouse and a keyboard; a model that needs no training."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from medrl.data.targets import Target
from medrl.seednet.segment import SeedSegmenter
from medrl.seednet.session import SeedSession

if importlib.util.find_spec("napari") is not None:
    import napari
    from qtpy.QtCore import Qt

    from medrl_napari.scans import KEY, add, center_views, image_layer, show
    from medrl_napari.segment import session_panel as segment
    from medrl_napari.segment.widget import SegmentWidget
    from medrl_napari.space import AXES

_spec = importlib.util.spec_from_file_location(
    "seednet_conftest", Path(__file__).parents[2] / "seednet" / "conftest.py"
)
seednet = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(seednet)


#: The middle of a voxel of the straight grid, inside the ball.
SPOT = seednet.CENTER + np.array([1.0, 1.0, -1.0])


@pytest.fixture(scope="module")
def window(qapp):
    """One napari for all tests of this file."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(900, 700)
    viewer.window._qt_viewer.dockLayerControls.hide()
    viewer.add_points(np.empty((0, 3)), name="ground", visible=False, **AXES)
    yield viewer
    viewer.close()


def clear(viewer):
    """Remove all layers of a test."""
    # Mesa's software renderer may crash when napari draws between two steps of a removal.
    native = viewer.window._qt_viewer.canvas.native
    native.setUpdatesEnabled(False)
    for layer in list(viewer.layers):
        if layer.name != "ground":
            viewer.layers.remove(layer)
    native.setUpdatesEnabled(True)


class Driver:
    """A user with a mouse and a keyboard."""

    def __init__(self, viewer, widget, qtbot, mouse, docks):
        self.viewer, self.widget, self.docks = viewer, widget, docks
        self.qtbot, self.mouse = qtbot, mouse
        self.canvas = viewer.window._qt_viewer.canvas

    def pixel(self, point_world):
        """Where the canvas shows a world point, by vispy's own transforms."""
        frame = self.widget._annotation.shown.frame
        there = frame.to_napari(point_world)[list(self.viewer.dims.displayed)]
        x, y, _, w = self.canvas.view.scene.transform.map([*there[::-1], 0][:3])
        return x / w, y / w

    def go_to(self, point_world, *, zoom=6.0):
        there = self.widget._annotation.shown.frame.to_napari(point_world)
        center_views(self.viewer, there)
        self.viewer.scene.camera.center = tuple(there)
        self.viewer.scene.camera.zoom = zoom
        self.draw()

    def draw(self):
        """Until the canvas has drawn itself anew."""
        drawn = []
        self.canvas._scene_canvas.events.draw.connect(drawn.append)
        self.canvas._scene_canvas.update()
        self.until(lambda: bool(drawn))
        self.canvas._scene_canvas.events.draw.disconnect(drawn.append)

    def click(self, point_world, modifier=None):
        self.drag([point_world], modifier)

    def drag(self, points_world, modifier=None):
        self.qtbot.wait(10)  # the window may still be finding its size
        native = self.canvas.native
        pixels = [self.pixel(point) for point in points_world]
        self.mouse.move(native, pixels[0], modifier=modifier)
        self.mouse.press(native, pixels[0], modifier=modifier)
        for pixel in pixels[1:]:
            self.mouse.move(native, pixel, "left", modifier)
        self.mouse.release(native, pixels[-1], modifier=modifier)

    def hover(self, point_world):
        self.mouse.move(self.canvas.native, self.pixel(point_world))

    def key(self, key, modifier=None):
        modifier = Qt.KeyboardModifier.NoModifier if modifier is None else modifier
        self.qtbot.keyClick(self.canvas.native, key, modifier)

    def undo(self):
        self.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)

    def redo(self):
        modifiers = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
        self.key(Qt.Key.Key_Z, modifiers)

    @staticmethod
    def at(x=0.0, y=0.0, z=0.0):
        """A world point so far (RAS mm) from the middle of a voxel inside the ball."""
        return SPOT + np.array([x, y, z])

    def press(self, button):
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def until(self, condition):
        # The first seed of a fresh checkout waits for numba, a minute on a busy machine.
        self.qtbot.waitUntil(condition, timeout=180_000)

    def settle(self):
        """Until everything is done that was asked for, and the agent has spoken."""
        self.until(lambda: not self.widget._seeds.pending and self.widget.next.text() != "…")

    @property
    def right(self):
        """The direction (RAS) that is to the right on the screen."""
        frame = self.widget._annotation.shown.frame
        return frame.to_world(np.eye(3)[self.viewer.dims.displayed[-1]])

    def close(self):
        """Close the widget's dock."""
        self.viewer.window.remove_dock_widget(self.docks.pop())

    def clear(self):
        """Remove all layers."""
        clear(self.viewer)

    def click_somewhere(self):
        middle = self.canvas.native.rect().center()
        self.qtbot.mouseClick(self.canvas.native, Qt.MouseButton.LeftButton, pos=middle)

    @property
    def seeds(self):
        return self.widget._annotation.layers.seeds.metadata[KEY]["seeds"]

    @property
    def agents(self):
        return [seed for seed in self.seeds if seed.who == "agent"]

    @property
    def mask(self):
        """What the layer shows, in the scan's grid."""
        layers = self.widget._annotation.layers
        return layers.shown.to_scan_grid(np.asarray(layers.objects.data))


@pytest.fixture
def model():
    return seednet.bright_model(targets=(Target("whole"), Target("anterior")))


@pytest.fixture
def open_user(window, qtbot, mouse, monkeypatch, tmp_path, model):
    """Opens a scan and the widget, presses Start, and waits."""
    monkeypatch.setenv("MEDRL_DATA_DIR", str(tmp_path / "data"))
    widgets = []

    def open_(grid="straight", *, scan=None, start=True, real=False):
        if not real:
            segmenter = SeedSegmenter(model, manifest={"name": "bright"})
            monkeypatch.setattr(segment, "load_model", lambda _: segmenter)
        scan = seednet.ball_scan(*seednet.GRIDS[grid]) if scan is None else scan
        add(window, image_layer(show(scan), name="ball"))
        widget = SegmentWidget(window)
        widgets.append(window.window.add_dock_widget(widget, name="Segment", area="right"))
        user = Driver(window, widget, qtbot, mouse, widgets)
        if start:
            user.press(widget.start)
            user.until(lambda: widget._seeds.state is not None)
            user.go_to(SPOT)
        return user

    yield open_
    for dock in widgets:
        window.window.remove_dock_widget(dock)
    window.dims.ndisplay = 2
    clear(window)


@pytest.fixture
def balls():
    """Makes scans of balls: `ball_scan`, `GRIDS`, `CENTER`, `RADIUS`."""
    return seednet


@pytest.fixture
def direct_session(model):
    """What a session without any window makes of seeds."""

    def make(scan, seeds, *, model=model):
        session = SeedSession(model)
        session.set_scan(scan)
        for seed in seeds:
            session.add_seed(seed.points_world, seed.label)
        return session

    return make
