"""A film of results: frames with masks and boxes on them, as an animated WebP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medrl.files import atomic_path

#: Colours of objects, in turn.
COLORS = (
    *((57, 217, 138), (255, 159, 67), (72, 219, 251), (255, 92, 92), (200, 162, 255)),
    *((255, 212, 59), (123, 237, 159), (255, 107, 177), (116, 185, 255), (232, 234, 237)),
)
#: Shortest side that a film is shown at, and the longest.
_LEAST, _MOST = 240, 640
_MILLISECONDS = 90

Box = tuple[float, float, float, float]


def color_of(number: int) -> tuple[int, int, int]:
    """The colour of an object."""
    return COLORS[(number - 1) % len(COLORS)]


def write_overlay(
    path: Path,
    frames: NDArray[np.uint8],
    labels: NDArray[np.int64] | None = None,
    boxes: Sequence[Mapping[int, Box]] = (),
) -> None:
    """Write a film; the file appears only when it is whole.

    Args:
        path: Ending in .webp.
        frames: (T, rows, columns, 3).
        labels: (T, rows, columns), numbers of objects, whose borders are drawn.
        boxes: Of every frame, boxes by number of the object: left, top, right, bottom in pixels.

    Raises:
        MedrlError: If the file cannot be written.
    """
    from PIL import Image, ImageDraw

    rows, columns = frames.shape[1:3]
    scale = max(1, round(_LEAST / min(rows, columns)))
    if max(rows, columns) * scale > _MOST:
        scale = 1
    pictures = []
    for number, frame in enumerate(frames):
        large = np.kron(frame, np.ones((scale, scale, 1), dtype=np.uint8))
        if labels is not None:
            whole = np.kron(labels[number], np.ones((scale, scale), dtype=np.int64))
            border = np.zeros(whole.shape, dtype=bool)
            for axis in (0, 1):
                change = np.diff(whole, axis=axis) != 0
                border |= np.insert(change, 0, False, axis=axis)
                border |= np.insert(change, change.shape[axis], False, axis=axis)
            border &= whole > 0
            for value in np.unique(whole[border]):
                large[border & (whole == value)] = color_of(int(value))
        picture = Image.fromarray(large)
        draw = ImageDraw.Draw(picture)
        for value, box in (boxes[number] if boxes else {}).items():
            draw.rectangle([side * scale for side in box], outline=color_of(value), width=1)
        pictures.append(picture)
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary,
            save_all=True,
            append_images=pictures[1:],
            duration=_MILLISECONDS,
            loop=0,
            quality=70,
            method=2,
        )


def grey(pictures: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pictures (T, rows, columns) or (T, rows, columns, C) as (T, rows, columns, 3) to look at."""
    sample = pictures[:: max(1, len(pictures) // 16)]
    low, high = np.percentile(sample, (0.5, 99.5))
    values = np.clip((pictures - low) / max(float(high - low), 1e-6), 0, 1) * 255
    values = values.astype(np.uint8)
    if values.ndim == 3:
        values = values[..., None]
    return np.ascontiguousarray(np.broadcast_to(values[..., :3], (*values.shape[:3], 3)))
