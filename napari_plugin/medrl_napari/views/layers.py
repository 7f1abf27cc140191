"""A layer in several canvases at once: twins that share its arrays and follow what happens to it.

A napari layer holds the slice that is drawn, so one layer cannot be cut along three planes at the
same time. Each plane therefore gets a twin. The viewer's own layer stays the truth: what is drawn
or moved on a twin is done to the layer, and what happens to the layer is passed on to all twins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from medrl_napari.scans import KEY

if TYPE_CHECKING:
    from napari.components import Dims
    from napari.layers import Labels, Layer, Points, Shapes, Tracks

#: Settable attributes with an event that mean nothing to a twin, or come with something else.
_OWN = {
    *("auto_contrast", "cursor", "cursor_size", "help", "loaded", "metadata", "mouse_pan"),
    *("mouse_zoom", "properties", "scale_factor", "thumbnail", "locked_data_level", "units"),
    *("axis_labels", "editable", "data", "current_properties"),
    # Deprecated: merely connecting to them warns.
    *("n_dimensional", "out_of_slice_display"),
}
#: What the mouse changes on a twin.
_EDITED = ("mode", "selected_label", "brush_size")
#: Contents of points that have to go along with new data, in this order.
_POINTS = ("features", "size", "symbol", "border_width", "border_color", "face_color", "shown")


class Twins:
    """A layer of the viewer and its twins.

    Attributes:
        layer: The viewer's own.
        twins: One for each plane.
    """

    def __init__(
        self, layer: Layer, across: Sequence[int], *, dims: Dims, changed: Callable[[], None]
    ) -> None:
        """Make the twins, and follow the layer.

        Args:
            layer: The viewer's own.
            across: For each twin, the axis of (z, y, x) across its plane.
            dims: The viewer's.
            changed: Called when there is something to pass on; `pass_on` does it.
        """
        self.layer = layer
        self.twins = [_twin(layer) for _ in across]
        self._across = tuple(across)
        self._cut_at = [math.nan] * len(self.twins)
        self._changed = changed
        self._pending: list[set[str]] = [set() for _ in self.twins]
        self._drawn: Layer | None = None
        self._busy = False
        # A selection does not say whose it is, as other news do.
        self._choose = [partial(self._on_twin_selection, twin) for twin in self.twins]
        self._dims = dims
        self._slice = self._slice_now()
        self._followed = [name for name in layer.events.emitters if _is_followed(layer, name)]
        for event, callback in self._connections():
            event.connect(callback)

    def release(self) -> None:
        """Follow the layer no more."""
        for event, callback in self._connections():
            event.disconnect(callback)

    @property
    def pending(self) -> bool:
        """Whether there is something to pass on."""
        return any(self._pending) or self._drawn is not None

    def pass_on(self) -> None:
        """Bring all up to date, except a twin on which the mouse is drawing right now."""
        with self._quietly():
            if self._drawn is not None and not _is_busy(self._drawn):
                _renew_shapes(cast("Shapes", self._drawn), cast("Shapes", self.layer))
                self._mark("data", but=self._drawn)
                self._drawn = None
            for number, (twin, names) in enumerate(zip(self.twins, self._pending, strict=True)):
                cut = self._cut_of(number)
                if names and not _is_busy(twin):
                    wanted = sorted(names)
                    names.clear()
                    self._renew(twin, wanted)
                if cut is not None:
                    cut()

    # ---------------------------------------------------------------------------------------------

    def _connections(self) -> Iterator[tuple[Any, Callable[[Any], None]]]:
        """Events of the layer and its twins, and what they lead to."""
        layer = self.layer
        for name in self._followed:
            yield getattr(layer.events, name), self._on_attribute
        yield layer.events.data, self._on_data
        yield layer.events.set_data, self._on_redraw
        if layer._type_string == "labels":
            yield layer.events.labels_update, self._on_painting
            yield layer.events.paint, self._on_painting
        text = getattr(layer, "text", None)
        if text is not None:
            yield text.events, self._on_text
        if layer._type_string == "points":
            yield layer.selected_data.events.items_changed, self._on_selection
        for number, twin in enumerate(self.twins):
            for name in _EDITED:
                if name in self._followed:
                    yield getattr(twin.events, name), self._on_edited
            if layer._type_string == "points":
                yield twin.events.data, self._on_twin_points
                yield twin.selected_data.events.items_changed, self._choose[number]
            if layer._type_string == "shapes":
                yield twin.events.data, self._on_twin_shapes
            if layer._type_string == "labels":
                yield twin.events.labels_update, self._on_twin_painting
                yield twin.events.paint, self._on_twin_painted

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """What is done inside is no news."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def _mark(self, name: str, *, but: Layer | None = None) -> None:
        for twin, names in zip(self.twins, self._pending, strict=True):
            if twin is not but:
                names.add(name)
        self._changed()

    def _on_attribute(self, event: Any) -> None:
        if not self._busy:
            self._mark(event.type)

    def _on_text(self, event: Any) -> None:
        # Which names have room is another matter in each view.
        thinned = event.type == "color" and hasattr(self.layer.text.color, "array")
        if not self._busy and not thinned:
            self._mark("text")

    def _on_data(self, event: Any) -> None:
        # Points and shapes also tell beforehand that something is about to change.
        if not self._busy and str(getattr(event, "action", "")) not in _BEFOREHAND:
            self._mark("data")

    def _on_redraw(self, _event: Any) -> None:
        """The layer was drawn anew: if not for another slice, something in its arrays changed."""
        before, self._slice = self._slice, self._slice_now()
        if before == self._slice and not self._busy:
            self._mark("refresh")

    def _slice_now(self) -> Any:
        dims = self._dims
        return dims.point, dims.order, dims.ndisplay, dims.margin_left, dims.margin_right

    def _on_painting(self, _event: Any) -> None:
        """Labels that are painted on are not drawn anew as a whole."""
        if not self._busy:
            self._mark("refresh")

    def _on_selection(self, _event: Any) -> None:
        if not self._busy:
            self._mark("selected_data")

    def _on_edited(self, event: Any) -> None:
        if not self._busy:
            value = getattr(event.source, event.type)
            if value != getattr(self.layer, event.type):
                setattr(self.layer, event.type, value)

    def _on_twin_selection(self, twin: Points, _event: Any = None) -> None:
        own = cast("Points", self.layer)
        chosen = {index for index in twin.selected_data if index < len(own.data)}
        if not self._busy and chosen != set(own.selected_data):
            own.selected_data = chosen

    def _on_twin_points(self, event: Any) -> None:
        """A point was placed, moved or deleted on a twin: do so on the layer."""
        action = str(getattr(event, "action", ""))
        if self._busy or action in _BEFOREHAND:
            return
        own, twin = cast("Points", self.layer), cast("Points", event.source)
        if action == "added":
            own.add(twin.data[len(own.data) :])
        elif action == "removed":
            own.remove(list(event.data_indices))
        else:
            if own.data is not twin.data:
                own.data[:] = twin.data
            own.refresh()
            own.events.data(
                value=own.data,
                action=event.action,
                data_indices=event.data_indices,
                vertex_indices=((),),
            )

    def _on_twin_shapes(self, event: Any) -> None:
        if not self._busy and str(getattr(event, "action", "")) not in _BEFOREHAND:
            self._drawn = event.source
            self._changed()

    def _on_twin_painting(self, event: Any) -> None:
        if not self._busy:
            self._mark("refresh", but=event.source)
            with self._quietly():
                self.layer.refresh(extent=False)

    def _on_twin_painted(self, event: Any) -> None:
        """The brush was lifted: a step to undo, and the news that tools wait for."""
        if not self._busy:
            self.layer.events.paint(value=event.value)

    def _cut_of(self, number: int) -> Callable[[], None] | None:
        """What shows boxes, which are other lines in each plane, where a twin's own one cuts them.

        None if the layer has none, or they are shown as they are.
        """
        known, names = self.layer.metadata.get(KEY), self._pending[number]
        cut = known.get("cut") if isinstance(known, dict) else None
        if cut is None or self._dims.ndim < 3:
            return None
        across = self._across[number]
        at = self._dims.point[across - 3]
        if "data" not in names and at == self._cut_at[number]:
            return None
        if self.layer._type_string == "vectors":
            names -= {"data", "refresh", "edge_color"}
        self._cut_at[number] = at
        return partial(cut, self.twins[number], across, at)

    def _renew(self, twin: Layer, names: list[str]) -> None:
        """Bring some things of a twin up to date."""
        kind = self.layer._type_string
        if kind == "labels":
            _share_history(cast("Labels", self.layer), cast("Labels", twin))
        if kind in _RENEW and ("data" in names or (kind == "points" and "refresh" in names)):
            _RENEW[kind](self.layer, twin)
        elif "data" in names:
            twin.data = self.layer.data
        elif "refresh" in names:
            twin.refresh(thumbnail=False, extent=False, highlight=False)
        for name in names:
            if name == "selected_data":
                twin.selected_data = set(cast("Points", self.layer).selected_data)
            elif name == "text":
                twin.text = cast("Points", self.layer).text.model_dump()
            elif name not in ("data", "refresh"):
                setattr(twin, name, getattr(self.layer, name))


