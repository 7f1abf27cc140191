"""Landmarks as a points layer, and what a person does to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrl.landmark.detection import Landmark
from medrl.landmark.picture import landmark_style, short_name
from medrl_napari.scans import KEY, Shown, add
from medrl_napari.search.kind import Corrections
from medrl_napari.space import AXES, Floats

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Points

#: matplotlib's markers in napari's words.
_SYMBOLS = {"o": "disc", "D": "diamond", "s": "square"}
#: Corrections smaller than this are none (mm).
_STILL_MM = 1e-6
_POINT_MM = 5.0


class LandmarkPoints:
    """The landmarks that are in a scan, as points that can be dragged, added and deleted.

    Attributes:
        layer: Where they are.
        shown: The scan that they belong to.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        shown: Shown,
        landmarks: Sequence[Landmark],
        *,
        changed: Callable[[Corrections], None],
        missing: Callable[[], str | None],
        mode: Callable[[str], None] = lambda _mode: None,
        name: str = "landmarks",
    ) -> None:
        """Add the layer.

        Args:
            viewer: Where to.
            shown: The scan that they belong to.
            landmarks: Of any status; absent ones are not shown.
            changed: Called with what a person changed.
            missing: Which absent landmark a point is that a person adds, if any.
            mode: Called with the layer's mode when it is another.
            name: What to call the layer.
        """
        self.shown = shown
        self._mode = mode
        self._changed = changed
        self._missing = missing
        self._known: dict[str, Floats] = {}
        settings = {
            "ndim": 3,
            "name": name,
            "size": _POINT_MM,
            "border_color": "black",
            "border_width": 0.12,
            "opacity": 0.9,
            "projection_mode": "rescale_spherical",
            "blending": "translucent_no_depth",
            "metadata": {KEY: {"kind": "landmarks", "frame": shown.frame, "scan": shown}},
            **AXES,
        }
        self.layer: Points = add(viewer, (np.empty((0, 3)), settings, "points"))
        self.show(landmarks)
        self.layer.text = {
            "string": "{label}",
            "size": 9,
            "color": "white",
            "anchor": "upper_left",
            "translation": (0.0, -_POINT_MM / 2, _POINT_MM / 2),
        }
        self.layer.events.data.connect(self._on_data)
        self.layer.events.mode.connect(self._on_mode)

    def renew(self, shown: Shown, landmarks: Sequence[Landmark]) -> None:
        """Show the landmarks of another search."""
        self.shown = shown
        self.layer.metadata[KEY].update(frame=shown.frame, scan=shown)
        self.show(landmarks)

    def show(self, landmarks: Sequence[Landmark]) -> None:
        """Show landmarks as they now are; points that did not move are left alone."""
        there = {lm.name: lm for lm in landmarks if lm.status != "absent"}
        names = self._names()
        if set(names) != set(there) or len(names) != len(there):
            names = list(there)
        ordered = [there[name] for name in names]
        world = np.array([lm.position_world for lm in ordered]).reshape(-1, 3)
        places = self.shown.frame.to_napari(world)
        with self.layer.events.data.blocker():
            if self.layer.data.shape != places.shape or not np.allclose(self.layer.data, places):
                self.layer.selected_data = set()
                self.layer.data = places
        self.layer.features = {
            "name": _texts(lm.name for lm in ordered),
            "label": _texts(short_name(lm.name) for lm in ordered),
            "status": _texts(lm.status for lm in ordered),
            "confidence": np.array([lm.confidence for lm in ordered], dtype=np.float64),
        }
        if ordered:
            styles = [landmark_style(lm) for lm in ordered]
            self.layer.face_color = [color for color, _ in styles]
            self.layer.symbol = [_SYMBOLS[marker] for _, marker in styles]
        self._known = dict(zip(names, world, strict=True))

    def place(self, name: str) -> Floats | None:
        """Where a landmark is in napari's world, (3,); None if it is not in the scan."""
        point = self._known.get(name)
        return None if point is None else self.shown.frame.to_napari(point)

    def select(self, name: str | None) -> None:
        """Make a landmark the layer's selected point."""
        names = self._names()
        self.layer.selected_data = {names.index(name)} if name in names else set()

    def drag(self, wanted: bool) -> None:
        """Let the mouse move points, or the view."""
        self.layer.mode = "select" if wanted else "pan_zoom"

    def set_aside(self) -> None:
        """Say that the points are of before."""
        self.layer.name = f"{self.layer.name} before"

    def release(self) -> None:
        """Follow the layer no more."""
        self.layer.events.data.disconnect(self._on_data)
        self.layer.events.mode.disconnect(self._on_mode)

    # ---------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        features = self.layer.features
        return [str(name) for name in features["name"]] if "name" in features else []

    def _on_mode(self, event: Any) -> None:
        self._mode(str(event.mode))

    def _on_data(self, event: Any) -> None:
        """The layer's data changed; only what is over and done counts."""
        if str(event.action) == "added":
            self._name_new(len(self._known))
        if str(event.action) not in ("added", "removed", "changed"):
            return
        now = dict(zip(self._names(), self._world(), strict=True))
        corrections = _differences(self._known, now)
        if corrections:
            self._known = now
            self._changed(corrections)

    def _world(self) -> Floats:
        return self.shown.frame.to_world(self.layer.data)

    def _name_new(self, before: int) -> None:
        """Give a point that was added the name that is missing, or take it away again."""
        name = self._missing()
        if name is None or len(self.layer.data) != before + 1:
            with self.layer.events.data.blocker():
                self.layer.remove(list(range(before, len(self.layer.data))))
            self._changed({})
            return
        features = self.layer.features.copy()
        features["name"] = _texts([*self._names()[:before], name])
        features["label"] = _texts(short_name(each) for each in features["name"])
        self.layer.features = features


def _texts(texts: Iterable[str]) -> NDArray[np.object_]:
    """A column of text, also when there is none, which pandas would take for numbers."""
    return np.array(list(texts), dtype=object)


def _differences(before: Mapping[str, Floats], now: Mapping[str, Floats]) -> Corrections:
    corrections: Corrections = {name: None for name in before if name not in now}
    for name, point in now.items():
        if name not in before or np.abs(point - before[name]).max() > _STILL_MM:
            corrections[name] = point
    return corrections
