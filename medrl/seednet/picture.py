"""One picture of a segmentation: three slices through it, its outline, and the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.results.picture import (
    BOTTOM,
    GAP,
    GOOD,
    POOR,
    TOP,
    Sheet,
    line_handle,
    marker_handle,
    projected_handle,
    row_height,
)
from medrl.results.views import (
    INK,
    VIEWS,
    Array,
    DisplayVolume,
    View,
    display_volume,
    show_slice,
    show_whole,
    write_sides,
)
from medrl.seednet.results import object_rows
from medrl.seednet.seeds import Seed
from medrl.seednet.session import SeedSession
from medrl.volume.resample import resample_onto
from medrl.volume.space import (
    as_affine,
    box_corners,
    cropped_affine,
    voxel_to_world,
    world_to_voxel,
)
from medrl.walker.segmenter import FOREGROUND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Of the objects, in turn.
_OUTLINES = ("#ffd43b", "#48dbfb", "#c8a2ff", "#ff9f43", "#7bed9f")
_COLORS = (POOR, GOOD)
_MARKERS = {"user": "o", "agent": "D"}
#: What is shown around objects and seeds, and the least that is shown on each side of them.
_MARGIN_MM, _LEAST_MM = 25.0, 40.0
#: A seed this near to a slice (mm) is drawn as lying on it.
_NEAR_MM = 2.5
_WIDTH = 14.0


def draw_segmentation(session: SeedSession, *, title: str = "") -> Figure:
    """Draw a segmentation: a row for each image, the slices on which the objects are largest.

    Args:
        session: What was done.
        title: Headline; what scan this is.

    Returns:
        A matplotlib figure that belongs to no window and no global state.

    Raises:
        MedrlError: If no object has a foreground seed.
    """
    labels = session.labels()
    seeds = [seed for name in session.objects for seed in session.seeds_of(name)]
    region = _region(labels, seeds)
    images = session.images.items()
    rows = [(name, display_volume(_crop(image, region))) for name, image in images]
    heights = [row_height(shown, _WIDTH) for _, shown in rows]
    sheet = Sheet(_WIDTH, TOP + sum(heights) + GAP * len(rows) + BOTTOM)
    above = TOP
    for (name, shown), high in zip(rows, heights, strict=True):
        outlines = _outlines(shown, labels)
        for view, panel in sheet.row(shown, above, high):
            _draw_view(panel, shown, view, outlines, seeds)
            if len(rows) > 1 and view is VIEWS[0]:
                panel.text(0.02, 0.03, name, transform=panel.transAxes, color=INK, fontsize=12)
        above += high + GAP
    objects = object_rows(session)
    facts = ", ".join(f"{row['object']} {row['volume_ml']:.2f} ml" for row in objects)
    return sheet.finish(title, facts, _handles(objects, seeds))


def _region(labels: MetaTensor, seeds: Sequence[Seed]) -> Array:
    """Lowest and highest world coordinates (2, 3) of what is shown."""
    where = np.argwhere(labels.numpy()[0] > 0)
    points = np.concatenate([seed.points_world for seed in seeds])
    if len(where):
        corners = box_corners(where.min(axis=0), where.max(axis=0))
        points = np.concatenate([points, voxel_to_world(corners, labels.affine)])
    low, high = points.min(axis=0) - _MARGIN_MM, points.max(axis=0) + _MARGIN_MM
    short = np.maximum(2 * _LEAST_MM - (high - low), 0) / 2
    return np.stack([low - short, high + short])


def _crop(image: MetaTensor, region: Array) -> MetaTensor:
    """The part of a scan that holds a region of the world, as far as there is any."""
    affine = as_affine(image.affine)
    voxel = world_to_voxel(box_corners(*region), affine)
    shape = np.array(image.shape[1:])
    # At least two voxels, also of an image that lies elsewhere.
    low = np.clip(np.floor(voxel.min(axis=0)).astype(int), 0, shape - 2)
    high = np.clip(np.ceil(voxel.max(axis=0)).astype(int) + 1, low + 2, shape)
    i, j, k = (slice(a, b) for a, b in zip(low, high, strict=True))
    return MetaTensor(image.as_tensor()[:, i, j, k], affine=cropped_affine(affine, low))


def _outlines(shown: DisplayVolume, labels: MetaTensor) -> dict[int, NDArray[np.float32]]:
    """Every object on the picture's grid, by its number; 0.5 at its boundary."""
    out = {}
    shape = shown.volume.shape
    for number in labels.meta["labels"].values():
        mask = MetaTensor((labels.as_tensor() == number).float(), affine=labels.affine)
        onto = resample_onto(mask, affine=shown.affine, shape=(shape[0], shape[1], shape[2]))
        out[int(number)] = onto.as_tensor()[0].numpy()
    return out


