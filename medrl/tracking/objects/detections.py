"""Where objects were seen, frame by frame: the table, and reading it from CSV files.

Convention: boxes are in voxel coordinates of the film (i, j, k), in which the middle of the first
voxel is 0; they give the outer faces, so that a box around voxels 3 to 5 reaches from 2.5 to 5.5.
A flat film has one voxel along k: its boxes reach from -0.5 to 0.5 there.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NAMED = ("frame", "x0", "y0", "x1", "y1")
_MOT = 6


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects seen in the frames of a film, N in all, sorted by frame.

    Attributes:
        frame: (N,) int64, from 0.
        box: (N, 2, 3) float64, voxel coordinates of the outer faces, [low, high].
        score: (N,) float64, 0 to 1, how sure the detector was.
        track: (N,) int64, which object it is where that is known, else -1.
        label: (N,) int64, its value in the label image of the frame where there is one, else 0.

    Raises:
        MedrlError: If shapes disagree, a number is not finite, a frame is negative, a box has no
            size, or an identity is given twice in a frame.
    """

    frame: Ints
    box: Floats
    score: Floats
    track: Ints
    label: Ints

    def __post_init__(self) -> None:
        """Check, and sort by frame."""
        count = len(self.frame)
        shapes = {"box": (count, 2, 3), "score": (count,), "track": (count,), "label": (count,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise MedrlError(f"detections: {name} must have shape {shape}")
        if not (np.isfinite(self.box).all() and np.isfinite(self.score).all()):
            raise MedrlError("detections: boxes and scores must be finite")
        if count and self.frame.min() < 0:
            raise MedrlError(f"detections: frames count from 0, not from {self.frame.min()}")
        empty = np.flatnonzero(~(self.box[:, 1] > self.box[:, 0]).all(axis=1))
        if len(empty):
            frame = self.frame[empty[0]]
            raise MedrlError(f"a box of frame {frame} has no size: give points a size")
        known = self.track >= 0
        pairs = np.stack([self.frame, self.track], axis=1)[known]
        found, times = np.unique(pairs, axis=0, return_counts=True)
        if (times > 1).any():
            frame, track = found[times > 1][0]
            raise MedrlError(f"identity {track} is given twice in frame {frame}")
        order = np.argsort(self.frame, kind="stable")
        if (order != np.arange(count)).any():
            for name in ("frame", *shapes):
                object.__setattr__(self, name, getattr(self, name)[order])

    def __len__(self) -> int:
        """N."""
        return len(self.frame)

    @classmethod
    def of(
        cls,
        frame: Sequence[int] | Ints,
        box: Floats,
        *,
        score: Floats | None = None,
        track: Sequence[int] | Ints | None = None,
        label: Sequence[int] | Ints | None = None,
    ) -> Detections:
        """Detections of which not everything is known.

        Args:
            frame: (N,).
            box: (N, 2, 3).
            score: (N,); 1 if left out.
            track: (N,); -1 if left out.
            label: (N,); 0 if left out.
        """
        count = len(frame)
        return cls(
            np.asarray(frame, dtype=np.int64).reshape(count),
            np.asarray(box, dtype=np.float64).reshape(count, 2, 3),
            np.ones(count) if score is None else np.asarray(score, dtype=np.float64),
            np.full(count, -1) if track is None else np.asarray(track, dtype=np.int64),
            np.zeros(count, np.int64) if label is None else np.asarray(label, dtype=np.int64),
        )

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Detections:
        """Some of them."""
        return Detections(
            self.frame[rows], self.box[rows], self.score[rows], self.track[rows], self.label[rows]
        )

    def joined(self, others: Detections) -> Detections:
        """These and others."""
        names = ("frame", "box", "score", "track", "label")
        both = (np.concatenate([getattr(self, n), getattr(others, n)]) for n in names)
        return Detections(*both)

    def check_fits(self, shape: Sequence[int]) -> None:
        """Check that they lie in a film.

        Args:
            shape: (T, I, J, K) of the film.

        Raises:
            MedrlError: If a frame is beyond its end, or a box lies outside all the way.
        """
        if len(self) and self.frame.max() >= shape[0]:
            raise MedrlError(
                f"a detection is of frame {self.frame.max()}, but the film ends with frame "
                f"{shape[0] - 1}"
            )
        sides = np.array(shape[1:])
        outside = (self.box[:, 1] < -0.5).any(axis=1) | (self.box[:, 0] > sides - 0.5).any(axis=1)
        if outside.any():
            frame = self.frame[outside][0]
            raise MedrlError(f"a box of frame {frame} lies outside the film")


def read_detections(path: str | os.PathLike[str], *, size: float | None = None) -> Detections:
    """Read detections or tracks from a CSV file.

    Two forms are read. With a header: columns ``frame`` (from 0), ``x0, y0, x1, y1`` and perhaps
    ``z0, z1, track, score, label, cx, cy, cz``; x, y and z are i, j and k, an edge at 0 is the
    outer face of the first voxel. Without a header, as in the Multiple Object Tracking Challenge:
    ``frame, id, left, top, width, height, score, ...``, frames and pixels from 1, identity -1 where
    it is not known.

    Args:
        path: The file.
        size: Width that points get whose box has none, in voxels.

    Raises:
        MedrlError: If there is no such file, a column is missing, a line is not made of numbers, a
            box has no size, or an identity is given twice in a frame.
    """
    file = Path(path)
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = [line for line in csv.reader(stream) if any(cell.strip() for cell in line)]
    except FileNotFoundError:
        raise MedrlError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MedrlError(f"{file}: cannot be read as CSV: {error}") from None
    if not lines:
        raise MedrlError(f"{file}: is empty")
    if size is not None and not size > 0:
        raise MedrlError(f"points need a size above 0 voxels, not {size:g}")
    try:
        if _is_number(lines[0][0]):
            return _mot(file, lines, size)
        return _named(file, lines, size)
    except MedrlError as error:
        text = str(error)
        raise MedrlError(text if text.startswith(str(file)) else f"{file}: {text}") from None


def _mot(file: Path, lines: list[list[str]], size: float | None) -> Detections:
    if min(len(line) for line in lines) < _MOT:
        raise MedrlError("a line has fewer than six columns: frame, id, left, top, width, height")
    values = _numbers(lines, range(_MOT))
    width = max(len(line) for line in lines)
    score = np.ones(len(lines))
    if width > _MOT:
        score = _numbers([[line[_MOT] if len(line) > _MOT else "1"] for line in lines], range(1))[
            :, 0
        ]
    if len(values) and values[:, 0].min() < 1:
        raise MedrlError("frames of this form count from 1")
    low = values[:, 2:4] - 1.5
    box = _boxes(low, low + values[:, 4:6], size=size)
    track = np.where(values[:, 1] < 0, -1, values[:, 1]).astype(np.int64)
    # Some detectors give scores without bounds, and ground truth has 0 or 1 there.
    score = np.where(score < 0, 1.0, np.clip(score, 0.0, 1.0))
    return Detections.of((values[:, 0] - 1).astype(np.int64), box, score=score, track=track)


def _named(file: Path, lines: list[list[str]], size: float | None) -> Detections:
    header = [name.strip().lower() for name in lines[0]]
    missing = [name for name in _NAMED if name not in header]
    if missing:
        raise MedrlError(f"has no column {', '.join(missing)}")
    if any(len(line) != len(header) for line in lines[1:]):
        raise MedrlError("a line has more or fewer fields than the header")
    values = _numbers(lines[1:], header)
    columns = {name: values[:, n] for n, name in enumerate(header)}
    deep = "z0" in columns and "z1" in columns
    axes = "xyz" if deep else "xy"
    low, high = (np.stack([columns[f"{a}{end}"] for a in axes], axis=1) - 0.5 for end in "01")
    return Detections.of(
        columns["frame"].astype(np.int64),
        _boxes(low, high, size=size),
        score=np.clip(columns["score"], 0.0, 1.0) if "score" in columns else None,
        track=_whole(columns, "track"),
        label=_whole(columns, "label"),
    )


def _whole(columns: Mapping[str, Floats], name: str) -> Ints | None:
    return columns[name].astype(np.int64) if name in columns else None


def _numbers(lines: list[list[str]], header: Sequence[object]) -> Floats:
    """The first columns as numbers, (N, C)."""
    try:
        rows = [[float(cell) for cell in line[: len(header)]] for line in lines]
    except ValueError as error:
        raise MedrlError(f"is not made of numbers: {error}") from None
    values = np.array(rows, dtype=np.float64).reshape(len(lines), len(header))
    if not np.isfinite(values).all():
        raise MedrlError("holds numbers that are not finite")
    return values


def _boxes(low: Floats, high: Floats, *, size: float | None) -> Floats:
    """Boxes (N, 2, 3); those of no size get one where that is asked for."""
    if size is not None:
        point = np.all(high - low <= 0, axis=1, keepdims=True)
        middle = (low + high) / 2
        low, high = (
            np.where(point, middle + sign * size / 2, edge) for sign, edge in ((-1, low), (1, high))
        )
    if low.shape[1] == 2:
        one = np.full((len(low), 1), 0.5)
        low, high = np.hstack([low, -one]), np.hstack([high, one])
    return np.stack([low, high], axis=1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def boxes_of_labels(labels: NDArray[np.integer], frame: int) -> Detections:
    """Detections of one frame from its label image.

    Args:
        labels: (I, J, K), 0 outside objects.
        frame: Its number.
    """
    from scipy import ndimage

    found = ndimage.find_objects(labels.astype(np.int64))
    values = [value + 1 for value, cut in enumerate(found) if cut is not None]
    box = [
        [[side.start - 0.5 for side in cut], [side.stop - 0.5 for side in cut]]
        for cut in found
        if cut is not None
    ]
    return Detections.of(
        np.full(len(values), frame), np.array(box).reshape(-1, 2, 3), label=np.array(values)
    )


def with_tracks(detections: Detections, track: Ints) -> Detections:
    """The same detections with identities."""
    return replace(detections, track=track)
