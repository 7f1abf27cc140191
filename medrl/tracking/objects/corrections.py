"""What a person knows better, and what of an earlier run stays as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.tracking.objects.detections import Detections, Floats
from medrl.tracking.objects.scene import COASTS, FREE, GONE, Pins
from medrl.tracking.objects.tracks import Tracks


@dataclass(frozen=True, eq=False)
class Placed:
    """In a frame, a track is at a detection or in a box.

    Attributes:
        frame: From 0.
        track: Identity; a new one begins there.
        box: (2, 3), voxel coordinates; or
        detection: Row of the detections.
    """

    frame: int
    track: int
    box: Floats | None = None
    detection: int | None = None


@dataclass(frozen=True)
class Swapped:
    """From a frame on, two tracks have each other's identity.

    Attributes:
        frame: From 0.
        first: Identity.
        second: Identity.
    """

    frame: int
    first: int
    second: int


Correction = Placed | Swapped


def pinned(
    earlier: Tracks, corrections: Sequence[Correction], *, max_gap: int
) -> tuple[Detections, Pins]:
    """What agents have no choice in when they follow objects again.

    What lies before the first correction stays as it was; at its frame, whoever is corrected does
    what the correction says.

    Args:
        earlier: The tracks so far.
        corrections: At least one.
        max_gap: Frames that a track may go on for without a detection.

    Returns:
        The detections, with boxes that a person has drawn, and what is decided.

    Raises:
        MedrlError: If a correction names a track or frame that is not there, or neither a box nor a
            detection, or two of them disagree.
    """
    detections = earlier.detections
    if detections is None:
        raise MedrlError("tracks that were not followed by medrl cannot be corrected")
    _check(earlier, corrections, len(detections))
    drawn = [c for c in corrections if isinstance(c, Placed) and c.detection is None]
    place = np.arange(len(detections) + len(drawn))
    if drawn:
        frames = np.concatenate([detections.frame, [c.frame for c in drawn]])
        detections = detections.joined(
            Detections.of([c.frame for c in drawn], np.stack([np.asarray(c.box) for c in drawn]))
        )
        place[np.argsort(frames, kind="stable")] = np.arange(len(frames))
    first = min(c.frame for c in corrections)
    placed = {c.track for c in corrections if isinstance(c, Placed)}
    ids = sorted({int(one) for one in earlier.ids} | placed)
    column = {one: n for n, one in enumerate(ids)}
    rows = np.full((earlier.length, len(ids)), FREE)
    rows[:first] = GONE
    for one in earlier.ids:
        mine = (earlier.track == one) & (earlier.frame < first)
        if not mine.any():
            continue
        last = int(earlier.frame[mine].max())
        rows[last + 1 : min(first, last + 1 + max_gap), column[int(one)]] = COASTS
        found = earlier.detection[mine]
        rows[earlier.frame[mine], column[int(one)]] = np.where(found >= 0, place[found], COASTS)
    number = len(earlier.detections) if earlier.detections is not None else 0
    for one in corrections:
        if isinstance(one, Swapped):
            a, b = (_row_at(earlier, one.frame, x, place) for x in (one.first, one.second))
            rows[one.frame, [column[one.first], column[one.second]]] = b, a
            continue
        row = place[number] if one.detection is None else place[one.detection]
        number += one.detection is None
        # Whoever had that detection decides again.
        rows[one.frame, (rows[one.frame] == row)] = FREE
        rows[one.frame, column[one.track]] = row
    return detections, Pins(torch.tensor(ids), torch.from_numpy(rows))


def _row_at(tracks: Tracks, frame: int, track: int, place: NDArray[np.int64]) -> int:
    row = tracks.detection[(tracks.frame == frame) & (tracks.track == track)]
    return int(place[row[0]]) if len(row) and row[0] >= 0 else COASTS


def _check(earlier: Tracks, corrections: Sequence[Correction], count: int) -> None:
    said: set[tuple[int, int]] = set()
    for one in corrections:
        names = (one.track,) if isinstance(one, Placed) else (one.first, one.second)
        if not 0 <= one.frame < earlier.length:
            raise MedrlError(
                f"a correction is of frame {one.frame}, but the film has {earlier.length}"
            )
        for name in names:
            if (one.frame, name) in said:
                raise MedrlError(f"track {name} is corrected twice in frame {one.frame}")
            said.add((one.frame, name))
            if name < 1 or (isinstance(one, Swapped) and name not in earlier.ids):
                raise MedrlError(f"there is no track {name} to be corrected")
        if isinstance(one, Placed):
            if (one.box is None) == (one.detection is None):
                raise MedrlError(f"the correction of track {one.track} needs a box or a detection")
            if one.detection is not None and not 0 <= one.detection < count:
                raise MedrlError(f"there is no detection {one.detection}")
            at = (
                None
                if one.detection is None or earlier.detections is None
                else (earlier.detections.frame[one.detection])
            )
            if at is not None and at != one.frame:
                raise MedrlError(f"detection {one.detection} is of frame {at}, not {one.frame}")
