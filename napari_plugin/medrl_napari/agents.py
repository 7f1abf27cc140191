"""Agents as layers: their history as tracks, where they are as points, what they see as boxes.

Any trajectory of any system shows through here, live or from a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medrl.trajectory import Recording, Step, Trajectory
from medrl_napari.agent_table import AgentTable, scale_colormap
from medrl_napari.boxes import cube_corners, cut_edges, slice_of, whole_edges
from medrl_napari.scans import KEY, LayerData, add, add_beside
from medrl_napari.space import AXES, AXES_4D, Floats, Frame

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Points, Tracks, Vectors

ColorBy = Literal["scale_mm", "value", "agent"]

_FEATURES: dict[ColorBy, str] = {"scale_mm": "level", "value": "value", "agent": "track_id"}
#: Agents within half of this of a slice are shown on it (mm).
_SLAB_MM = 10.0
_POINT_MM, _SELECTED_MM = 4.0, 7.0


def trajectory_layers(
    trajectory: Trajectory,
    frame: Frame,
    *,
    name: str = "agents",
    color_by: ColorBy = "scale_mm",
) -> list[LayerData]:
    """A trajectory as layers with a time axis: a step of all agents is a moment.

    Args:
        trajectory: Of any system.
        frame: The viewer's.
        name: What to call the layers.
        color_by: What colours the tracks.

    Returns:
        Tracks (t, z, y, x) and Points (t, z, y, x); none if no agent made a step.
    """
    return _layers_of(AgentTable(trajectory, frame), trajectory, frame, name, color_by)


def _layers_of(
    table: AgentTable, trajectory: Trajectory, frame: Frame, name: str, color_by: ColorBy
) -> list[LayerData]:
    if not len(table.rows):
        return []
    known = {"kind": "agents", "frame": frame, "trajectory": trajectory}
    tracks: dict[str, Any] = {
        "name": f"{name}: paths",
        "features": table.features,
        "color_by": _FEATURES[color_by],
        "colormap": "viridis",
        "colormaps_dict": {"level": scale_colormap(table.scales)},
        "tail_length": 2 * table.length,
        "tail_width": 2,
        "head_length": 0,
        "blending": "translucent_no_depth",
        "metadata": {KEY: known},
        **AXES_4D,
    }
    points: dict[str, Any] = {
        "name": name,
        "features": {"name": table.names_now},
        "face_color": table.colors_now,
        "border_color": "black",
        "border_width": 0.15,
        "size": _POINT_MM,
        "blending": "translucent_no_depth",
        "metadata": {KEY: {**known, "kind": "agents now"}},
        **AXES_4D,
    }
    return [(table.rows, tracks, "tracks"), (table.rows_now, points, "points")]


class AgentsView:
    """The layers of some agents in a viewer, kept up to date while they walk and when replayed.

    Attributes:
        viewer: Where they are shown.
        frame: The viewer's.
        name: What the layers are called.
        window_voxels: Side of the windows that agents look through, for live steps; a trajectory's
            provenance says so itself.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        frame: Frame,
        *,
        name: str = "agents",
        window_voxels: int | None = None,
    ) -> None:
        """Show nothing yet; see the attributes."""
        self.viewer = viewer
        self.frame = frame
        self.name = name
        self.window_voxels = window_voxels
        self._color_by: ColorBy = "scale_mm"
        self._table: AgentTable | None = None
        self._selected: str | None = None
        self._tracks: Tracks | None = None
        self._points: Points | None = None
        self._windows: Vectors | None = None
        self._adding = False
        for event in self._dims_events():
            event.connect(self._draw_windows)
        viewer.layers.events.removed.connect(self._forget)

    def show(self, trajectory: Trajectory) -> None:
        """Show a trajectory instead of what is shown, with a slider that replays it."""
        provenance = trajectory.provenance.get("window_voxels")
        if provenance is not None:
            self.window_voxels = int(provenance)
        self._draw(trajectory)

    def show_steps(self, steps: Sequence[Step]) -> None:
        """Show what agents did lately instead of what is shown."""
        recording = Recording()
        for step in steps:
            recording.add(step)
        self._draw(recording.trajectory())

    def select(self, name: str | None) -> None:
        """Point out the agents of a name, and show no other's window; None for all alike."""
        self._selected = name
        if self._points is not None and self._table is not None:
            self._points.size = self._sizes(self._table)
        self._draw_windows()

    def window_edges(self, across: int | None, at: float) -> tuple[Floats, Floats]:
        """What the current moment's agents look through, and what they have boxed.

        Args:
            across: Axis of (z, y, x) across a slice that cuts them; None for whole boxes.
            at: Where the slice lies on it, in napari's world.

        Returns:
            Their edges (E, 2, 3), each a start and a way, in napari's world, and colours (E, 4).
        """
        table, dims = self._table, self.viewer.dims
        if table is None:
            return np.empty((0, 2, 3)), np.empty((0, 4))
        moment = int(dims.current_step[0])
        centers, sides, colors = table.at(moment, self._selected)
        window = self.window_voxels or 0
        shown = cube_corners(centers, sides * window / 2)[: len(centers) if window else 0]
        boxes, box_colors = table.boxes_at(moment, self._selected)
        corners = np.concatenate([shown, boxes])
        colors = np.concatenate([colors[: len(shown)], box_colors])
        if across is None:
            return whole_edges(corners), np.repeat(colors, 12, axis=0)
        edges, owners = cut_edges(corners, across, at)
        return edges, colors[owners]

    def _cut_windows(self, layer: Vectors, across: int | None, at: float) -> None:
        """Show the windows on a layer, for a slice or whole."""
        layer.data, colors = self.window_edges(across, at)
        if len(colors):
            layer.edge_color = colors

    def remove(self) -> None:
        """Take the layers away, and follow the viewer no more."""
        for event in self._dims_events():
            event.disconnect(self._draw_windows)
        self.viewer.layers.events.removed.disconnect(self._forget)
        with _same_view(self.viewer):
            for layer in (self._tracks, self._points, self._windows):
                if layer is not None and layer in self.viewer.layers:
                    self.viewer.layers.remove(layer)
        self._tracks = self._points = self._windows = self._table = None

    @property
    def color_by(self) -> ColorBy:
        """What colours the tracks."""
        return self._color_by

    @color_by.setter
    def color_by(self, color_by: ColorBy) -> None:
        self._color_by = color_by
        if self._tracks is not None:
            self._tracks.color_by = _FEATURES[color_by]

    @property
    def layers(self) -> list[Any]:
        """The layers that are there now: tracks, points, windows."""
        return [la for la in (self._tracks, self._points, self._windows) if la is not None]

    # ---------------------------------------------------------------------------------------------

    def _dims_events(self) -> tuple[Any, ...]:
        events = self.viewer.dims.events
        return events.current_step, events.order, events.ndisplay

    def _forget(self, event: Any) -> None:
        """A layer was taken away; if it was one of ours, the others go on without it."""
        self._tracks = None if event.value is self._tracks else self._tracks
        self._points = None if event.value is self._points else self._points
        self._windows = None if event.value is self._windows else self._windows

    def _draw(self, trajectory: Trajectory) -> None:
        table = AgentTable(trajectory, self.frame)
        layers = _layers_of(table, trajectory, self.frame, self.name, self._color_by)
        if not layers:
            return
        self._table = table
        if self._tracks is None and self._points is None:
            chosen = set(self.viewer.layers.selection)
            with _same_view(self.viewer):
                self._tracks, self._points = (add(self.viewer, layer) for layer in layers)
            # Whoever was about to draw on a layer goes on with it.
            self.viewer.layers.selection = chosen or {self._points}
            dims = self.viewer.dims
            dims.thickness = (*[0.0] * (dims.ndim - 3), *[_SLAB_MM] * 3)
        else:
            self._renew(layers, table)
        for layer in self.layers:
            # napari's events hold no reference: whoever has the layers keeps this object alive.
            layer.metadata[KEY]["view"] = self
        # At the last moment perhaps nobody walks: the windows' layer is made at this one.
        self.select(self._selected)
        self.viewer.dims.set_current_step(0, table.length - 1)

    def _renew(self, layers: list[LayerData], table: AgentTable) -> None:
        """Give the layers that are there other data."""
        (rows, tracks, _), (now, points, _) = layers
        if self._tracks is not None:
            # New data throws the features away, and with them what colours the tracks.
            self._tracks.color_by = "track_id"
            self._tracks.data = rows
            self._tracks.features = table.features
            self._tracks.colormaps_dict = tracks["colormaps_dict"]
            self._tracks.color_by = _FEATURES[self._color_by]
            self._tracks.tail_length = 2 * table.length
            self._tracks.metadata = tracks["metadata"]
        if self._points is not None:
            self._points.data = now
            self._points.features = points["features"]
            self._points.face_color = points["face_color"]
            self._points.metadata = points["metadata"]

    def _sizes(self, table: AgentTable) -> NDArray[np.float64]:
        chosen = np.array(table.names_now) == self._selected
        return np.where(chosen, _SELECTED_MM, _POINT_MM)

    def _draw_windows(self, _event: Any = None) -> None:
        """The windows that the current moment's agents look through, where the slice meets them."""
        dims = self.viewer.dims
        # Adding a layer moves the sliders, which leads here again.
        if dims.ndim < 4 or self._adding:
            return
        across, at = slice_of(dims)
        if self._windows is None:
            vectors, colors = self.window_edges(across, at)
            if not len(vectors) or self._points is None:
                return
            settings = {
                "name": f"{self.name}: windows",
                "edge_color": colors,
                "edge_width": 0.7,
                "vector_style": "line",
                "opacity": 0.7,
                "blending": "translucent_no_depth",
                "metadata": {
                    KEY: {"kind": "windows", "frame": self.frame, "cut": self._cut_windows}
                },
                **AXES,
            }
            self._adding = True
            self._windows = add_beside(self.viewer, (vectors, settings, "vectors"))
            self._adding = False
            self._windows.events.visible.connect(self._draw_windows)
            return
        if not self._windows.visible:
            # napari does not slice a hidden layer anew, so other data would not fit its slice.
            return
        self._cut_windows(self._windows, across, at)


@contextmanager
def _same_view(viewer: ViewerModel) -> Iterator[None]:
    """Look at the same place as before: napari zooms out whenever a time axis comes or goes."""
    camera = viewer.scene.camera
    before = camera.center, camera.zoom, camera.angles
    yield
    if len(viewer.layers):
        camera.center, camera.zoom, camera.angles = before
