"""Pictures of carried outlines: slices or frames from end to end, and how sure each is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medrl.results.film import color_of, grey
from medrl.results.picture import BY_HAND, FAIR, GAP, GOOD, POOR, TOP, Sheet, line_handle
from medrl.results.views import INK
from medrl.volume.film import Film
from medrl.volume.space import as_affine, spacing_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from medrl.cutting.answer import Carried

_WIDTH, _BOTTOM, _LINE = 15.0, 0.75, 0.3
_COLUMNS, _MOST_TILES = 8, 24
#: Expected overlap that is good, and fair.
_GOOD, _FAIR = 0.8, 0.6


def frames_of(carried: Carried) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """What is to be seen of every slice or frame, and the objects in it.

    Slices are turned as radiologists look at them. Of a film of volumes, the slice with most of the
    objects in it.

    Returns:
        (T, rows, columns, 3), and numbers of the objects (T, rows, columns).
    """
    labels = carried.labels.numpy().astype(np.int64)
    if isinstance(carried.data, Film):
        film = carried.data
        volume = film.frames.numpy()
        if film.flat:
            pictures = np.moveaxis(volume[..., 0], 1, -1)
            return (
                grey(np.ascontiguousarray(pictures.swapaxes(1, 2))),
                np.ascontiguousarray(labels[..., 0].swapaxes(1, 2)),
            )
        axis = carried.axis + 1
        others = tuple(other for other in range(4) if other != axis)
        number = int((labels > 0).sum(axis=others).argmax())
        shown = np.take(volume.mean(axis=1), number, axis=axis)
        affine, turned = film.affine, np.take(labels, number, axis=axis)
        parts = [_upright_slices(np.expand_dims(one, axis), affine, carried.axis)
                 for one in (shown, turned)]  # fmt: skip
        return grey(parts[0]), parts[1].astype(np.int64)
    affine = as_affine(carried.data.affine)
    volume = carried.data.numpy().mean(axis=0)
    shown = _turned(volume, affine, carried.axis)
    return grey(shown), _turned(labels[0], affine, carried.axis).astype(np.int64)


def _upright_slices(
    slices: NDArray[Any], affine: NDArray[np.float64], axis: int
) -> NDArray[np.float32]:
    """Volumes of one slice (T, I, J, K) as pictures (T, rows, columns)."""
    return np.stack([_turned(one, affine, axis)[0] for one in slices])


def _turned(volume: NDArray[Any], affine: NDArray[np.float64], axis: int) -> NDArray[np.float32]:
    """Slices of a volume along an axis, as radiologists look at them, of square pixels."""
    orientation = nib.orientations.io_orientation(affine)
    body = int(orientation[axis, 0])
    upright = nib.orientations.apply_orientation(volume, orientation)
    if orientation[axis, 1] < 0:
        upright = np.flip(upright, axis=body)
    slices = np.moveaxis(upright, body, 0)[:, ::-1, ::-1].swapaxes(1, 2)
    spacing = np.zeros(3)
    spacing[orientation[:, 0].astype(int)] = spacing_of(affine)
    across, up = (spacing[other] for other in range(3) if other != body)
    least = min(across, up)
    rows = (np.arange(round(slices.shape[1] * up / least)) * least / up).astype(int)
    columns = (np.arange(round(slices.shape[2] * across / least)) * least / across).astype(int)
    return np.ascontiguousarray(
        slices[:, rows.clip(max=slices.shape[1] - 1)][
            :, :, columns.clip(max=slices.shape[2] - 1)
        ].astype(np.float32)
    )


def draw_carried(carried: Carried, *, title: str = "") -> Figure:
    """Draw slices or frames from end to end, and how sure each is.

    Args:
        carried: What was carried.
        title: Headline; what scan this is.

    Returns:
        A matplotlib figure that belongs to no window and no global state.
    """
    frames, labels = frames_of(carried)
    quality = [thing.quality() for thing in carried.things]
    touched = sorted(
        {n for thing in carried.things for n in thing.pictures} | set().union(*quality)
    )
    first, last = touched[0], touched[-1]
    numbers = np.unique(np.linspace(first, last, min(_MOST_TILES, last - first + 1)).astype(int))
    drawn = {n for t in carried.things for many in t.outlined.values() for n in many}
    window = _around(labels[numbers], frames.shape[1:3])
    rows = math.ceil(len(numbers) / _COLUMNS)
    wide = (_WIDTH - (_COLUMNS + 1) * GAP) / _COLUMNS
    high = wide * (window[0].stop - window[0].start) / (window[1].stop - window[1].start)
    graph = 1.5
    below = TOP + rows * (high + _LINE)
    sheet = Sheet(_WIDTH, below + graph + 0.5 + _BOTTOM)
    for place, number in enumerate(numbers):
        row, column = divmod(place, _COLUMNS)
        panel = sheet.panel(
            GAP + column * (wide + GAP), TOP + _LINE + row * (high + _LINE), wide, high
        )
        _draw_tile(panel, frames[number][window], labels[number][window])
        sure = min((one[number] for one in quality if number in one), default=math.nan)
        by_hand = number in drawn
        color = BY_HAND if by_hand else _color(sure)
        said = "outlined" if by_hand else "" if math.isnan(sure) else f"{sure:.2f}"
        panel.set_title(f"{_name(carried, int(number))}  {said}", color=color, fontsize=8.5, pad=3)
    axes = sheet.panel(0.6, below + 0.35, _WIDTH - 0.8, graph)
    for thing, one in zip(carried.things, quality, strict=True):
        order = sorted(one)
        axes.plot(order, [one[n] for n in order], color=_shade(thing.value), lw=1.5)
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.set_ylim(0, 1.02)
    axes.set_facecolor("black")
    axes.tick_params(colors=INK, labelsize=8)
    axes.set_ylabel("expected overlap", color=INK, fontsize=8.5)
    handles = [line_handle(thing.name, _shade(thing.value)) for thing in carried.things[:10]]
    count = len(carried.things)
    what = "frames" if isinstance(carried.data, Film) else "slices"
    facts = f"{count} object{'s' * (count != 1)}, {len(drawn)} of {len(touched)} {what} outlined"
    flat = isinstance(carried.data, Film) and carried.data.flat
    return sheet.finish(title, facts, handles, anatomical=not flat)


def _draw_tile(axes: Axes, frame: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    axes.imshow(frame, interpolation="nearest")
    for value in np.unique(labels[labels > 0]):
        axes.contour(labels == value, levels=[0.5], colors=[_shade(int(value))], linewidths=1.2)
    axes.set_xticks([])
    axes.set_yticks([])


def _around(labels: NDArray[np.int64], shape: tuple[int, int]) -> tuple[slice, slice]:
    """The part of pictures around the objects, nearly square."""
    there = np.argwhere((labels > 0).any(axis=0))
    if not len(there):
        return slice(0, shape[0]), slice(0, shape[1])
    low, high = there.min(axis=0), there.max(axis=0) + 1
    half = max(int((high - low).max() * 0.8), 12)
    parts = []
    for middle, size in zip((low + high) // 2, shape, strict=True):
        begin = int(np.clip(middle - half, 0, max(0, size - 2 * half)))
        parts.append(slice(begin, min(size, begin + 2 * half)))
    return parts[0], parts[1]


def _shade(value: int) -> str:
    red, green, blue = color_of(value)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _color(sure: float) -> str:
    if math.isnan(sure):
        return INK
    return GOOD if sure >= _GOOD else FAIR if sure >= _FAIR else POOR


def _name(carried: Carried, number: int) -> str:
    film = carried.data
    return film.names[number] if isinstance(film, Film) and film.names else str(number)
