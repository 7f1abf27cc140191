"""Named boxes as layers: wire frames in 3D; in a slice their outlines, where it cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps.standardize_color import transform_color
from numpy.typing import ArrayLike

from medrl_napari.boxes import box_corners, cut_edges, slice_of, whole_edges
from medrl_napari.scans import KEY, LayerData, Shown, add
from medrl_napari.space import AXES, Floats, Frame

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Points, Vectors

#: Of boxes about which nothing else is known.
COLORS = ("#39d98a", "#48dbfb", "#ff9f43", "#c8a2ff", "#ffd43b", "#f783ac")
_EDGE_MM = 1.0
#: How opaque the others are while one box is pointed out.
_BEHIND = 0.6


class BoxLayers:
    """Boxes along the world's axes in a viewer, whose slices they follow.

    Attributes:
        layer: Their edges.
        labels: Their names.
        frame: The viewer's.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        frame: Frame,
        *,
        name: str = "boxes",
        scan: Shown | None = None,
    ) -> None:
        """Add the layers, with nothing in them.

        Args:
            viewer: Where to.
            frame: The viewer's.
            name: What to call the layer.
            scan: In what the boxes lie.
        """
        self.frame = frame
        self._viewer = viewer
        self._names: tuple[str, ...] = ()
        self._world = np.empty((0, 2, 3))
        self._corners = np.empty((0, 2, 2, 2, 3))
        self._colors = np.empty((0, 4))
        self._selected: str | None = None
        known = {"frame": frame, "scan": scan, "view": self}
        data, settings, _ = _edges_layer(whole_edges(self._corners), name=name)
        settings["metadata"] = {KEY: {**known, "kind": "boxes", "cut": self._cut}}
        self.layer: Vectors = add(viewer, (data, settings, "vectors"))
        settings = {
            "name": f"{name}: names",
            "ndim": 3,
            "features": {"name": np.array([], dtype=object)},
            "size": 0.1,
            "face_color": "transparent",
            "border_color": "transparent",
            "projection_mode": "none",
            "blending": "translucent_no_depth",
            "metadata": {KEY: {**known, "kind": "box names", "cut": self._cut_labels}},
            **AXES,
        }
        self.labels: Points = add(viewer, (np.empty((0, 3)), settings, "points"))
        self.labels.text = {
            "string": "{name}",
            "size": 9,
            "color": "white",
            "anchor": "upper_left",
        }
        self.labels.editable = False
        for event in self._events():
            event.connect(self._draw)
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def boxes_world(self) -> dict[str, Floats]:
        """The boxes by name, each (2, 3) RAS mm."""
        return dict(zip(self._names, self._world, strict=True))

    def show(self, names: Sequence[str], corners_world: ArrayLike, colors: Sequence[str]) -> None:
        """Show other boxes.

        Args:
            names: B of them.
            corners_world: (B, 2, 3) smallest and largest coordinates, RAS mm.
            colors: Of each.
        """
        self._world = np.array(corners_world, dtype=np.float64).reshape(-1, 2, 3)
        self._corners = box_corners(self._world, self.frame)
        self._colors = transform_color(list(colors)) if len(colors) else np.empty((0, 4))
        if tuple(names) != self._names:
            self._names = tuple(names)
            self.labels.data = self._corners.mean(axis=(1, 2, 3))
            self.labels.features = {"name": np.array(self._names, dtype=object)}
        self._draw()

    def renew(self, frame: Frame, scan: Shown | None) -> None:
        """Belong to another scan."""
        self.frame = frame
        for layer in (self.layer, self.labels):
            layer.metadata[KEY].update(frame=frame, scan=scan)

    def select(self, name: str | None) -> None:
        """Point out a box; None for all alike."""
        self._selected = name if name in self._names else None
        self._draw()

    def edges(self, across: int | None, at: float) -> tuple[Floats, Floats]:
        """The boxes' edges.

        Args:
            across: Axis of (z, y, x) across a slice that cuts them; None for whole boxes.
            at: Where the slice lies on it, in napari's world.

        Returns:
            (E, 2, 3), each a start and a way, in napari's world, and colours (E, 4).
        """
        colors = self._colors.copy()
        if self._selected is not None:
            colors[np.array(self._names) != self._selected, 3] *= _BEHIND
        if across is None:
            return whole_edges(self._corners), np.repeat(colors, 12, axis=0)
        edges, owners = cut_edges(self._corners, across, at)
        return edges, colors[owners]

    def label_places(self, across: int | None, at: float) -> Floats:
        """Where the names are: at the upper left corners of outlines in a slice.

        Args:
            across: As for :meth:`edges`.
            at: Likewise.

        Returns:
            (B, 3) in napari's world; of boxes that the slice does not cut the middle, which is not
            in the slice.
        """
        places = np.asarray(self._corners.mean(axis=(1, 2, 3)))
        if across is not None:
            edges, owners = cut_edges(self._corners, across, at)
            for box in np.unique(owners):
                mine = edges[owners == box]
                places[box] = np.minimum(mine[:, 0], mine.sum(axis=1)).min(axis=0)
        return places

    def set_aside(self) -> None:
        """Say that the boxes are of before."""
        self.layer.name = f"{self.layer.name} before"
        self.labels.name = f"{self.layer.name}: names"

    # ---------------------------------------------------------------------------------------------

    def _events(self) -> tuple[Any, ...]:
        dims = self._viewer.dims.events
        visible = self.layer.events.visible, self.labels.events.visible
        return dims.point, dims.order, dims.ndisplay, *visible

    def _draw(self, _event: Any = None) -> None:
        """Show what the viewer's slice cuts."""
        across, at = slice_of(self._viewer.dims)
        # napari does not slice a hidden layer anew, so other data would not fit its slice.
        if self.layer.visible:
            self._cut(self.layer, across, at)
        if self.labels.visible:
            self._cut_labels(self.labels, across, at)

    def _cut(self, layer: Vectors, across: int | None, at: float) -> None:
        layer.data, colors = self.edges(across, at)
        if len(colors):
            layer.edge_color = colors

    def _cut_labels(self, layer: Points, across: int | None, at: float) -> None:
        if len(layer.data) == len(self._names):
            layer.data = self.label_places(across, at)

    def _on_removed(self, event: Any) -> None:
        """With the boxes their names go."""
        if event.value is not self.layer:
            return
        for change in self._events():
            change.disconnect(self._draw)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        if self.labels in self._viewer.layers:
            self._viewer.layers.remove(self.labels)


def boxes_layer(corners_world: ArrayLike, frame: Frame, *, name: str) -> LayerData:
    """Boxes as a layer that follows no viewer: whole wire frames.

    Args:
        corners_world: (B, 2, 3) RAS mm.
        frame: The viewer's.
        name: What to call the layer.
    """
    layer = _edges_layer(whole_edges(box_corners(corners_world, frame)), name=name)
    layer[1]["metadata"] = {KEY: {"kind": "boxes", "frame": frame, "scan": None}}
    return layer


def _edges_layer(edges: Floats, *, name: str) -> LayerData:
    settings: dict[str, Any] = {
        "name": name,
        "edge_color": COLORS[0],
        "edge_width": _EDGE_MM,
        "vector_style": "line",
        "opacity": 1.0,
        "blending": "translucent_no_depth",
        "ndim": 3,
        **AXES,
    }
    return edges, settings, "vectors"
