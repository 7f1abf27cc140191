"""One of the linked views: a plane through the viewer's layers, in a canvas of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.qt import QtViewer
from napari.utils.colormaps.standardize_color import transform_color
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget
from vispy.scene.visuals import Line

from medrl_napari.views.contrast import WindowDrag
from medrl_napari.views.layers import is_tool

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer

#: Lines keep this far from the crosshair's centre, so that what is there can be seen (pixels).
_GAP = 9
#: Half the length of a line, beyond any scan (mm).
_FAR = 1e4
_ZOOM_STEP = 1.15
#: Room that letters keep from the edge (pixels).
_EDGE = 5
_ENDED = object()


@dataclass(frozen=True)
class Plane:
    """A plane, and how it is laid out: the radiological way.

    Attributes:
        name: What it is called.
        axes: Of napari's (z, y, x): across the plane, down and to the right.
        letters: At its left, right, upper and lower edge.
        color: Of its name, and of the line that stands for it in the other views.
    """

    name: str
    axes: tuple[int, int, int]
    letters: tuple[str, str, str, str]
    color: str


AXIAL = Plane("Axial", (0, 1, 2), ("R", "L", "A", "P"), "#ff5a5a")
CORONAL = Plane("Coronal", (1, 0, 2), ("R", "L", "S", "I"), "#37c871")
SAGITTAL = Plane("Sagittal", (2, 0, 1), ("A", "P", "S", "I"), "#ffa94d")
PLANES = (AXIAL, CORONAL, SAGITTAL)


class PlaneView(QWidget):
    """A canvas that shows the twins of the viewer's layers in one plane.

    Left click and drag move the crosshair, right drag sets the window, middle drag pans, the wheel
    goes through the slices, with Ctrl it zooms; with Shift the crosshair follows the mouse. While
    a layer is drawn on, the mouse does what it does in the viewer.
    """

    def __init__(
        self,
        plane: Plane,
        viewer: napari.viewer.Viewer,
        *,
        scan: Callable[[], Image | None],
        parent: QWidget | None = None,
    ) -> None:
        """Make the canvas.

        Args:
            plane: Which.
            viewer: Whose slice position is the crosshair.
            scan: Says which image's window the mouse sets and whose slices the wheel goes through.
            parent: The widget around it.
        """
        super().__init__(parent)
        self.plane = plane
        self._viewer = viewer
        self._scan = scan
        self.model = ViewerModel(title=plane.name, order=plane.axes)
        self.model.theme = viewer.theme
        self.canvas = _Canvas(self.model, viewer)
        self.canvas.dims.hide()
        # A file that is dropped here goes to the window, which opens it for all views.
        self.canvas.setAcceptDrops(False)
        self._window_drag = WindowDrag(self.model, scan)
        self._fitted = True
        self._scrolled = 0.0
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.canvas)
        self._add_letters()
        self._add_crosshair()
        self._add_gestures()
        self.model.scene.camera.events.zoom.connect(self._draw_crosshair)
        self.model.canvas.events.size.connect(self._on_resize)

    def release(self) -> None:
        """Take the canvas down; nothing may be called afterwards."""
        self._native.removeEventFilter(self)
        self._window_drag.release()
        self._lines.parent = None
        self.model.mouse_drag_callbacks.clear()
        self.model.mouse_move_callbacks.clear()
        self.model.mouse_wheel_callbacks.clear()
        self.model.mouse_double_click_callbacks.clear()
        self._make_current()
        self.model.layers.clear()
        self.canvas.close()

    # ---------------------------------------------------------------------------------------------

    def remove(self, twin: Layer) -> None:
        """Show a layer no more."""
        self._make_current()
        self.model.layers.remove(twin)
        self.lay_out()

    @property
    def axes(self) -> tuple[int, int, int]:
        """The plane's axes among all of the viewer's: across, down, to the right."""
        first = self.model.dims.ndim - 3
        across, down, right = (first + axis for axis in self.plane.axes)
        return across, down, right

    def lay_out(self) -> None:
        """Put the axes in the plane's order, after their number changed."""
        dims = self.model.dims
        if dims.ndim >= 3:
            wanted = (*range(dims.ndim - 3), *self.axes)
            if dims.order != wanted:
                dims.order = wanted

    def follow(self) -> None:
        """Show the slice in which the viewer's position lies, and the crosshair at it."""
        own, dims = self.model.dims, self._viewer.dims
        if own.ndim != dims.ndim or own.ndim < 3:
            return
        for name in ("margin_left", "margin_right"):
            if getattr(own, name) != getattr(dims, name):
                setattr(own, name, getattr(dims, name))
        # Along the displayed axes nothing need be cut again: the crosshair's lines tell.
        hidden = own.not_displayed
        if any(own.point[axis] != dims.point[axis] for axis in hidden):
            own.set_point(hidden, [dims.point[axis] for axis in hidden])
        self._draw_crosshair()

    def fit(self) -> None:
        """Show all of the scans; of what lies on them, windows may reach farther."""
        self._fitted = True
        layers = list(self.model.layers)
        scans = [layer for layer in layers if layer._type_string in ("image", "labels")]
        if scans and max(layer.ndim for layer in scans) < self.model.dims.ndim:
            # napari takes the viewer's axes from the layers, so one of them must have time.
            scans += [layer for layer in layers if layer.ndim == self.model.dims.ndim]
        if layers:
            self.model.fit_to_view(layers=scans or layers, margin=0.04)

    @property
    def crosshair_visible(self) -> bool:
        """Whether the lines are drawn."""
        return bool(self._lines.visible)

    @crosshair_visible.setter
    def crosshair_visible(self, visible: bool) -> None:
        self._lines.visible = visible

    # ---------------------------------------------------------------------------------------------

    def _make_current(self) -> None:
        """Let what is freed now be freed in this canvas's OpenGL context."""
        self.canvas.canvas._scene_canvas.set_current()

    def _add_letters(self) -> None:
        self._native = self.canvas.canvas.native
        texts = (*self.plane.letters, self.plane.name)
        self._letters = [QLabel(text, self._native) for text in texts]
        for label in self._letters:
            label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            label.setStyleSheet("background: transparent; color: #dee2e6; font-weight: bold")
        self._letters[-1].setStyleSheet(f"background: transparent; color: {self.plane.color}")
        self._native.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Keep the letters at the edges when the canvas changes its size."""
        if event is not None and event.type() in (QEvent.Type.Resize, QEvent.Type.Show):
            self._place_letters()
        return False

    def _place_letters(self) -> None:
        width, height = self._native.width(), self._native.height()
        for label in self._letters:
            label.adjustSize()
        left, right, top, bottom, name = self._letters
        left.move(_EDGE, (height - left.height()) // 2)
        right.move(width - right.width() - _EDGE, (height - right.height()) // 2)
        top.move((width - top.width()) // 2, _EDGE)
        bottom.move((width - bottom.width()) // 2, height - bottom.height() - _EDGE)
        name.move(_EDGE, _EDGE)

    def _add_crosshair(self) -> None:
        _, down, right = self.plane.axes
        colors = {plane.axes[0]: plane.color for plane in PLANES}
        # The line to the right is the plane across the downward axis, and the other way round.
        line_colors = transform_color([colors[down]] * 4 + [colors[right]] * 4)
        scene = self.canvas.canvas.view.scene
        self._lines = Line(
            pos=np.zeros((8, 3)), color=line_colors, connect="segments", method="gl", parent=scene
        )
        self._lines.order = 1_000_000
        self._lines.set_gl_state("translucent", depth_test=False)
        self._draw_crosshair()

    def _draw_crosshair(self, _event: Any = None) -> None:
        dims = self._viewer.dims
        if dims.ndim < 3 or dims.ndim != self.model.dims.ndim:
            return
        _, down, right = self.axes
        x, y = dims.point[right], dims.point[down]
        gap = _GAP / self.model.scene.camera.zoom
        ends = np.array([-_FAR, -gap, gap, _FAR])
        flat, zero = np.zeros(4), np.zeros(4)
        horizontal = np.stack([x + ends, y + flat, zero], axis=1)
        vertical = np.stack([x + flat, y + ends, zero], axis=1)
        self._lines.set_data(pos=np.concatenate([horizontal, vertical]))

    def _on_resize(self, _event: Any = None) -> None:
        if self._fitted:
            self.fit()

    # ---------------------------------------------------------------------------------------------

    def _add_gestures(self) -> None:
        model = self.model
        # What napari does by default counts on axes in their own order, or zooms.
        model.mouse_drag_callbacks[:] = [self._drag, self._lend, self._window_drag.drag]
        model.mouse_move_callbacks[:] = [self._move]
        model.mouse_wheel_callbacks[:] = [self._wheel]
        model.mouse_double_click_callbacks[:] = [self._double_click]

    def _tools(self) -> list[Any]:
        """What widgets do with the mouse on the viewer's selected layer."""
        active = self._viewer.layers.selection.active
        if active is None or active.mode != "pan_zoom":
            return []
        # A tool that wants the left button in slices keeps napari from panning there.
        wanted = not active.mouse_pan or self._viewer.dims.ndisplay == 3
        return [
            callback for callback in active.mouse_drag_callbacks if wanted and is_tool(callback)
        ]

    def _drawing(self) -> bool:
        """Whether the left button belongs to the selected layer."""
        active = self._viewer.layers.selection.active
        return active is not None and (active.mode != "pan_zoom" or bool(self._tools()))

    def _lend(self, _model: ViewerModel, event: Any) -> Iterator[None] | None:
        """Let a widget's tool, which knows the viewer's layer, work on this canvas too."""
        layer = self._viewer.layers.selection.active
        running = [tool(layer, event) for tool in self._tools()]
        if not running:
            return None
        event.handled = True
        return _side_by_side([gen for gen in running if inspect.isgenerator(gen)])

    def _set_point(self, position: Any) -> None:
        _, down, right = self.axes
        if self._viewer.dims.ndim == self.model.dims.ndim:
            self._viewer.dims.set_point([down, right], [position[down], position[right]])

    def _drag(self, _model: ViewerModel, event: Any) -> Iterator[None]:
        if event.modifiers or self.model.dims.ndim < 3:
            return
        if event.button == 1 and not self._drawing():
            event.handled = True
            self._set_point(event.position)
            yield
            while event.type == "mouse_move":
                self._set_point(event.position)
                yield
        elif event.button == 3 and (self._tools() or not self._drawing()):
            event.handled = True
            camera = self.model.scene.camera
            center, start = np.array(camera.center[-2:]), np.array(event.pos)
            yield
            while event.type == "mouse_move":
                self._fitted = False
                moved = (np.array(event.pos) - start)[::-1] / camera.zoom
                camera.center = tuple(center - moved)
                yield

    def _move(self, _model: ViewerModel, event: Any) -> None:
        if "Shift" in event.modifiers and not event.is_dragging and self.model.dims.ndim >= 3:
            self._set_point(event.position)

    def _wheel(self, _model: ViewerModel, event: Any) -> None:
        event.handled = True
        turned = float(event.delta[1])
        if "Control" in event.modifiers:
            self._zoom(event, _ZOOM_STEP**turned)
        elif not event.modifiers and self.model.dims.ndim >= 3:
            self._scrolled += turned
            steps = int(self._scrolled)
            self._scrolled -= steps
            self._step(-steps)

    def _zoom(self, event: Any, factor: float) -> None:
        """Zoom, and leave what is under the mouse where it is."""
        self._fitted = False
        camera = self.model.scene.camera
        _, down, right = self.axes
        under = np.array([event.position[down], event.position[right]])
        center = np.array(camera.center[-2:])
        camera.zoom *= factor
        camera.center = tuple(under + (center - under) / factor)

    def _step(self, slices: int) -> None:
        """Go through the slices of the scan: towards head, front and right for less than none."""
        if not slices:
            return
        across, dims = self.axes[0], self._viewer.dims
        first, _, step = dims.range[across]
        scan = self._scan()
        if scan is not None and scan.ndim >= 3:
            axis = self.plane.axes[0] - 3
            first, step = scan.translate[axis], scan.scale[axis]
        number = round((dims.point[across] - first) / step) + slices
        dims.set_point(across, first + number * step)

    def _double_click(self, _model: ViewerModel, _event: Any) -> None:
        """Show this plane in the viewer's own canvas."""
        if not self._drawing() and self._viewer.dims.ndim == self.model.dims.ndim:
            self._viewer.dims.ndisplay = 2
            self._viewer.dims.order = self.model.dims.order


def _side_by_side(generators: list[Any]) -> Iterator[None]:
    """Advance several mouse generators with each event, until all have ended."""
    while generators:
        generators = [one for one in generators if next(one, _ENDED) is not _ENDED]
        if generators:
            yield


class _Canvas(QtViewer):
    """napari's canvas, whose keys go to the window's viewer and layers: they are the truth."""

    def __init__(self, model: ViewerModel, viewer: napari.viewer.Viewer) -> None:
        self._window_viewer = viewer
        super().__init__(model)

    def _on_active_change(self) -> None:
        viewer = self._window_viewer
        active = viewer.layers.selection.active
        self._key_map_handler.keymap_providers = [
            *([] if active is None else [active]),
            viewer,
        ]
