"""The window and level of a scan: a choice of presets, keys, and the mouse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QDoubleSpinBox, QGridLayout, QLabel, QSizePolicy, QWidget

from medrl_napari.widgets import Choice
from medrl_napari.windowing import PRESETS, Window, auto_limits, value_range

if TYPE_CHECKING:
    import napari
    from napari.components import ViewerModel
    from napari.layers import Image

#: A drag over so many pixels changes width or level by the whole range of the values.
_FULL_DRAG = 500.0
_AUTO_KEY = "F2"
_LEAST_WIDTH = 1e-6


def windowed_layer(viewer: ViewerModel) -> Image | None:
    """The image whose window is meant: the selected one, otherwise the top one that is visible."""
    from napari.layers import Image

    active = viewer.layers.selection.active
    if isinstance(active, Image) and not active.rgb:
        return active
    for layer in reversed(viewer.layers):
        if isinstance(layer, Image) and not layer.rgb and layer.visible:
            return layer
    return None


class WindowDrag:
    """Window and level by dragging with the right button: right for wider, up for brighter.

    While it is at work, napari does not zoom with that drag. Where the mouse belongs to a layer
    that is drawn on, and in 3D, it leaves the drag alone.
    """

    def __init__(self, viewer: ViewerModel, layer: Callable[[], Image | None]) -> None:
        """Prepare; whoever owns the canvas adds `drag` to its mouse callbacks.

        Args:
            viewer: The canvas's model.
            layer: Says whose window to change.
        """
        self._viewer = viewer
        self._layer = layer
        self._ranges: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    def release(self) -> None:
        """Listen to the mouse no more."""
        if self.drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self.drag)

    def drag(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """One drag, as napari's mouse callbacks are."""
        active = viewer.layers.selection.active
        drawing = active is not None and active.mode != "pan_zoom"
        layer = self._layer()
        if event.button != 2 or event.modifiers or drawing or layer is None:
            return
        if viewer.dims.ndisplay != 2:
            return
        event.handled = True
        if layer not in self._ranges:
            self._ranges[layer] = value_range(layer.data)
        spread = self._ranges[layer]
        start, before = np.array(event.pos), Window.of(layer.contrast_limits)
        yield
        while event.type == "mouse_move":
            right, down = (np.array(event.pos) - start) / _FULL_DRAG * spread
            width = max(before.width + float(right), spread * 1e-3, _LEAST_WIDTH)
            layer.contrast_limits = Window(width, before.level + float(down)).limits
            yield


class ContrastWidget(QWidget):
    """Presets, width and level of the image that is meant, with keys, and the mouse's right drag.

    The drag works in the viewer's canvas while the widget is there; the linked views bring their
    own.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        """Set up.

        Args:
            napari_viewer: The viewer.
            parent: The widget around it.
        """
        super().__init__(parent)
        self._viewer = napari_viewer
        self._layer: Image | None = None
        self.presets = Choice()
        self.presets.setToolTip("Black and white as usual for a tissue of CT, or automatic")
        self.presets.addItem("window…")
        self.presets.addItem(f"auto  ({_AUTO_KEY})", "auto")
        for preset in PRESETS:
            window = preset.window
            text = f"CT {preset.name} {window.width:g}/{window.level:g}  ({preset.key})"
            self.presets.addItem(text, preset.name)
        self.presets.activated.connect(self._on_preset)
        self.width_box = _box("Width: from black to white", lowest=0.0)
        self.level_box = _box("Level: what is mid-grey", lowest=-1e9)
        for box in (self.width_box, self.level_box):
            box.valueChanged.connect(self._on_boxes)
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.presets, 0, 0, 1, 4)
        for column, text, box in ((0, "W", self.width_box), (2, "L", self.level_box)):
            layout.addWidget(QLabel(text), 1, column)
            layout.addWidget(box, 1, column + 1)
            layout.setColumnStretch(column + 1, 1)
        tip = "Drag with the right button in a view: right, wider; up, brighter"
        self.setToolTip(tip)

        for event in self._layer_events():
            event.connect(self._follow)
        self._drag = WindowDrag(napari_viewer, lambda: windowed_layer(napari_viewer))
        if not any(_is_drag(callback) for callback in napari_viewer.mouse_drag_callbacks):
            napari_viewer.mouse_drag_callbacks.append(self._drag.drag)
        self._keys = [_AUTO_KEY, *(preset.key for preset in PRESETS)]
        for key, name in zip(self._keys, ["auto", *(p.name for p in PRESETS)], strict=True):
            napari_viewer.bind_key(key, self._action(name), overwrite=True)
        self._follow()

    def apply(self, name: str) -> None:
        """Set the window of the image that is meant: ``auto``, or a preset by its name."""
        layer = windowed_layer(self._viewer)
        if layer is None:
            return
        chosen = {preset.name: preset.window.limits for preset in PRESETS}
        layer.contrast_limits = auto_limits(layer.data) if name == "auto" else chosen[name]

    def release(self) -> None:
        """Let the viewer be."""
        for event in self._layer_events():
            event.disconnect(self._follow)
        if self._layer is not None:
            self._layer.events.contrast_limits.disconnect(self._show)
        self._drag.release()
        for key in self._keys:
            self._viewer.bind_key(key, None)

    # ---------------------------------------------------------------------------------------------

    def _layer_events(self) -> tuple[Any, ...]:
        layers = self._viewer.layers
        events = layers.events
        return events.inserted, events.removed, events.reordered, layers.selection.events.active

    def _action(self, name: str) -> Callable[[Any], None]:
        def press(_viewer: Any) -> None:
            self.apply(name)

        return press

    def _on_preset(self, index: int) -> None:
        name = self.presets.itemData(index)
        if name is not None:
            self.apply(name)

    def _on_boxes(self, _value: float) -> None:
        if self._layer is not None and self.width_box.value() > 0:
            window = Window(self.width_box.value(), self.level_box.value())
            self._layer.contrast_limits = window.limits

    def _follow(self, _event: Any = None) -> None:
        """Show the window of the image that is meant now."""
        layer = windowed_layer(self._viewer)
        if layer is not self._layer:
            if self._layer is not None:
                self._layer.events.contrast_limits.disconnect(self._show)
            if layer is not None:
                layer.events.contrast_limits.connect(self._show)
            self._layer = layer
        self.setEnabled(layer is not None)
        self._show()

    def _show(self, _event: Any = None) -> None:
        if self._layer is None:
            return
        window = Window.of(self._layer.contrast_limits)
        digits = 0 if window.width >= 50 else 3
        for box, value in ((self.width_box, window.width), (self.level_box, window.level)):
            with QSignalBlocker(box):
                box.setDecimals(digits)
                box.setSingleStep(window.width / 50)
                box.setValue(value)
        close = 10.0**-digits
        names = [
            preset.name
            for preset in PRESETS
            if abs(preset.window.width - window.width) < close
            and abs(preset.window.level - window.level) < close
        ]
        self.presets.setCurrentIndex(self.presets.findData(names[0]) if names else 0)


def _box(tip: str, *, lowest: float) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(lowest, 1e9)
    box.setToolTip(tip)
    box.setKeyboardTracking(False)
    box.setAlignment(Qt.AlignmentFlag.AlignCenter)
    # As wide as there is room, not as the longest value that it can hold.
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return box


def _is_drag(callback: Any) -> bool:
    return isinstance(getattr(callback, "__self__", None), WindowDrag)
