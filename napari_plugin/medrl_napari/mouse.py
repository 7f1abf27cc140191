"""A tool that a widget lends to a layer: what the left button does in slices while it is chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer


class DragTool(ABC):
    """What the left button does on a layer, in napari's own canvas and in the linked views.

    While Space is held, and in 3D, a drag moves the picture, as everywhere in napari.

    Attributes:
        moving: Whether the mouse moves the picture instead.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        """Prepare for a viewer."""
        self._viewer = viewer
        self._layer: Any = None
        self.moving = False

    @abstractmethod
    def drag(self, layer: Any, event: Any) -> Iterator[None]:
        """From press to release of the left button, as napari's mouse callbacks."""

    def attach(self, layer: Layer) -> None:
        """Work on a layer, whenever it is the selected one."""
        self.release()
        self._viewer.dims.events.ndisplay.connect(self._set_pan)
        self._layer = layer
        layer.mouse_drag_callbacks.append(self._drag)
        layer.bind_key("Space", self._hold, overwrite=True)
        self._set_pan()

    def release(self) -> None:
        """Leave viewer and layer alone again."""
        layer, self._layer = self._layer, None
        if layer is not None:
            self._viewer.dims.events.ndisplay.disconnect(self._set_pan)
            layer.mouse_drag_callbacks.remove(self._drag)
            layer.bind_key("Space", None)
            layer.mouse_pan = True

    # ---------------------------------------------------------------------------------------------

    def _set_pan(self, _event: Any = None) -> None:
        """In a slice a drag draws, in 3D it turns the scene."""
        if self._layer is not None and self._layer.mode == "pan_zoom":
            self._layer.mouse_pan = self.moving or self._viewer.dims.ndisplay == 3

    def _hold(self, _layer: Any) -> Iterator[None]:
        self.moving = True
        self._set_pan()
        yield
        self.moving = False
        self._set_pan()

    def _drag(self, layer: Any, event: Any) -> Iterator[None]:
        self._set_pan()
        if not self.moving and event.button == 1 and layer.mode == "pan_zoom":
            yield from self.drag(layer, event)