#: Points and shapes say so before they change, and again when they have.
_BEFOREHAND = ("adding", "removing", "changing")


def _is_followed(layer: Layer, name: str) -> bool:
    attribute = getattr(type(layer), name, None)
    return isinstance(attribute, property) and attribute.fset is not None and name not in _OWN


def _is_busy(layer: Layer) -> bool:
    """Whether the mouse is in the middle of drawing on a layer, with one of napari's own tools."""
    own = any(not is_tool(callback) for callback in layer._mouse_drag_gen)
    return own or bool(getattr(layer, "_is_creating", False))


def is_tool(callback: Any) -> bool:
    """Whether a mouse callback of a layer is not napari's own: some widget lent it."""
    return not str(getattr(callback, "__module__", "")).startswith("napari.")


def _twin(layer: Layer) -> Layer:
    """Another layer of the same arrays and looks."""
    from napari.layers import Layer as AnyLayer

    data, state, kind = layer.as_layer_data_tuple()
    state = dict(state)
    # Tracks and shapes give their features twice.
    if "features" in state:
        state.pop("properties", None)
        state.pop("property_choices", None)
    twin = AnyLayer.create(data, state, kind)
    if kind == "image":
        twin.contrast_limits_range = layer.contrast_limits_range
    if kind == "labels":
        _share_history(layer, twin)
        for name in ("selected_label", "brush_size", "contiguous", "n_edit_dimensions"):
            setattr(twin, name, getattr(layer, name))
    twin.mode = layer.mode
    return cast("Layer", twin)


