"""Names of points that do not cover one another: those nearest to the slice come first.

A name that would lie over another one is drawn in no colour; what it says stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from napari.layers.utils.color_encoding import ConstantColorEncoding
from numpy.typing import ArrayLike, NDArray
from qtpy.QtGui import QFont, QFontMetricsF, QGuiApplication

from medrl_napari.space import Floats

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer, Points

#: Names keep this far from one another (pixels).
_ROOM_PX = 2.0
#: So much larger than Qt, at the most, vispy draws letters of the same size in points.
_VISPY = 1.4
_WHITE = np.ones(4)


def thin_names(viewer: ViewerModel) -> Callable[[], None]:
    """See to it that names of points in a viewer never cover one another.

    Returns:
        What ends it, once all who have asked for it have called theirs.
    """
    thinner = _thinners.setdefault(viewer, _Thinner(viewer))
    thinner.users += 1
    thinner.start()
    return thinner.release


def without_overlap(boxes: ArrayLike, ranks: ArrayLike) -> NDArray[np.bool_]:
    """Which of some boxes can be shown, so that none lies over another.

    Args:
        boxes: (N, 4), left, top, right and bottom of each.
        ranks: (N,), the lowest are shown first; of equal ones the earlier.

    Returns:
        (N,), whether each is shown.
    """
    edges = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    shown = np.zeros(len(edges), dtype=bool)
    for row in np.argsort(np.asarray(ranks), kind="stable"):
        left, top, right, bottom = edges[row]
        other = edges[shown]
        apart = (other[:, 0] >= right) | (other[:, 2] <= left)
        apart |= (other[:, 1] >= bottom) | (other[:, 3] <= top)
        shown[row] = bool(apart.all())
    return shown


def name_boxes(viewer: ViewerModel, layer: Points, rows: Sequence[int]) -> tuple[Floats, Floats]:
    """Where the names of points are drawn.

    Args:
        viewer: With the layer.
        layer: Whose text is meant.
        rows: R of its points.

    Returns:
        (R, 4) left, top, right and bottom in pixels of the canvas, up to a shift that they share;
        and (R,) how far each point is from the slice, or in 3D from the eye, in mm.
    """
    world = np.asarray(layer.data)[rows] * layer.scale + layer.translate
    dims = viewer.dims
    first = dims.ndim - layer.ndim
    if dims.ndisplay == 3:
        camera = viewer.scene.camera
        forth, up = np.array(camera.view_direction), np.array(camera.up_direction)
        axes = np.stack([np.cross(forth, up), -up, forth])
        right, down, depth = axes @ world[:, [axis - first for axis in dims.displayed]].T
    else:
        down, right = (world[:, axis - first] for axis in dims.displayed)
        hidden = [axis for axis in dims.not_displayed if axis >= first]
        at = np.array([dims.point[axis] for axis in hidden])
        aside = world[:, [axis - first for axis in hidden]] - at
        depth = np.linalg.norm(aside, axis=1)
    texts = [str(text) for text in np.asarray(layer.text.string(layer.features))[rows]]
    widths, height = _text_sizes(texts, float(layer.text.size))
    zoom = viewer.scene.camera.zoom
    shift = {"left": 0.0, "center": 0.5, "right": 1.0}[layer._view_text_coords[1]]
    left, top = right * zoom - widths * shift, down * zoom
    boxes = np.stack([left, top, left + widths, top + height], axis=1)
    return boxes, depth


def _text_sizes(texts: Sequence[str], points: float) -> tuple[Floats, float]:
    """Widths (T,) and the height of texts, in pixels, with room around them."""
    if QGuiApplication.instance() is None:
        # Without a screen there are no fonts either: what is usual at 96 dots an inch.
        em = points * 96 / 72
        return np.array([len(text) * em * 0.8 for text in texts]) + _ROOM_PX, em * 1.8 + _ROOM_PX
    metrics = QFontMetricsF(QFont("OpenSans", round(points)))
    widths = np.array([metrics.horizontalAdvance(text) for text in texts])
    return widths * _VISPY + _ROOM_PX, metrics.height() * _VISPY + _ROOM_PX


class _Thinner:
    """Hides and shows the names of all points of a viewer."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.users = 0
        # Not held: whoever is looked up by it would never be gone.
        self._viewer = ref(viewer)
        self._colors: WeakKeyDictionary[Any, Floats] = WeakKeyDictionary()
        self._busy = False
        self._started = False

    def start(self) -> None:
        viewer = self._viewer()
        if viewer is None or self._started:
            return
        self._started = True
        for event, react in self._viewer_events(viewer):
            event.connect(react)
        for layer in viewer.layers:
            self._follow(layer)

    def release(self) -> None:
        viewer = self._viewer()
        self.users -= 1
        if viewer is None or self.users or _thinners.pop(viewer, None) is None:
            return
        for event, react in self._viewer_events(viewer):
            event.disconnect(react)
        for layer in viewer.layers:
            if layer._type_string == "points":
                for event, react in self._layer_events(layer):
                    event.disconnect(react)

    def _viewer_events(self, viewer: ViewerModel) -> Iterator[tuple[Any, Callable[[Any], None]]]:
        yield viewer.layers.events.inserted, self._on_inserted
        yield viewer.scene.camera.events.zoom, self._thin_all
        yield viewer.scene.camera.events.angles, self._thin_all

    def _layer_events(self, layer: Points) -> Iterator[tuple[Any, Callable[[Any], None]]]:
        for name in ("set_data", "features", "size", "visible", "highlight"):
            yield getattr(layer.events, name), self._on_layer
        yield layer.text.events, self._thin_all

    def _on_inserted(self, event: Any) -> None:
        self._follow(event.value)

    def _follow(self, layer: Layer) -> None:
        if layer._type_string != "points":
            return
        for event, react in self._layer_events(layer):
            event.connect(react)
        self._thin(layer)

    def _on_layer(self, event: Any) -> None:
        self._thin(event.source)

    def _thin_all(self, _event: Any = None) -> None:
        viewer = self._viewer()
        for layer in viewer.layers if viewer is not None else ():
            if layer._type_string == "points":
                self._thin(layer)

    def _thin(self, layer: Points) -> None:
        """Colour the names that are shown, and take the colour from the others."""
        text, viewer = layer.text, self._viewer()
        if viewer is None or self._busy or not (text.visible and layer.visible):
            return
        rows = [int(row) for row in layer._view_indices]
        texts = np.asarray(text.string(layer.features))
        if texts.ndim == 0 or not rows or max(rows) >= len(texts):
            return
        if isinstance(text.color, ConstantColorEncoding):
            self._colors[layer] = np.array(text.color.constant, dtype=np.float64)
        boxes, depth = name_boxes(viewer, layer, rows)
        chosen = set(layer.selected_data)
        ranks = [-1.0 if row in chosen else far for row, far in zip(rows, depth, strict=True)]
        colors = np.tile(self._colors.get(layer, _WHITE), (len(layer.data), 1))
        colors[rows, 3] *= without_overlap(boxes, ranks)
        before = getattr(text.color, "array", None)
        if before is not None and np.array_equal(before, colors.astype(np.float32)):
            return
        self._busy = True
        try:
            text.color = colors
        finally:
            self._busy = False


_thinners: WeakKeyDictionary[ViewerModel, _Thinner] = WeakKeyDictionary()
