"""Trackers without learning, written from their papers: SORT, ByteTrack, greedy overlap.

All take boxes of the frames of a film and give each an identity. They work in two and three
dimensions, on voxel coordinates, as in their papers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def overlap(first: Floats, second: Floats) -> Floats:
    """Intersection over union of boxes (n, 2, 3) and (m, 2, 3)."""
    low = np.maximum(first[:, None, 0], second[None, :, 0])
    high = np.minimum(first[:, None, 1], second[None, :, 1])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    volumes = [np.prod(boxes[:, 1] - boxes[:, 0], axis=1) for boxes in (first, second)]
    return shared / np.maximum(volumes[0][:, None] + volumes[1][None] - shared, 1e-9)


def centre_overlap(first: Floats, second: Floats) -> Floats:
    """1 - distance of the centres in sizes, at least 0: for objects that leave their own box.

    Not in the papers: it gives peers the same reach as medrl's agents where frames are far apart.
    """
    middles = [boxes.mean(axis=1) for boxes in (first, second)]
    sides = [boxes[:, 1] - boxes[:, 0] for boxes in (first, second)]
    moves = (sides[0] > 1).any(axis=0)
    sizes = [np.exp(np.log(side[:, moves]).mean(axis=1)) for side in sides]
    apart = np.linalg.norm(middles[0][:, None] - middles[1][None], axis=2)
    return np.clip(1 - apart / np.sqrt(sizes[0][:, None] * sizes[1][None]) / 2, 0, None)


@dataclass
class Filter:
    """SORT's Kalman filter (Bewley et al. 2016): centre, area and its change, shape.

    In 3D the state is (centre, log volume, log ratios of sides, velocity of centre and volume);
    noise as in the reference settings of the paper's appendix, scaled to the object's size.
    """

    box: Floats
    mean: Floats = field(init=False)
    variance: Floats = field(init=False)

    def __post_init__(self) -> None:
        size = self.box[1] - self.box[0]
        self.mean = np.concatenate([self.box.mean(axis=0), size, np.zeros(3)])
        scale = self._scale()
        self.variance = np.diag(
            np.r_[np.full(3, 0.1 * scale), np.full(3, 0.1 * scale), np.full(3, scale)] ** 2
        )

    def _scale(self) -> float:
        size = self.mean[3:6]
        return float(np.exp(np.log(np.maximum(size[size > 1], 1e-3)).mean()))

    def predict(self) -> Floats:
        """Move on by a frame; the predicted box."""
        step = np.eye(9)
        step[:3, 6:] = np.eye(3)
        scale = self._scale()
        noise = np.diag(np.r_[np.full(6, 0.05 * scale), np.full(3, 0.05 * scale)] ** 2)
        self.mean = step @ self.mean
        self.variance = step @ self.variance @ step.T + noise
        return self.as_box()

    def update(self, box: Floats) -> None:
        """Take a detection in."""
        seen = np.concatenate([box.mean(axis=0), box[1] - box[0]])
        total = self.variance[:6, :6] + np.eye(6) * (0.05 * self._scale()) ** 2
        gain = self.variance[:, :6] @ np.linalg.inv(total)
        self.mean = self.mean + gain @ (seen - self.mean[:6])
        self.variance = self.variance - gain @ self.variance[:6]

    def as_box(self) -> Floats:
        """(2, 3)."""
        half = np.maximum(self.mean[3:6], 1e-3) / 2
        return np.stack([self.mean[:3] - half, self.mean[:3] + half])


@dataclass
class _Track:
    number: int
    filter: Filter
    missed: int = 0
    hits: int = 1
    rows: list[int] = field(default_factory=list)


def _assigned(similarity: Floats, least: float) -> list[tuple[int, int]]:
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return [(r, c) for r, c in zip(rows, columns, strict=True) if similarity[r, c] >= least]


def greedy(frame: Ints, box: Floats, *, least: float = 0.3, patience: int = 1) -> Ints:
    """Each detection joins the track whose last box overlaps it most, best pairs first.

    Args:
        frame: (N,), sorted.
        box: (N, 2, 3).
        least: Overlap below which a track begins anew.
        patience: Frames without a detection after which a track ends.

    Returns:
        Identities (N,).
    """
    track = np.full(len(frame), -1)
    live: dict[int, tuple[Floats, int]] = {}
    new = 0
    for number in range(int(frame.max()) + 1):
        rows = np.flatnonzero(frame == number)
        names = list(live)
        if names and len(rows):
            alike = overlap(np.stack([live[n][0] for n in names]), box[rows])
            while alike.size and alike.max() >= least:
                a, b = np.unravel_index(alike.argmax(), alike.shape)
                track[rows[b]] = names[a]
                alike[a], alike[:, b] = -1, -1
        for row in rows[track[rows] < 0]:
            track[row], new = new, new + 1
        for row in rows:
            live[int(track[row])] = (box[row], number)
        live = {n: one for n, one in live.items() if number - one[1] <= patience}
    return track


def sort(
    frame: Ints,
    box: Floats,
    *,
    least: float = 0.3,
    patience: int = 1,
    warm_up: int = 3,
    similarity: object = overlap,
) -> Ints:
    """SORT (Bewley et al., ICIP 2016): Kalman filters, Hungarian assignment on overlap.

    Args:
        frame: (N,), sorted.
        box: (N, 2, 3).
        least: IoU_min.
        patience: T_lost.
        warm_up: Detections before a track is reported, but in the first frames of the film.
        similarity: Of predicted boxes and detections.

    Returns:
        Identities (N,), -1 for detections that are not reported.
    """
    track = np.full(len(frame), -1)
    live: list[_Track] = []
    new = 0
    for number in range(int(frame.max()) + 1):
        rows = np.flatnonzero(frame == number)
        predicted = [one.filter.predict() for one in live]
        pairs = []
        if live and len(rows):
            pairs = _assigned(similarity(np.stack(predicted), box[rows]), least)  # type: ignore[operator]
        for one in live:
            one.missed += 1
        for a, b in pairs:
            one = live[a]
            one.filter.update(box[rows[b]])
            one.missed, one.hits = 0, one.hits + 1
            if one.hits >= warm_up or number < warm_up:
                track[rows[b]] = one.number
        met = {b for _, b in pairs}
        for b, row in enumerate(rows):
            if b not in met:
                live.append(_Track(new, Filter(box[row])))
                if warm_up <= 1 or number < warm_up:
                    track[row] = new
                new += 1
        live = [one for one in live if one.missed <= patience]
    return track


def bytetrack(
    frame: Ints,
    box: Floats,
    score: Floats,
    *,
    high: float = 0.6,
    low: float = 0.1,
    start: float = 0.7,
    patience: int = 30,
    similarity: object = overlap,
) -> Ints:
    """ByteTrack's association (Zhang et al., ECCV 2022), two stages by the score.

    Detections above ``high`` are matched to all tracks first, then those above ``low`` to the
    tracks left over that were seen in the frame before; what is left of the first begins tracks,
    which are dropped if the next frame does not confirm them.

    Args:
        frame: (N,), sorted.
        box: (N, 2, 3).
        score: (N,).
        high: Score of the first stage.
        low: Score of the second.
        start: Score of a detection that begins a track.
        patience: Frames that lost tracks are kept.
        similarity: Of predicted boxes and detections.

    Returns:
        Identities (N,), -1 for detections that belong to none.
    """
    track = np.full(len(frame), -1)
    live: list[_Track] = []
    new = 0
    for number in range(int(frame.max()) + 1):
        now = np.flatnonzero(frame == number)
        strong, weak = now[score[now] >= high], now[(score[now] < high) & (score[now] >= low)]
        predicted = {one.number: one.filter.predict() for one in live}
        sure = [one for one in live if one.hits > 1 or number == 1]
        fresh = [one for one in live if not (one.hits > 1 or number == 1)]

        def stage(some: list[_Track], rows: Ints, least: float) -> tuple[list[_Track], Ints]:
            if not some or not len(rows):
                return some, rows
            boxes = np.stack([predicted[one.number] for one in some])  # noqa: B023
            pairs = _assigned(similarity(boxes, box[rows]), least)  # type: ignore[operator]
            for a, b in pairs:
                one = some[a]
                one.filter.update(box[rows[b]])
                one.missed, one.hits = -1, one.hits + 1
                one.rows.append(int(rows[b]))
                track[rows[b]] = one.number
            first, second = {a for a, _ in pairs}, {b for _, b in pairs}
            rest = np.array([r for b, r in enumerate(rows) if b not in second], dtype=np.int64)
            return [one for a, one in enumerate(some) if a not in first], rest

        left, rest = stage(sure, strong, 0.2)
        stage([one for one in left if one.missed == 0], weak, 0.5)
        unconfirmed, rest = stage(fresh, rest, 0.3)
        for one in unconfirmed:
            track[one.rows] = -1
        gone = {one.number for one in unconfirmed}
        live = [one for one in live if one.number not in gone]
        for one in live:
            one.missed += 1
        for row in rest[score[rest] >= start]:
            live.append(_Track(new, Filter(box[row]), rows=[int(row)]))
            track[row], new = new, new + 1
        live = [one for one in live if one.missed <= patience]
    return track
