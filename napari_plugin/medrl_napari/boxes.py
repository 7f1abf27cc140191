"""The geometry of boxes as wire frames: whole, or where a slice cuts them.

A box is given by its eight corners (2, 2, 2, 3), so that it may lie askew in napari's world.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from medrl_napari.space import Floats, Frame

if TYPE_CHECKING:
    from napari.components import Dims

_AXES = (0, 1, 2)
#: The faces of a box as the numbers of their corners, one after the other round the face.
_ROUND = ((0, 0), (0, 1), (1, 1), (1, 0))


def slice_of(dims: Dims) -> tuple[int | None, float]:
    """The slice that a viewer shows.

    Args:
        dims: The viewer's.

    Returns:
        The axis of (z, y, x) across it, and where it lies on that; None and 0 in 3D.
    """
    first = dims.ndim - 3
    across = dims.order[-3] - first if first >= 0 and dims.ndisplay == 2 else -1
    return (None, 0.0) if across < 0 else (across, float(dims.point[first + across]))


def box_corners(opposite_world: ArrayLike, frame: Frame) -> Floats:
    """The corners of boxes along the world's axes.

    Args:
        opposite_world: (B, 2, 3), two opposite corners of each, RAS mm.
        frame: The viewer's.

    Returns:
        (B, 2, 2, 2, 3), in napari's world.
    """
    ends = np.asarray(opposite_world, dtype=np.float64).reshape(-1, 2, 3)
    corners = [ends[:, sides, _AXES] for sides in product((0, 1), repeat=3)]
    return frame.to_napari(np.stack(corners, axis=1).reshape(-1, 2, 2, 2, 3))


def cube_corners(centers: Floats, half: Floats) -> Floats:
    """The corners (B, 2, 2, 2, 3) of cubes along napari's axes, of half the sides (B,)."""
    unit = np.array(list(product((-1.0, 1.0), repeat=3))).reshape(2, 2, 2, 3)
    return np.asarray(centers[:, None, None, None] + unit * half[:, None, None, None, None])


def whole_edges(corners: Floats) -> Floats:
    """The edges of boxes.

    Args:
        corners: (B, 2, 2, 2, 3).

    Returns:
        (B * 12, 2, 3), each a start and a way, the twelve of a box in a row.
    """
    starts = [np.take(corners, 0, axis=1 + axis).reshape(-1, 4, 3) for axis in _AXES]
    ends = [np.take(corners, 1, axis=1 + axis).reshape(-1, 4, 3) for axis in _AXES]
    start, end = np.concatenate(starts, axis=1), np.concatenate(ends, axis=1)
    return np.stack([start, end - start], axis=2).reshape(-1, 2, 3)


def cut_edges(corners: Floats, across: int, at: float) -> tuple[Floats, Floats]:
    """The outlines of boxes where a slice cuts them.

    Args:
        corners: (B, 2, 2, 2, 3).
        across: Axis of (z, y, x) across the slice.
        at: Where the slice lies on it.

    Returns:
        (E, 2, 3), each a start and a way; and (E,), the number of the box that each belongs to.
    """
    faces = []
    for axis, side in product(_AXES, (0, 1)):
        face = np.take(corners, side, axis=1 + axis)
        faces.append(np.stack([face[:, one, other] for one, other in _ROUND], axis=1))
    here = np.concatenate(faces).reshape(-1, 4, 3)
    boxes = np.tile(np.arange(len(corners)), len(faces))
    there = np.roll(here, -1, axis=1)
    # A corner in the slice counts as above it, so that each face is met twice or not at all.
    above, next_above = here[..., across] >= at, there[..., across] >= at
    crosses = above != next_above
    met = crosses.sum(axis=1) == 2
    here, there, crosses, boxes = here[met], there[met], crosses[met], boxes[met]
    rise = there[..., across] - here[..., across]
    share = (at - here[..., across]) / np.where(crosses, rise, 1.0)
    points = (here + share[..., None] * (there - here))[crosses].reshape(-1, 2, 3)
    points[..., across] = at
    return np.stack([points[:, 0], points[:, 1] - points[:, 0]], axis=1), boxes