def _draw_view(
    axes: Axes,
    shown: DisplayVolume,
    view: View,
    outlines: dict[int, NDArray[np.float32]],
    seeds: Sequence[Seed],
) -> None:
    """One slice: where the objects are largest, or through the first seed if there is nothing."""
    others = tuple(axis for axis in range(3) if axis != view.across)
    area = np.sum([(field > 0.5).sum(axis=others) for field in outlines.values()], axis=0)
    first = float(shown.place(seeds[0].position_world)[view.across])
    at_mm = float(area.argmax()) * shown.spacing if area.max() > 0 else first
    show_slice(axes, shown, view, at_mm)
    show_whole(axes, shown, view)
    x, y = (np.arange(shown.volume.shape[axis]) * shown.spacing for axis in (view.right, view.up))
    for number, field in outlines.items():
        flat = np.take(field, shown.index(at_mm, view.across), axis=view.across).T
        if flat.max() > 0.5 > flat.min() and min(flat.shape) > 1:
            color = _OUTLINES[(number - 1) % len(_OUTLINES)]
            axes.contour(x, y, flat, levels=[0.5], colors=[color], linewidths=1.6)
    for seed in seeds:
        _draw_seed(axes, shown, view, at_mm, seed)
    write_sides(axes, shown, view, at_mm)


def _draw_seed(axes: Axes, shown: DisplayVolume, view: View, at_mm: float, seed: Seed) -> None:
    """A seed: filled on the slice, hollow and faint if it is projected."""
    points = shown.place(seed.points_world)
    flat = points[:, [view.right, view.up]]
    near = bool((np.abs(points[:, view.across] - at_mm) <= _NEAR_MM).any())
    color = _COLORS[seed.label]
    style: dict[str, Any] = {"color": color, "mec": "black", "mew": 0.8, "ms": 6.5, "zorder": 6}
    if not near:
        style = {"color": "none", "mec": color, "mew": 1.0, "ms": 5.0, "alpha": 0.65, "zorder": 5}
    if seed.is_scribble:
        axes.plot(flat[:, 0], flat[:, 1], color=color, lw=2 if near else 1, alpha=0.8, zorder=5)
    axes.plot(flat[0, 0], flat[0, 1], _MARKERS[seed.who], **style)


def _handles(objects: Sequence[Mapping[str, Any]], seeds: Sequence[Seed]) -> list[Any]:
    """The legend: objects, and the kinds of seeds that there are."""
    handles = [
        line_handle(row["object"], _OUTLINES[(row["label"] - 1) % len(_OUTLINES)])
        for row in objects
    ]
    kinds = {(seed.who, seed.label): seed.label_name for seed in seeds}
    for who, label in sorted(kinds, key=lambda kind: (kind[0] != "user", kind[1] != FOREGROUND)):
        text = f"{kinds[who, label]}, {who}"
        handles.append(marker_handle(text, _MARKERS[who], _COLORS[label]))
    return [*handles, projected_handle(_NEAR_MM)]
