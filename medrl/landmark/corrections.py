"""What a person changes in a detection: points moved, added and taken away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from medrl.landmark.detection import Detection, Landmark


def corrected_by_hand(
    detection: Detection, points_world: Mapping[str, ArrayLike | None]
) -> Detection:
    """A detection with the corrections that a person made to it.

    Args:
        detection: What the agents found.
        points_world: Corrected landmarks by name: (3,) RAS mm, or None for one that is not in
            the scan after all. The others stay as they are.

    Returns:
        The detection with those landmarks ``by hand`` or ``absent``, without a confidence. The
        agents' paths still say what the agents answered.
    """
    landmarks = tuple(
        _moved(landmark, points_world[landmark.name]) if landmark.name in points_world else landmark
        for landmark in detection.landmarks
    )
    return replace(detection, landmarks=landmarks)


def _moved(landmark: Landmark, point_world: ArrayLike | None) -> Landmark:
    if point_world is None:
        return replace(landmark, status="absent", confidence=0.0, note="taken away by hand")
    point = np.asarray(point_world, dtype=np.float64)
    note = "not found by its agent"
    if landmark.status != "absent":
        note = f"moved {np.linalg.norm(point - landmark.position_world):.1f} mm"
    return replace(landmark, position_world=point, status="by hand", confidence=math.nan, note=note)