def _share_history(layer: Labels, twin: Labels) -> None:
    """Let whatever was painted in any view be undone in any view."""
    twin._undo_history = layer._undo_history
    twin._redo_history = layer._redo_history


def _renew_points(source: Points, target: Points) -> None:
    target.data = source.data
    for name in _POINTS:
        setattr(target, name, getattr(source, name))


def _renew_shapes(source: Shapes, target: Shapes) -> None:
    target.data = []
    if source.data:
        target.add(
            source.data,
            shape_type=source.shape_type,
            edge_width=source.edge_width,
            edge_color=source.edge_color,
            face_color=source.face_color,
            z_index=source.z_index,
        )
        target.features = source.features
    else:
        target.refresh()


def _renew_tracks(source: Tracks, target: Tracks) -> None:
    # New data throws the features away, and with them what colours the tracks.
    target.color_by = "track_id"
    target.data = source.data
    target.features = source.features
    target.colormaps_dict = source.colormaps_dict
    target.color_by = source.color_by


_RENEW: dict[str, Callable[[Any, Any], None]] = {
    "points": _renew_points,
    "shapes": _renew_shapes,
    "tracks": _renew_tracks,
}


def value_at(layer: Layer, point: Any) -> float | None:
    """The voxel of an image at a point of napari's world, or None outside."""
    index = np.round(np.asarray(layer.world_to_data(point))).astype(int)
    shape = np.array(layer.data.shape[: len(index)])
    if (index < 0).any() or (index >= shape).any():
        return None
    return float(np.asarray(layer.data[tuple(index)]))
