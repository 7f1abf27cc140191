"""Three linked views of everything in the viewer: axial, coronal and sagittal, with a crosshair."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import (
    QLabel,
    QSizePolicy,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from medrl_napari.names import thin_names
from medrl_napari.scans import frame_of_viewer
from medrl_napari.views.canvas import PLANES, PlaneView
from medrl_napari.views.contrast import ContrastWidget, windowed_layer
from medrl_napari.views.layers import Twins, value_at
from medrl_napari.widgets import row, tool_button

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

#: Of the window's time, at most one part in so many goes into the views while others draw.
_SHARE = 3
_LONGEST_MS = 400
_CROSSHAIR_KEY = "Shift-X"
_TIP = (
    "Click or drag: move the crosshair · Shift: it follows the mouse · wheel: slices · "
    "Ctrl+wheel: zoom · middle button: pan · right button: window and level · "
    "double click: show this plane in the main view"
)


class OrthoViews(QWidget):
    """Axial, coronal and sagittal views that follow the viewer, in a dock.

    The position of the viewer's slices is the crosshair. Layers are shared: what is drawn, placed
    or moved in one view is so in all.

    Attributes:
        views: The three, axial first.
        contrast: Window and level.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """Show what is in the viewer.

        Args:
            napari_viewer: The viewer.
        """
        super().__init__()
        self._viewer = napari_viewer
        self._twins: dict[Layer, Twins] = {}
        self._released = False
        self._window: QWidget = napari_viewer.window._qt_window
        self._window.installEventFilter(self)
        self._cost_ms = 0.0
        self._timer = QTimer(self, singleShot=True)
        self._timer.timeout.connect(self._update)
        self.views = [
            PlaneView(plane, napari_viewer, scan=lambda: windowed_layer(napari_viewer))
            for plane in PLANES
        ]
        models = (napari_viewer, *(view.model for view in self.views))
        self._thinned = [thin_names(model) for model in models]
        self._build()
        for event, callback in self._connections():
            event.connect(callback)
        napari_viewer.mouse_move_callbacks.append(self._on_main_move)
        napari_viewer.bind_key(_CROSSHAIR_KEY, self._toggle_crosshair, overwrite=True)
        for layer in napari_viewer.layers:
            self._take_in(layer)
        self._order_layers()
        self._select()
        self._update()

    def release(self) -> None:
        """Follow the viewer no more, and take the canvases down; safe to call twice."""
        if self._released:
            return
        self._released = True
        self._timer.stop()
        self._window.removeEventFilter(self)
        for event, callback in self._connections():
            event.disconnect(callback)
        if self._on_main_move in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self._on_main_move)
        self._viewer.bind_key(_CROSSHAIR_KEY, None)
        for release in self._thinned:
            release()
        self.contrast.release()
        for twins in self._twins.values():
            twins.release()
        self._twins.clear()
        for view in self.views:
            view.release()

    @property
    def up_to_date(self) -> bool:
        """Whether the views show all that has happened so far."""
        return not self._timer.isActive()

    @property
    def crosshair_visible(self) -> bool:
        """Whether the crosshair is drawn."""
        return self.crosshair_button.isChecked()

    @crosshair_visible.setter
    def crosshair_visible(self, visible: bool) -> None:
        self.crosshair_button.setChecked(visible)

    def fit(self) -> None:
        """Show everything in all views."""
        for view in self.views:
            view.fit()

    # ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(220, 220)
        self.splitter = QSplitter(Qt.Orientation.Vertical)
        self.splitter.setChildrenCollapsible(False)
        for view in self.views:
            view.setToolTip(_TIP)
            self.splitter.addWidget(view)
        self.crosshair_button = tool_button("crosshair", f"Show the crosshair ({_CROSSHAIR_KEY})")
        self.crosshair_button.setCheckable(True)
        self.crosshair_button.setChecked(True)
        self.crosshair_button.toggled.connect(self._on_crosshair)
        self.fit_button = tool_button("fit", "Show everything in all three views")
        # Connected as a method, which Qt does not hold: nothing keeps the closed views alive.
        self.fit_button.clicked.connect(self.fit)
        self.position_label = QLabel()
        self.position_label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.position_label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.contrast = ContrastWidget(self._viewer)
        tools = (self.crosshair_button, self.fit_button, self.position_label)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.setSpacing(3)
        layout.addWidget(self.splitter, 1)
        layout.addLayout(row(*tools, stretch=(0, 0, 1)))
        layout.addWidget(self.contrast)

    def _connections(self) -> list[tuple[Any, Any]]:
        viewer = self._viewer
        layers, dims = viewer.layers.events, viewer.dims.events
        return [
            (layers.inserted, self._on_inserted),
            (layers.removed, self._on_removed),
            (layers.reordered, self._order_layers),
            (viewer.layers.selection.events.active, self._select),
            (dims.point, self._soon),
            (dims.current_step, self._soon),
            (dims.margin_left, self._soon),
            (dims.margin_right, self._soon),
            (viewer.events.theme, self._on_theme),
            (viewer.events.reset_view, self._on_reset),
        ]

    def event(self, event: QEvent) -> bool:
        """Follow the window's end, and the dock's."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            # napari's docks let go of the widget before they are closed.
            self.release()
        return bool(super().event(event))

    def closeEvent(self, event: Any) -> None:  # noqa: N802
        """Let the viewer be."""
        self.release()
        super().closeEvent(event)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """The window closes: canvases have to go before it does."""
        if event.type() == QEvent.Type.Close:
            self.release()
        return False

    def resizeEvent(self, event: Any) -> None:  # noqa: N802
        """Lay the views out along the longer side."""
        tall = self.height() > self.width()
        wanted = Qt.Orientation.Vertical if tall else Qt.Orientation.Horizontal
        if self.splitter.orientation() != wanted:
            self.splitter.setOrientation(wanted)
        super().resizeEvent(event)

    # ---------------------------------------------------------------------------------------------

    def _on_inserted(self, event: Any) -> None:
        self._take_in(event.value)
        self._order_layers()
        self._select()
        self._soon()

    def _take_in(self, layer: Layer) -> None:
        across = [view.plane.axes[0] for view in self.views]
        twins = Twins(layer, across, dims=self._viewer.dims, changed=self._soon)
        self._twins[layer] = twins
        for view, twin in zip(self.views, twins.twins, strict=True):
            first = not view.model.layers
            view.model.layers.append(twin)
            view.lay_out()
            if first:
                view.fit()

    def _on_removed(self, event: Any) -> None:
        twins = self._twins.pop(event.value, None)
        if twins is None:
            return
        twins.release()
        for view, twin in zip(self.views, twins.twins, strict=True):
            view.remove(twin)
        # napari frees what the layer holds in OpenGL next, in whichever context is current: right
        # only for a single canvas. In another's, the same numbers belong to something that is
        # still drawn.
        self._viewer.window._qt_viewer.canvas._scene_canvas.set_current()
        self._soon()

    def _order_layers(self, _event: Any = None) -> None:
        for number, view in enumerate(self.views):
            layers = view.model.layers
            for place, layer in enumerate(self._viewer.layers):
                twin = self._twins[layer].twins[number]
                if layers[place] is not twin:
                    layers.move(layers.index(twin), place)

    def _select(self, _event: Any = None) -> None:
        active = self._viewer.layers.selection.active
        twins = self._twins.get(active)
        for number, view in enumerate(self.views):
            selection = view.model.layers.selection
            selection.active = None if twins is None else twins.twins[number]
            view.canvas._on_active_change()
        self._soon()

    def _soon(self, _event: Any = None) -> None:
        """Update when there is time; many changes are one update."""
        if not self._released and not self._timer.isActive():
            self._timer.start(int(min(self._cost_ms * _SHARE, _LONGEST_MS)))

    def _update(self) -> None:
        began = time.perf_counter()
        for twins in self._twins.values():
            twins.pass_on()
        for view in self.views:
            view.follow()
        self._tell_position()
        self._cost_ms = (time.perf_counter() - began) * 1000
        if any(twins.pending for twins in self._twins.values()):
            # The mouse is drawing on a view; look again when it may have ended.
            self._timer.start(30)

    def _tell_position(self) -> None:
        """The crosshair in RAS mm, and the voxel of the scan there."""
        dims = self._viewer.dims
        if dims.ndim < 3 or not self._viewer.layers:
            self.position_label.setText("")
            return
        right, front, up = frame_of_viewer(self._viewer).to_world(dims.point[-3:])
        text = f"R {right:.1f}  A {front:.1f}  S {up:.1f} mm"
        scan = windowed_layer(self._viewer)
        if scan is not None and scan.ndim <= dims.ndim and not scan.multiscale:
            value = value_at(scan, dims.point[-scan.ndim :])
            text += "  ·  outside" if value is None else f"  ·  {value:.5g}"
        self.position_label.setText(text)

    def _on_crosshair(self, visible: bool) -> None:
        for view in self.views:
            view.crosshair_visible = visible

    def _toggle_crosshair(self, _viewer: Any) -> None:
        self.crosshair_visible = not self.crosshair_visible

    def _on_main_move(self, viewer: Any, event: Any) -> None:
        """With Shift, the crosshair follows the mouse in the viewer's own canvas too."""
        if "Shift" in event.modifiers and not event.is_dragging and viewer.dims.ndisplay == 2:
            shown = list(viewer.dims.displayed)
            if viewer.dims.ndim >= 3:
                viewer.dims.set_point(shown, [event.position[axis] for axis in shown])

    def _on_theme(self, _event: Any = None) -> None:
        for view in self.views:
            view.model.theme = self._viewer.theme

    def _on_reset(self, _event: Any = None) -> None:
        self.fit()
