"""How a seed session stands, and what of it has changed, for the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrl.seednet.seeds import Seed
from medrl.volume.space import voxel_to_world
from medrl_napari.scans import Shown

Array = NDArray[Any]
Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class ObjectState:
    """How one object stands.

    Attributes:
        name: What it is called.
        target: What kind of object it is.
        locked: Whether it is protected.
        seeds: The user's and the agent's.
        volume_ml: Of what the label map shows of it.
    """

    name: str
    target: str
    locked: bool
    seeds: tuple[Seed, ...]
    volume_ml: float


@dataclass(frozen=True, eq=False)
class State:
    """How a session stands, for the window.

    Attributes:
        objects: In their order; the first is number 1 in the label map.
        current: Name of the one that is worked on; empty before the first.
        outcome: How the agent's work on it stands, in words.
        can_undo: Whether it has a change to take back.
        can_redo: Whether it has one to make again.
        labels: The label map on the layer grid (z, y, x).
        changed: Box of it that may be another than before; None if nothing changed.
    """

    objects: tuple[ObjectState, ...]
    current: str
    outcome: str
    can_undo: bool
    can_redo: bool
    labels: Array
    changed: Box | None

    @property
    def number(self) -> int:
        """Of the current object in the label map; 0 before the first."""
        return next((n for n, o in enumerate(self.objects, 1) if o.name == self.current), 0)


def difference(before: Array, after: Array) -> Box | None:
    """The smallest box that holds all voxels in which two label maps differ; None if none do.

    Args:
        before: uint8, of any number of axes.
        after: Of the same shape.
    """
    one, other = np.ascontiguousarray(before).ravel(), np.ascontiguousarray(after).ravel()
    # Eight voxels at a time, which is how memory likes to be read; then those of a few words.
    even = len(one) // 8 * 8
    words = np.flatnonzero(one[:even].view(np.uint64) != other[:even].view(np.uint64))
    voxels = np.concatenate([(8 * words[:, None] + np.arange(8)).ravel(), range(even, len(one))])
    voxels = voxels.astype(np.int64)
    voxels = voxels[one[voxels] != other[voxels]]
    if not len(voxels):
        return None
    places = np.unravel_index(voxels, before.shape)
    return tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in places)


def layer_box(shown: Shown, box: Box | None) -> Box | None:
    """The box of the layer grid (z, y, x) that shows a box of the scan's (I, J, K)."""
    if box is None or shown.resampled:
        # Wherever it may be: all of it.
        return None if box is None else tuple(slice(0, n) for n in shown.shape)
    ends = np.array([[part.start, part.stop - 1] for part in box], dtype=np.float64).T
    there = shown.frame.to_napari(voxel_to_world(ends, shown.scan.affine))
    voxels = np.round((there - shown.translate) / shown.scale).astype(int)
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def union(one: Box | None, other: Box | None) -> Box | None:
    """The smallest box that holds both; None is an empty one."""
    if one is None or other is None:
        return one or other
    pairs = zip(one, other, strict=True)
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs)
