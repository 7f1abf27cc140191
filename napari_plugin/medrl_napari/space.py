"""Between the patient's world and napari's.

Convention: *world* is RAS+ in millimetres, as everywhere in medrl. *napari's world* is (z, y, x)
in millimetres that grow to the patient's feet, back and left: so napari's own axial, coronal and
sagittal views come out the radiological way, and its 3D view is not mirrored. Its axes are those
of a *frame*: the body's, or for an oblique scan the scan's own ones, along which it is shown
straight. With D the frame's directions, p_world = D s and p_napari = (-s_2, -s_1, -s_0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrl.volume.space import as_affine, spacing_of

Floats = NDArray[np.float64]

#: What every layer says of its axes; one layer without units turns them off for all.
AXES: dict[str, Any] = {"axis_labels": ("z", "y", "x"), "units": ("mm", "mm", "mm")}
AXES_4D: dict[str, Any] = {"axis_labels": ("t", "z", "y", "x"), "units": ("s", "mm", "mm", "mm")}

#: Directions that differ by less than this are the same: a micrometre in a metre.
_SAME = 1e-6

#: Reverses the order of three axes and their signs; its own inverse.
_TURN_ROUND = -np.eye(3)[::-1]


@dataclass(frozen=True, eq=False)
class Frame:
    """Along which directions of the patient a viewer's axes run.

    Attributes:
        directions: (3, 3); its columns are the directions, in RAS, of the axes nearest to right,
            anterior and superior. The identity for scans that lie along the body's axes.
    """

    directions: Floats

    def to_napari(self, points_world: ArrayLike) -> Floats:
        """World points (..., 3), RAS mm, to napari's world (..., 3), (z, y, x) in mm."""
        points = np.asarray(points_world, dtype=np.float64)
        return points @ np.linalg.inv(self.matrix).T

    def to_world(self, points_napari: ArrayLike) -> Floats:
        """Points of napari's world (..., 3), (z, y, x) in mm, to world points (..., 3), RAS mm."""
        return np.asarray(points_napari, dtype=np.float64) @ self.matrix.T

    @property
    def matrix(self) -> Floats:
        """(3, 3), napari's world to world."""
        return np.asarray(self.directions @ _TURN_ROUND)

    def same_as(self, other: Frame) -> bool:
        """Whether what is straight in one is straight in the other."""
        return bool(np.abs(self.directions - other.directions).max() < _SAME)


#: The body's own axes.
STRAIGHT = Frame(np.eye(3))


def frame_of(affine: ArrayLike) -> Frame:
    """The frame in which a scan is shown straight.

    Args:
        affine: (4, 4), voxel to world, RAS mm.

    Raises:
        MedrlError: If it is no affine matrix.
    """
    matrix = as_affine(affine)
    orientation = nib.orientations.io_orientation(matrix)
    columns = matrix[:3, :3] / spacing_of(matrix)
    directions = np.empty((3, 3))
    for axis, (nearest, sign) in enumerate(orientation):
        directions[:, int(nearest)] = columns[:, axis] * sign
    frame = Frame(directions)
    return STRAIGHT if frame.same_as(STRAIGHT) else frame
