"""The mouse on the seeds layer: clicks and scribbles, in slices and in 3D; and keys on layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from medrl.volume.space import as_affine, spacing_of, world_to_voxel
from medrl_napari.mouse import DragTool
from medrl_napari.scans import Shown
from medrl_napari.space import Floats

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer, Points

#: A press that moves less than this before it ends is a click, in pixels of the screen.
_CLICK_PX = 4.0
#: Values that differ by less than this part of the scan's range are equally bright.
_EQUAL = 1e-6


class SeedTool(DragTool):
    """Turns what the mouse does on a layer into strokes.

    In a slice a click is a point and a drag a scribble. In 3D a click is the brightest voxel on the
    line of sight, as a maximum projection shows it; a drag turns the scene, with Ctrl it is a
    scribble.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        shown: Shown,
        *,
        on_stroke: Callable[[Floats, bool], None],
        on_draft: Callable[[Floats, bool], None],
    ) -> None:
        """Prepare for a scan.

        Args:
            viewer: The viewer.
            shown: The scan.
            on_stroke: Called with the points (P, 3), RAS mm, of a stroke that is done, and whether
                it was drawn with Shift.
            on_draft: Called so with a stroke that is being drawn.
        """
        super().__init__(viewer)
        self._shown = shown
        self._on_stroke, self._on_draft = on_stroke, on_draft

    def drag(self, layer: Points, event: Any) -> Iterator[None]:
        """From press to release."""
        begin = np.array(event.pos, dtype=np.float64)
        # Of the canvas with the mouse on it, which may be one of the linked views.
        draws = len(event.dims_displayed) == 2 or "Control" in event.modifiers
        shifted = "Shift" in event.modifiers
        points = [self.point_under(event)]
        moved = False
        yield
        while event.type == "mouse_move":
            if not moved:
                moved = float(np.linalg.norm(np.array(event.pos) - begin)) > _CLICK_PX
            if moved and draws:
                points.append(self.point_under(event))
                self._on_draft(self._path(points), shifted)
            yield
        if draws or not moved:
            self._on_stroke(self._path(points if moved else points[:1]), shifted)

    def point_under(self, event: Any) -> Floats | None:
        """The world point (3,), RAS mm, under the mouse; None where there is nothing to see."""
        position = np.asarray(event.position, dtype=np.float64)[-3:]
        if len(event.dims_displayed) == 2:
            return self._shown.frame.to_world(position)
        direction = np.asarray(event.view_direction, dtype=np.float64)[-3:]
        return brightest_on_ray(self._shown, position, direction)

    def _path(self, points: list[Floats | None]) -> Floats:
        """Points of a stroke (P, 3), near enough to one another to look like a line."""
        seen = [point for point in points if point is not None]
        if not seen:
            return np.empty((0, 3))
        step = spacing_of(self._shown.scan.affine).min() / 2
        path = seen[:1]
        for point in seen[1:]:
            last = path[-1]
            gap = float(np.linalg.norm(point - last))
            if gap < step / 2:
                continue
            count = int(np.ceil(gap / step))
            path += [last + (point - last) * n / count for n in range(1, count + 1)]
        return np.array(path)


def brightest_on_ray(shown: Shown, origin: ArrayLike, direction: ArrayLike) -> Floats | None:
    """What a maximum projection shows in one of its pixels.

    Args:
        shown: The scan.
        origin: (3,) a point on the line of sight, in napari's world.
        direction: (3,) along it, away from the eye.

    Returns:
        (3,) RAS mm, the centre of the brightest voxel on the line; of several in a row the middle
        one. None if the line misses the scan.
    """
    frame, affine = shown.frame, as_affine(shown.scan.affine)
    start = world_to_voxel(frame.to_world(origin), affine)
    step = world_to_voxel(frame.to_world(np.asarray(origin) + direction), affine) - start
    step = step / np.linalg.norm(step)
    shape = np.array(shown.scan.shape[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        faces = np.stack([(-0.5 - start) / step, (shape - 0.5 - start) / step])
    # Along a face a line is inside all the way, or nowhere.
    faces[:, step == 0] = np.array([[-np.inf], [np.inf]])
    aside = (step == 0) & ((start < -0.5) | (start > shape - 0.5))
    near, far = faces.min(axis=0).max(), faces.max(axis=0).min()
    if aside.any() or near >= far:
        return None
    along = np.linspace(near, far, max(2, int(np.ceil(2 * (far - near))) + 1))
    voxels = np.floor(start + along[:, None] * step + 0.5).astype(np.int64)
    voxels = np.clip(voxels, 0, shape - 1)
    values = np.asarray(shown.scan.as_tensor()[0])[tuple(voxels.T)].astype(np.float64)
    first = int(values.argmax())
    less = np.flatnonzero(values[first:] < values[first] - _EQUAL * np.ptp(values))
    last = first + (int(less[0]) if len(less) else len(values) - first) - 1
    middle = voxels[(first + last) // 2].astype(np.float64)
    return np.asarray(affine[:3, :3] @ middle + affine[:3, 3])


class Keys:
    """Keys on layers and on the viewer, until they are released."""

    def __init__(
        self, viewer: napari.viewer.Viewer, keys: Mapping[str, Callable[[], None]]
    ) -> None:
        """Bind the viewer's.

        Args:
            viewer: Where keys do something while any other layer is selected, if that layer has
                no use for them itself.
            keys: What to do, by napari's names of keys.
        """
        self._keys = {key: _without_parent(do) for key, do in keys.items()}
        self._owners: list[tuple[Any, dict[str, Any]]] = []
        self.bind(viewer)

    def bind(self, owner: napari.viewer.Viewer | Layer) -> None:
        """Let the keys do the same while a layer is selected, whatever napari uses them for."""
        before = {}
        for key, do in self._keys.items():
            before[key] = owner.bind_key(key, do, overwrite=True)
        self._owners.append((owner, before))

    def release(self) -> None:
        """Give the keys back."""
        for owner, before in self._owners:
            for key, do in before.items():
                owner.bind_key(key, do, overwrite=True)
        self._owners.clear()


def _without_parent(do: Callable[[], None]) -> Callable[[Any], None]:
    """A key's function as napari calls it."""

    def press(_parent: Any) -> None:
        do()

    return press
