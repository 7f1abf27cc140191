"""Which faces of a box the mouse has taken hold of in a slice, and where it takes them.

Boxes lie along the world's axes, slices along those of the viewer's frame, which may be oblique. A
point of the slice that moves by d moves by d_a along the world's axis a, and so do the faces across
that axis; faces that lie nearly in the slice cannot be taken hold of there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medrl_napari.space import Floats, Frame

#: Faces whose normal has less than this share in the slice are not seen as lines.
_STEEP = 0.5
#: Boxes stay at least so thick (mm).
LEAST_MM = 1.0


@dataclass(frozen=True)
class Grip:
    """A hold on a box.

    Attributes:
        name: Of the box.
        faces: Which, each as side (0 the smaller, 1 the larger) and axis of the world; one, two
            that meet in an edge, or all that the slice cuts: then the box is moved as a whole.
        whole: Whether it is.
    """

    name: str
    faces: tuple[tuple[int, int], ...]
    whole: bool = False

    def moved(self, corners_world: Floats, way_world: Floats) -> Floats:
        """A box (2, 3) after the faces were moved by a way (3,), RAS mm; other faces stay."""
        moved = corners_world.copy()
        for side, axis in self.faces:
            moved[side, axis] += way_world[axis]
            if not self.whole:
                other = corners_world[1 - side, axis]
                end = max(moved[side, axis], other + LEAST_MM)
                moved[side, axis] = end if side else min(moved[side, axis], other - LEAST_MM)
        return moved


def lie_of(frame: Frame, across: int) -> Floats:
    """How much of each of the world's axes lies in a slice, (3,) from 0 to 1.

    Args:
        frame: The viewer's.
        across: Axis of (z, y, x) across the slice.
    """
    shown = [axis for axis in range(3) if axis != across]
    return np.asarray(np.linalg.norm(frame.matrix[:, shown], axis=1))


def grip_at(
    boxes_world: Mapping[str, Floats],
    point_world: Floats,
    lie: Floats,
    reach_mm: float,
    *,
    prefer: str | None = None,
) -> Grip | None:
    """What is under the mouse.

    Args:
        boxes_world: Each (2, 3) RAS mm.
        point_world: (3,) under the mouse.
        lie: From `lie_of`.
        reach_mm: How far from a face the mouse still takes hold of it.
        prefer: Name of the box that wins where several are as near.

    Returns:
        The nearest face, or two that meet there; inside of a box and far from its faces the whole
        box, the smallest of several; None outside of all.
    """
    steep = [axis for axis in range(3) if lie[axis] >= _STEEP]
    near: list[tuple[float, bool, Grip]] = []
    inside: list[tuple[bool, float, Grip]] = []
    for name, corners in boxes_world.items():
        reach = np.where(lie >= _STEEP, reach_mm * lie, 0.0)
        if (point_world < corners[0] - reach).any() or (point_world > corners[1] + reach).any():
            continue
        gaps = np.abs(corners - point_world) / np.maximum(lie, _STEEP)
        sides = gaps.argmin(axis=0)
        held = [axis for axis in steep if gaps[sides[axis], axis] <= reach_mm]
        other = name != prefer
        if held:
            faces = tuple((int(sides[axis]), axis) for axis in held)
            nearest = min(gaps[sides[axis], axis] for axis in held)
            near.append((float(nearest), other, Grip(name, faces)))
        elif steep:
            faces = tuple((side, axis) for axis in steep for side in (0, 1))
            volume = float(np.prod(corners[1] - corners[0]))
            inside.append((other, volume, Grip(name, faces, whole=True)))
    if near:
        preferred = [one for one in near if not one[1]]
        return min(preferred or near, key=lambda one: one[0])[2]
    return min(inside, key=lambda one: one[:2])[2] if inside else None


def drawn_box(
    start_world: Floats, end_world: Floats, lie: Floats, depth_mm: float | None
) -> Floats | None:
    """A box from a rectangle in a slice.

    Args:
        start_world: (3,) where its diagonal begins, RAS mm.
        end_world: (3,) where it ends.
        lie: From `lie_of`.
        depth_mm: Its size across the slice, about which it reaches alike; as its shorter side if
            None.

    Returns:
        (2, 3) RAS mm; None if the rectangle is thinner than a box may be.
    """
    across = int(lie.argmin())
    corners = np.sort(np.stack([start_world, end_world]), axis=0)
    sides = np.delete(corners[1] - corners[0], across)
    if (sides < LEAST_MM).any():
        return None
    half = (float(sides.min()) if depth_mm is None else depth_mm) / 2
    middle = corners[:, across].mean()
    corners[:, across] = middle - half, middle + half
    return corners
