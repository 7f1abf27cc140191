"""The boxes of a scan as layers, and what a person does to them with the mouse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medrl_napari.box_layers import BoxLayers
from medrl_napari.localize.grip import drawn_box, grip_at, lie_of
from medrl_napari.localize.kind import BOXES
from medrl_napari.mouse import DragTool
from medrl_napari.scans import Shown
from medrl_napari.space import Floats

if TYPE_CHECKING:
    import napari
    from napari.layers import Vectors

    from medrl.localization.answer import Box

Mode = Literal["look", "move", "draw"]

#: How near the mouse must be to a face, and how far it must go to mean it, in pixels.
_REACH_PX, _CLICK_PX = 7.0, 3.0
_DRAFT, _DRAFT_COLOR = "", "#ffffff"


class BoxEditor(DragTool):
    """Boxes that can be moved face by face, as a whole, and drawn, in the slices of any plane.

    Attributes:
        layers: The boxes.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        shown: Shown,
        boxes: Sequence[Box],
        *,
        changed: Callable[[str, Floats], None],
        drawn: Callable[[Floats], None],
        chosen: Callable[[str], None],
        current: Callable[[], str | None],
    ) -> None:
        """Add the layers.

        Args:
            viewer: Where to.
            shown: The scan that the boxes lie in.
            boxes: Of any status; absent ones are not shown.
            changed: Called with a box's name and its new corners (2, 3), RAS mm.
            drawn: Called with a new box.
            chosen: Called with a box that was clicked.
            current: Says which box is looked at.
        """
        super().__init__(viewer)
        self.layers = BoxLayers(viewer, shown.frame, name=BOXES.layer, scan=shown)
        self._changed, self._drawn, self._chosen = changed, drawn, chosen
        self._current = current
        self._boxes: Sequence[Box] = ()
        self._mode: Mode = "look"
        self.show(boxes)

    @property
    def layer(self) -> Vectors:
        """The boxes' edges; the mouse works while this is the selected layer."""
        return self.layers.layer

    @property
    def mode(self) -> Mode:
        """What the left button does in slices: move the picture, faces, or draw a new box."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        self.release()
        if mode != "look":
            self.attach(self.layer)
            self._viewer.layers.selection = {self.layer}

    def renew(self, shown: Shown, items: Sequence[Box]) -> None:
        """Show the boxes of another search."""
        self.layers.renew(shown.frame, shown)
        self.show(items)

    def show(self, items: Sequence[Box]) -> None:
        """Show boxes as they now are."""
        self._boxes = [box for box in items if box.status != "absent"]
        self._show({box.name: box.corners_world for box in self._boxes})

    def place(self, name: str) -> Floats | None:
        """The middle of a box in napari's world, (3,); None if it is not in the scan."""
        corners = self.layers.boxes_world.get(name)
        return None if corners is None else self.layers.frame.to_napari(corners.mean(axis=0))

    def select(self, name: str | None) -> None:
        """Point a box out."""
        self.layers.select(name)

    def set_aside(self) -> None:
        """Say that the boxes are of before."""
        self.layers.set_aside()

    def drag(self, layer: Vectors, event: Any) -> Iterator[None]:
        """Move faces or a whole box, or draw one, in a slice of whichever canvas."""
        if len(event.dims_displayed) != 2:
            return
        # Of the canvas with the mouse on it, which may be one of the linked views.
        first = len(event.dims_point) - 3
        (across,) = {0, 1, 2} - {axis - first for axis in event.dims_displayed}
        lie = lie_of(self.layers.frame, across)
        drag = self._draw if self._mode == "draw" else self._move
        yield from drag(event, lie)

    # ---------------------------------------------------------------------------------------------

    def _point(self, event: Any) -> Floats:
        return self.layers.frame.to_world(np.asarray(event.position, dtype=np.float64)[-3:])

    def _move(self, event: Any, lie: Floats) -> Iterator[None]:
        boxes, begin = self.layers.boxes_world, self._point(event)
        reach = _REACH_PX / event.camera_zoom
        grip = grip_at(boxes, begin, lie, reach, prefer=self._current())
        if grip is None:
            return
        pressed, corners = np.array(event.pos, dtype=np.float64), boxes[grip.name]
        now = corners
        yield
        while event.type == "mouse_move":
            if np.linalg.norm(np.array(event.pos) - pressed) > _CLICK_PX or now is not corners:
                now = grip.moved(corners, self._point(event) - begin)
                self._show({**boxes, grip.name: now})
            yield
        if now is corners:
            self._chosen(grip.name)
        else:
            self._changed(grip.name, now)

    def _draw(self, event: Any, lie: Floats) -> Iterator[None]:
        boxes, begin = self.layers.boxes_world, self._point(event)
        across = int(lie.argmin())
        depths = [float(corners[1, across] - corners[0, across]) for corners in boxes.values()]
        depth = float(np.median(depths)) if depths else None
        now = None
        yield
        while event.type == "mouse_move":
            now = drawn_box(begin, self._point(event), lie, depth)
            if now is not None:
                self._show({**boxes, _DRAFT: now})
            yield
        self._show(boxes)
        if now is not None:
            self._drawn(now)

    def _show(self, boxes_world: dict[str, Floats]) -> None:
        colors = {box.name: BOXES.color(box) for box in self._boxes}
        self.layers.show(
            list(boxes_world),
            np.array(list(boxes_world.values())).reshape(-1, 2, 3),
            [colors.get(name, _DRAFT_COLOR) for name in boxes_world],
        )
