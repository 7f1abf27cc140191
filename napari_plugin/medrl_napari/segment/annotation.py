"""A seed session's place in the viewer: its layers, the mouse on them, and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medrl.seednet.seeds import Seed
from medrl_napari.scans import Shown
from medrl_napari.segment.layers import SeedLayers
from medrl_napari.segment.session_state import Array, Box
from medrl_napari.segment.tool import Keys, SeedTool

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

#: Within this distance of the mouse a seed is meant, in pixels of the screen.
_REACH_PX = 10.0


@dataclass(frozen=True, kw_only=True)
class Reactions:
    """What to do when the user has done something in the viewer. Points are RAS mm.

    Attributes:
        stroke: Drawn points (P, 3), and whether with Shift.
        draft: The same while the stroke is being drawn.
        drawn: In the mask: its numbers in a box before and after, and the box.
        added: A point (1, 3) with napari's own tools.
        removed: Seeds, likewise.
        moved: A seed, and its points (P, 3) now.
    """

    stroke: Callable[[Array, bool], None]
    draft: Callable[[Array, bool], None]
    drawn: Callable[[Array, Array, Box], None]
    added: Callable[[Array], None]
    removed: Callable[[Sequence[Seed]], None]
    moved: Callable[[Seed, Array], None]


class SeedAnnotation:
    """Layers with mouse and keys; released, the layers stay and are the viewer's own."""

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        shown: Shown,
        *,
        reactions: Reactions,
        keys: Mapping[str, Callable[[], None]],
    ) -> None:
        """Add everything to a viewer, ready for the first click.

        Args:
            viewer: The viewer.
            shown: The scan whose grid the masks have.
            reactions: To what the user does.
            keys: What they do, by napari's names of keys.
        """
        self.shown = shown
        self._viewer = viewer
        self._reactions = reactions
        self._tool = SeedTool(viewer, shown, on_stroke=reactions.stroke, on_draft=reactions.draft)
        self._keys = Keys(viewer, keys)
        self.layers = SeedLayers(
            viewer,
            shown,
            on_made=self._made,
            on_drawn=reactions.drawn,
            on_points=self._points_edited,
        )
        self.activate()

    @property
    def active(self) -> bool:
        """Whether clicks place seeds."""
        selected = self._viewer.layers.selection.active
        return selected is not None and selected is self.layers.layers[-1]

    def activate(self) -> None:
        """Let clicks place seeds."""
        self.layers.seeds.mode = "pan_zoom"
        self._viewer.layers.selection.active = self.layers.seeds

    def seeds_under_mouse(self) -> list[Seed]:
        """The seeds that are selected with napari's tool, or the one under the mouse."""
        layers, viewer = self.layers, self._viewer
        if layers.seeds.mode == "select" and layers.seeds.selected_data:
            rows = [layers.seed_of_row(int(row)) for row in layers.seeds.selected_data]
            return _once(rows)
        cursor = np.asarray(viewer.cursor.position, dtype=np.float64)[-3:]
        if viewer.dims.ndisplay == 3:
            direction = np.asarray(viewer.scene.camera.view_direction, dtype=np.float64)
        else:
            direction = np.eye(3)[viewer.dims.not_displayed[-1] - (viewer.dims.ndim - 3)]
        return _once(
            [layers.seed_near(cursor, direction, reach=_REACH_PX / viewer.scene.camera.zoom)]
        )

    def release(self) -> None:
        """Leave the viewer to itself."""
        self._tool.release()
        self._keys.release()
        self.layers.release()

    def _made(self, layer: Layer) -> None:
        self._keys.bind(layer)
        if layer.name.startswith("seeds"):
            self._tool.attach(layer)

    def _points_edited(self, action: str, rows: list[int]) -> None:
        """The user has used napari's own tools on the seeds."""
        layers = self.layers
        if action == "added":
            for point in np.array([layers.position_world(row) for row in rows]):
                self._reactions.added(point[None])
            return
        seeds = _once([layers.seed_of_row(row) for row in rows])
        if action == "removed":
            self._reactions.removed(seeds)
            return
        for seed in seeds:
            own = [n for n in range(len(layers.seeds.data)) if layers.seed_of_row(n) is seed]
            self._reactions.moved(seed, np.array([layers.position_world(row) for row in own]))


def _once(seeds: Sequence[Seed | None]) -> list[Seed]:
    """Each seed once."""
    return list({id(seed): seed for seed in seeds if seed is not None}.values())
