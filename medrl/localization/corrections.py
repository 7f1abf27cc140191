"""What a person changes in a localization: boxes moved, added and taken away; and keeping it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from medrl.data import adding
from medrl.errors import MedrlError
from medrl.localization.answer import Array, Box, Localization


def corrected_by_hand(
    localization: Localization, boxes_world: Mapping[str, ArrayLike | None]
) -> Localization:
    """A localization with the corrections that a person made to it.

    Args:
        localization: What the agents found.
        boxes_world: Corrected boxes by name: (2, 3) RAS mm, smallest and largest coordinates of
            the outer faces, or None for one that is not in the scan after all. The others stay as
            they are; names that the localization lacks are added at its end.

    Returns:
        The localization with those boxes ``by hand`` or ``absent``, without a confidence. The
        agents' paths still say what the agents answered.

    Raises:
        MedrlError: If a box is not two corners, the smallest coordinates first.
    """
    boxes = [
        _changed(box, boxes_world[box.name]) if box.name in boxes_world else box
        for box in localization.boxes
    ]
    known = {box.name for box in boxes}
    boxes += [
        Box(name, _checked(name, corners), "by hand", math.nan, "added by hand")
        for name, corners in boxes_world.items()
        if name not in known and corners is not None
    ]
    return replace(localization, boxes=tuple(boxes))


def add_sample(
    datalist: Path,
    image: adding.Image,
    boxes_world: Mapping[str, ArrayLike],
    *,
    split: str = "training",
) -> Path:
    """Add a scan with its boxes to a MONAI datalist for ``medrl train localization``.

    The entry is ``{"image": ..., "boxes": "<scan>.mrk.json"}``; see
    :func:`medrl.data.adding.add_sample`.

    Args:
        datalist: The JSON file; made, with its folder, if missing.
        image: The scan's file or folder, or several by channel.
        boxes_world: By name, each (2, 3) RAS mm; at least one.
        split: Where a new scan goes: ``training``, ``validation`` or ``test``.

    Returns:
        The file with the boxes, 3D Slicer ROIs.

    Raises:
        MedrlError: If the scan is not there, a box is none, the datalist is none, or the files
            cannot be written.
    """
    from medrl.volume.boxes import read_boxes, write_boxes

    return adding.add_sample(
        datalist,
        image,
        {name: _checked(name, corners) for name, corners in boxes_world.items()},
        key="boxes",
        read=read_boxes,
        write=write_boxes,
        split=split,
    )


def _changed(box: Box, corners_world: ArrayLike | None) -> Box:
    if corners_world is None:
        return replace(box, status="absent", confidence=0.0, note="taken away by hand")
    corners = _checked(box.name, corners_world)
    note = "not found by its agent"
    if box.status != "absent":
        note = f"a wall moved {np.abs(corners - box.corners_world).max():.1f} mm"
    return replace(box, corners_world=corners, status="by hand", confidence=math.nan, note=note)


def _checked(name: str, corners_world: ArrayLike) -> Array:
    corners = np.asarray(corners_world, dtype=np.float64)
    if (
        corners.shape != (2, 3)
        or not np.isfinite(corners).all()
        or (corners[0] >= corners[1]).any()
    ):
        raise MedrlError(f"the box {name!r} is not two corners, the smallest coordinates first")
    return corners
