"""Scans and films as stacks of pictures, and masks back on their grid.

Convention: along axis a of a scan (I, J, K), pictures are (row, column) = its two other axes in
order. The frames of a film are pictures (I, J) = (row, column) here; which of them a viewer draws
downwards makes no difference to agents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrl.cutting.dynamics import Stack
from medrl.errors import MedrlError
from medrl.volume.film import Film
from medrl.volume.space import spacing_of


def scan_stack(volume: Tensor, affine: NDArray[np.float64], axis: int) -> Stack:
    """The slices of a scan along an axis.

    Args:
        volume: (C, I, J, K).
        affine: (4, 4), voxel to RAS mm.
        axis: 0, 1 or 2.

    Raises:
        MedrlError: If there is no such axis, or but one slice along it.
    """
    if axis not in (0, 1, 2):
        raise MedrlError("an axis is 0, 1 or 2")
    if volume.shape[axis + 1] < 2:
        raise MedrlError(f"there is but one slice along axis {axis}: name another")
    others = [other for other in range(3) if other != axis]
    spacing = spacing_of(affine)
    order = [*others, axis]
    own = np.eye(4)
    own[:, :3] = affine[:, order]
    own[:, 3] = affine[:, 3]
    pictures = volume.movedim(axis + 1, 0).float()
    rows, columns = (float(spacing[other]) for other in others)
    return Stack(pictures, (rows, columns), float(spacing[axis]), own)


def film_stacks(film: Film, axis: int = 2) -> list[Stack]:
    """A film as stacks in time: one of pictures, of volumes one of every slice along an axis."""
    others = [other for other in range(3) if other != axis]
    spacing = film.spacing
    stacks = []
    for number in range(film.frames.shape[axis + 2]):
        own = np.eye(4)
        own[:, 0], own[:, 1] = film.affine[:, others[0]], film.affine[:, others[1]]
        own[:, 2] = 0.0
        own[:, 3] = film.affine[:, 3] + number * film.affine[:, axis]
        pictures = film.frames.select(axis + 2, number).float()
        rows, columns = (1.0, 1.0) if film.flat else (spacing[o] for o in others)
        stacks.append(Stack(pictures, (float(rows), float(columns)), 0.0, own))
    return stacks
