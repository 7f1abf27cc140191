"""Named points as layers, and their names back from layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from medrl_napari.scans import KEY, LayerData, Shown
from medrl_napari.space import AXES, Floats, Frame

if TYPE_CHECKING:
    from napari.layers import Points

#: Diameter of a point (mm).
SIZE_MM = 4.0
_COLOR = "#39d98a"
_NAMES = ("name", "label")


def points_layer(
    names: Sequence[str],
    points_world: ArrayLike,
    frame: Frame,
    *,
    name: str,
    kind: str = "landmarks",
    features: dict[str, Any] | None = None,
    scan: Shown | None = None,
    **settings: Any,
) -> LayerData:
    """Named points as a layer.

    Args:
        names: P of them.
        points_world: (P, 3) RAS mm.
        frame: The viewer's.
        name: What to call the layer.
        kind: What the points are.
        features: More columns of P values each.
        scan: In what they lie.
        settings: Of napari's layer, instead of the usual ones.
    """
    usual: dict[str, Any] = {
        "name": name,
        "features": {"name": list(names), **(features or {})},
        "size": SIZE_MM,
        "face_color": _COLOR,
        "border_color": "black",
        "border_width": 0.15,
        "blending": "translucent_no_depth",
        "text": {
            "string": "{name}",
            "size": 9,
            "color": "white",
            "translation": (0, -4, 0),
        },
        "metadata": {KEY: {"kind": kind, "frame": frame, "scan": scan}},
        "ndim": 3,
        **AXES,
    }
    data = frame.to_napari(np.asarray(points_world, dtype=np.float64).reshape(-1, 3))
    return data, {**usual, **settings}, "points"


def positions_world(
    data: ArrayLike, frame: Frame, *, scale: Any = 1.0, translate: Any = 0.0
) -> Floats:
    """Where the points of a layer lie.

    Args:
        data: (P, D), the last three being (z, y, x); a time before them is dropped.
        frame: The layer's.
        scale: The layer's.
        translate: The layer's.

    Returns:
        (P, 3) RAS mm.
    """
    there = np.asarray(data, dtype=np.float64) * scale + translate
    return frame.to_world(there[:, -3:])


def layer_positions_world(layer: Points, frame: Frame) -> Floats:
    """Where the points of a layer lie, (P, 3) RAS mm."""
    return positions_world(layer.data, frame, scale=layer.scale, translate=layer.translate)


def names_of(features: Any, count: int) -> list[str]:
    """Names of points, all different: of a column called name or label, or numbers.

    Args:
        features: The layer's table.
        count: How many there are.
    """
    table = dict(features) if features is not None else {}
    column = next((table[key] for key in _NAMES if key in table), None)
    said = [""] * count if column is None else ["" if v is None else str(v) for v in column]
    taken: set[str] = set()
    names = []
    for number, own in enumerate(said, 1):
        name = own if own and own != "nan" else f"P{number}"
        while name in taken:
            name += "'"
        taken.add(name)
        names.append(name)
    return names
