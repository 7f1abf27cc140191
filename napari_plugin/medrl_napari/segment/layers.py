"""What a seed session shows in the viewer: seeds, the mask, and the agent's next seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from medrl.seednet.seeds import Seed
from medrl_napari.scans import KEY, Shown, add, labels_layer
from medrl_napari.segment.session_state import Box, State, difference
from medrl_napari.space import AXES

if TYPE_CHECKING:
    import napari
    from napari.layers import Labels, Layer, Points


#: Of a seed's inside, by its label.
SEED_COLORS = ("#ff5c5c", "#40d96f")
#: Of objects, in their order; then again from the first.
OBJECT_COLORS = ("#4dabf7", "#ffd43b", "#da77f2", "#ff922b", "#3bc9db", "#f783ac", "#a9e34b")
#: On the screen a seed is never smaller or larger than this, in pixels.
_LIMITS_PX = (8, 16)
_PROPOSAL_LIMITS_PX = (18, 26)
#: How much is seen of the seeds of other objects than the current one.
_DIM = 0.35


class SeedLayers:
    """The layers of one session; one that the user removes comes back with the next change.

    They stay in the viewer when the session ends.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        shown: Shown,
        *,
        on_made: Callable[[Layer], None],
        on_drawn: Callable[[NDArray[Any], NDArray[Any], Box], None],
        on_points: Callable[[str, list[int]], None],
    ) -> None:
        """Add the layers.

        Args:
            viewer: The viewer.
            shown: The scan whose grid the masks have.
            on_made: Called with every layer that is made, at once and later.
            on_drawn: Called when the user has drawn in the mask, with its numbers before and after
                (z, y, x) in a box, and the box.
            on_points: Called when the user has added, removed or moved seeds with napari's own
                tools, with `added`, `removed` or `changed` and their rows.
        """
        self.viewer = viewer
        self.shown = shown
        self.colors: dict[int, str] = {}
        self._on_made, self._on_drawn, self._on_points = on_made, on_drawn, on_points
        self._own = False
        self._rows: list[Seed] = []
        self._shown_seeds: Any = None
        self._truth: Any = None
        # Above the mask the proposal, above that the seeds, which take the clicks.
        self._objects: Labels | None = None
        self._proposal: Points | None = None
        self._seeds: Points | None = None
        for make in (lambda: self.objects, lambda: self.proposal, lambda: self.seeds):
            make()

    # ---- the layers

    @property
    def objects(self) -> Labels:
        """The mask: a label for every object."""
        if self._objects is None or self._objects not in self.viewer.layers:
            i, j, k = self.shown.scan.shape[1:]
            empty = np.zeros((i, j, k), dtype=np.uint8)
            data, settings, kind = labels_layer(self.shown, empty, name="objects")
            if self._truth is not None:
                data[...] = self._truth
            settings |= {"colormap": self._colormap(), "opacity": 0.5}
            self._objects = self._add((data, settings, kind))
            self._objects.events.paint.connect(self._paint)
        return self._objects

    @property
    def seeds(self) -> Points:
        """All seeds."""
        if self._seeds is None or self._seeds not in self.viewer.layers:
            self._rows, self._shown_seeds = [], None
            self._seeds = self._add(self._points("seeds", "seeds", _LIMITS_PX))
            self._seeds.events.data.connect(self._edit_points)
        return self._seeds

    @property
    def proposal(self) -> Points:
        """The agent's next seed."""
        if self._proposal is None or self._proposal not in self.viewer.layers:
            data, settings, kind = self._points("next seed", "proposal", _PROPOSAL_LIMITS_PX)
            settings |= {"symbol": "star", "border_width": 0.05}
            # The spaces keep it clear of the marker at every zoom.
            text = {"string": "    {gain}", "size": 11, "color": "white", "anchor": "lower_left"}
            settings["features"] = {"gain": []}
            self._proposal = self._add((data, {**settings, "text": text}, kind))
        return self._proposal

    @property
    def layers(self) -> tuple[Layer | None, ...]:
        """Those that were made, in the viewer or not any more."""
        return self._objects, self._proposal, self._seeds

    def release(self) -> None:
        """Follow the layers no more; they stay, but for the proposal."""
        if self._objects is not None:
            self._objects.events.paint.disconnect(self._paint)
        if self._seeds is not None:
            self._seeds.events.data.disconnect(self._edit_points)
        if self._proposal is not None and self._proposal in self.viewer.layers:
            self.viewer.layers.remove(self._proposal)
        self._objects = self._proposal = self._seeds = None

    # ---- what they show

    def show(self, state: State | None, more: Sequence[tuple[str, Seed]]) -> None:
        """Show a state's mask and seeds.

        Args:
            state: The session's; None before there is one.
            more: Seeds that the session does not hold yet, with the names of their objects.
        """
        if state is not None:
            self._show_mask(state)
        self.show_seeds(state, more)

    def show_seeds(self, state: State | None, more: Sequence[tuple[str, Seed]]) -> None:
        """Show the seeds alone."""
        held = [(o.name, seed) for o in (state.objects if state else ()) for seed in o.seeds]
        numbers = {o.name: n for n, o in enumerate(state.objects if state else (), 1)}
        current = state.current if state else ""
        listed = [*held, *more]
        rows = [(name, seed, p) for name, seed in listed for p in seed.points_world]
        self._rows = [seed for _, seed, _ in rows]
        layer = self.seeds
        layer.metadata[KEY]["seeds"] = [seed for _, seed in listed]
        points = np.array([p for *_, p in rows]).reshape(-1, 3)
        faces = [_rgba(SEED_COLORS[s.label], 1 if n == current else _DIM) for n, s, _ in rows]
        edges = [_rgba(self.color(numbers.get(name, 1))) for name, *_ in rows]
        kinds = [(name, seed.who, seed.label) for name, seed, _ in rows]
        shown = (layer, points.tobytes(), np.array([*faces, *edges]).tobytes(), kinds)
        if shown == self._shown_seeds:
            # Nothing has changed but who holds them; drawing costs time.
            return
        self._shown_seeds = shown
        self._own = True
        try:
            layer.selected_data = set()
            layer.data = self._to_data(points)
            layer.features = _features(rows)
            if rows:
                layer.face_color = np.array(faces)
                layer.border_color = np.array(edges)
                layer.symbol = ["diamond" if s.who == "agent" else "disc" for _, s, _ in rows]
        finally:
            self._own = False

    def show_proposal(self, proposal: Seed | None) -> None:
        """Show the agent's next seed, or none."""
        if proposal is None and (self._proposal is None or not len(self._proposal.data)):
            return
        layer = self.proposal
        layer.selected_data = set()
        if proposal is None:
            layer.data = np.empty((0, 3))
            return
        layer.data = self._to_data(proposal.position_world)[None]
        layer.features = {"gain": [f"{proposal.expected_gain:+.3f}"]}
        # Of a star at this size napari shows hardly more than the border.
        layer.face_color = layer.border_color = _rgba(SEED_COLORS[proposal.label])[None]
        layer.symbol = "star"
        layer.refresh_text()

    def color(self, number: int) -> str:
        """Of an object, by its number."""
        usual = OBJECT_COLORS[(number - 1) % len(OBJECT_COLORS)]
        return self.colors.get(number, usual)

    def recolor(self, number: int, color: str) -> None:
        """Show an object in another colour; seeds take it at their next change."""
        self.colors[number] = color
        self.objects.colormap = self._colormap()

    def position_world(self, row: int) -> NDArray[np.float64]:
        """Where a point of the seeds layer is now, (3,) RAS mm."""
        there = np.asarray(self.seeds.data[row]) * self.shown.scale + self.shown.translate
        return self.shown.frame.to_world(there)

    def seed_of_row(self, row: int) -> Seed | None:
        """The seed that a point of the seeds layer belongs to."""
        return self._rows[row] if 0 <= row < len(self._rows) else None

    def seed_near(self, origin: Any, direction: Any, *, reach: float) -> Seed | None:
        """The seed that a line of sight meets.

        Args:
            origin: (3,) a point of it, in napari's world.
            direction: (3,) along it; in a slice, across it.
            reach: How near it must come, mm.
        """
        points = np.asarray(self.seeds.data) * self.shown.scale + self.shown.translate
        if not len(points):
            return None
        along = np.asarray(direction) / np.linalg.norm(direction)
        offset = points - origin
        aside = np.linalg.norm(offset - (offset @ along)[:, None] * along, axis=1)
        if self.viewer.dims.ndisplay == 2:
            # Those of other slices are not meant.
            aside[np.abs(offset @ along) > np.abs(along) @ self.shown.scale / 2 + 1e-6] = np.inf
        nearest = int(aside.argmin())
        return self.seed_of_row(nearest) if aside[nearest] <= reach else None

    # ---------------------------------------------------------------------------------------------

    def _show_mask(self, state: State) -> None:
        self._truth = state.labels
        layer = self.objects
        self._own = True
        try:
            if state.changed is not None:
                begin = np.array([part.start for part in state.changed])
                new = state.labels[state.changed]
                where = np.nonzero(layer.data[state.changed] != new)
                if len(where[0]):
                    there = tuple(axis + start for axis, start in zip(where, begin, strict=True))
                    layer.data_setitem(there, new[where])
            if state.number and layer.selected_label != state.number and layer.mode != "erase":
                layer.selected_label = state.number
        finally:
            self._own = False

    def _paint(self, _event: Any = None) -> None:
        """The user has drawn."""
        layer = self._objects
        if self._own or layer is None:
            return
        before = np.zeros_like(layer.data) if self._truth is None else self._truth
        box = difference(before, layer.data)
        if box is None:
            return
        self._on_drawn(before[box], layer.data[box].copy(), box)

    def _edit_points(self, event: Any) -> None:
        """The user has changed points with napari's own tools."""
        action = str(getattr(event, "action", ""))
        if not self._own:
            self._shown_seeds = None
        if not self._own and action in ("added", "removed", "changed"):
            count = len(self.seeds.data) if action != "removed" else len(self._rows)
            rows = [int(row) % max(count, 1) for row in getattr(event, "data_indices", ())]
            self._on_points(action, rows)

    def _add(self, layer: Any) -> Any:
        selected = self.viewer.layers.selection.active
        made = add(self.viewer, layer)
        if selected is not None and selected in self.viewer.layers:
            self.viewer.layers.selection.active = selected
        self._on_made(made)
        return made

    def _to_data(self, points_world: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (..., 3), RAS mm, as data of the layers of points."""
        there = self.shown.frame.to_napari(points_world)
        return (there - self.shown.translate) / self.shown.scale

    def _points(self, name: str, kind: str, limits_px: tuple[int, int]) -> Any:
        metadata = {"frame": self.shown.frame, "scan": self.shown, "kind": kind}
        settings = {
            "name": name,
            "metadata": {KEY: metadata},
            "ndim": 3,
            "size": 2.0,
            # In voxels, so that each seed is seen in the one slice that it lies in.
            "scale": self.shown.scale,
            "translate": self.shown.translate,
            "canvas_size_limits": limits_px,
            "border_width": 0.2,
            "blending": "translucent_no_depth",
            **AXES,
        }
        return np.empty((0, 3)), settings, "points"

    def _colormap(self) -> DirectLabelColormap:
        colors: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
        return DirectLabelColormap(color_dict=colors | {n: self.color(n) for n in range(1, 256)})


def _features(rows: Sequence[tuple[str, Seed, Any]]) -> dict[str, list[Any]]:
    """What napari shows of each point: its seed's object, label and origin."""
    numbers: dict[int, int] = {}
    for _, seed, _ in rows:
        numbers.setdefault(id(seed), len(numbers) + 1)
    return {
        "object": [name for name, *_ in rows],
        "label": [seed.label_name for _, seed, _ in rows],
        "who": [seed.who for _, seed, _ in rows],
        "seed": [numbers[id(seed)] for _, seed, _ in rows],
        "expected_gain": [seed.expected_gain for _, seed, _ in rows],
    }


def _rgba(color: str, alpha: float = 1.0) -> NDArray[np.float64]:
    """A colour (4,) from #rrggbb."""
    return np.array([*(int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)), alpha])
