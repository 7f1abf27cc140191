"""One picture of a localization: the boxes on three views, and each on its own slice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from medrl.results.picture import (
    FAIR,
    GAP,
    GOOD,
    POOR,
    TOP,
    Sheet,
    answer_color,
    line_handle,
    row_height,
)
from medrl.results.views import (
    AXIAL,
    INK,
    SAGITTAL,
    Array,
    DisplayVolume,
    View,
    busiest_slice,
    display_volume,
    show_slice,
    show_whole,
    write_sides,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from monai.data.meta_tensor import MetaTensor

    from medrl.localization.answer import Box, Localization

#: Width of a picture, what is left below, and the space for a line of text (inches).
_WIDTH, _BOTTOM, _LINE = 15.0, 0.62, 0.3
_COLUMNS, _MOST_TILES = 8, 32
#: What a tile shows around a box, as a share of its longer side.
_AROUND = 0.35


def draw_localization(scan: MetaTensor, localization: Localization, *, title: str = "") -> Figure:
    """Draw a localization.

    Args:
        scan: MetaTensor (1, I, J, K) with a voxel-to-world affine (RAS mm), as it was searched.
        localization: What was found in it.
        title: Headline; what scan this is.

    Returns:
        A matplotlib figure that belongs to no window and no global state.
    """
    shown = display_volume(scan)
    there = [box for box in localization.boxes if box.status != "absent"]
    placed = [_placed(shown, box) for box in there]
    middles = np.array([corners.mean(axis=0) for corners in placed]).reshape(-1, 3)
    tiles = list(zip(there, placed, strict=True))[:_MOST_TILES]
    rows = math.ceil(len(tiles) / _COLUMNS)

    high = row_height(shown, _WIDTH, most=8.0)
    tile = (_WIDTH - (_COLUMNS + 1) * GAP) / _COLUMNS
    first = TOP + high + 0.42
    sheet = Sheet(_WIDTH, first + rows * (tile + _LINE) + _BOTTOM)
    for view, panel in sheet.row(shown, TOP, high):
        at_mm = busiest_slice(middles[:, view.across], shown.size_mm(view.across))
        show_slice(panel, shown, view, at_mm)
        show_whole(panel, shown, view)
        for box, corners in zip(there, placed, strict=True):
            cut = corners[0, view.across] <= at_mm <= corners[1, view.across]
            _draw_box(panel, view, box, corners, cut=cut)
        write_sides(panel, shown, view, at_mm)
    plane = SAGITTAL if len(there) and np.ptp(middles[:, 0]) < 25 else AXIAL
    for n, (box, corners) in enumerate(tiles):
        row, column = divmod(n, _COLUMNS)
        above = first + _LINE + row * (tile + _LINE)
        panel = sheet.panel(GAP + column * (tile + GAP), above, tile, tile)
        _draw_tile(panel, shown, plane, box, corners)
    absent = [box.name for box in localization.boxes if box.status == "absent"]
    names = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if absent[10:] else "")
    note = f"Not in this scan: {names}. " if absent else ""
    facts = f"{len(there)} of {len(localization.boxes)} boxes found"
    return sheet.finish(title, facts, _handles(there), note=note)


def _placed(shown: DisplayVolume, box: Box) -> Array:
    """Corners (2, 3) of a box as the picture has it, smallest first."""
    ends = shown.place(box.corners_world)
    return np.stack([ends.min(axis=0), ends.max(axis=0)])


def _draw_box(axes: Axes, view: View, box: Box, corners: Array, *, cut: bool) -> None:
    """A rectangle with its name; faint where the slice does not cut the box."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    low, high = corners[:, [view.right, view.up]]
    color = answer_color(box.status, box.confidence)
    style: dict[str, Any] = {"lw": 1.8} if cut else {"lw": 0.8, "ls": ":", "alpha": 0.6}
    axes.add_patch(Rectangle(low, *(high - low), fill=False, ec=color, zorder=4, **style))
    if cut:
        shadow = [withStroke(linewidth=2, foreground="black")]
        words: dict[str, Any] = {"fontsize": 7.5, "ha": "center", "va": "center", "zorder": 5}
        x, y = (low + high) / 2
        name = box.name.replace("_", " ")
        axes.text(x, y, name, color=color, path_effects=shadow, **words)


def _draw_tile(axes: Axes, shown: DisplayVolume, view: View, box: Box, corners: Array) -> None:
    """One box on the slice through its middle."""
    from matplotlib.patches import Rectangle

    middle = corners.mean(axis=0)
    show_slice(axes, shown, view, float(middle[view.across]))
    low, high = corners[:, [view.right, view.up]]
    color = answer_color(box.status, box.confidence)
    axes.add_patch(Rectangle(low, *(high - low), fill=False, ec=color, lw=1.6))
    half = float((high - low).max()) * (0.5 + _AROUND)
    x, y = (low + high) / 2
    axes.set_xlim(x + half, x - half)
    axes.set_ylim(y - half, y + half)
    for spine in axes.spines.values():
        spine.set_color(color)
    sure = "" if math.isnan(box.confidence) else f"  {box.confidence:.0%}"
    axes.set_title(f"{box.name.replace('_', ' ')}{sure}", color=INK, fontsize=8.5, pad=3)


def _handles(there: list[Box]) -> list[Any]:
    """The legend."""
    styles = {
        "confidence 80 % and more": GOOD,
        "50 to 80 %": FAIR,
        "below 50 %: check": POOR,
        "by hand": answer_color("by hand", math.nan),
        "confidence unknown": answer_color("found", math.nan),
    }
    used = {answer_color(box.status, box.confidence) for box in there}
    handles = [line_handle(label, color) for label, color in styles.items() if color in used]
    faint = line_handle("box that the slice does not cut", INK, ls=":", lw=0.8)
    return [*handles, faint] if there else []
