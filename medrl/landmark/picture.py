"""One picture of a detection: where the landmarks are, and how the agents got there.

Three orthogonal views carry the paths of all agents; below them every landmark has a tile of its
own, cut at the slice it lies on, so that a reader can judge each point by eye.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from medrl.results.picture import (
    BY_HAND,
    FAIR,
    GAP,
    GOOD,
    POOR,
    SCALE_COLORS,
    TOP,
    UNJUDGED,
    Sheet,
    answer_color,
    line_handle,
    marker_handle,
    projected_handle,
    row_height,
)
from medrl.results.views import (
    AXIAL,
    INK,
    SAGITTAL,
    SLAB_MM,
    Array,
    DisplayVolume,
    View,
    busiest_slice,
    display_volume,
    show_slice,
    show_whole,
    spread_labels,
    write_on,
    write_sides,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from monai.data.meta_tensor import MetaTensor

    from medrl.landmark.detection import Detection, Landmark

_CORRECTED = "#d98cff"
#: Width of a picture, what is left below, and the space for a line of text (inches).
_WIDTH, _BOTTOM, _LINE = 15.0, 0.62, 0.3
#: Side of a tile, mm, in scans three times as large and more; of smaller ones a third.
_TILE_MM = 64.0
_COLUMNS = 9
_TITLE_LETTERS = 28
_MOST_TILES = 45


def draw_detection(scan: MetaTensor, detection: Detection, *, title: str = "") -> Figure:
    """Draw a detection.

    Args:
        scan: MetaTensor (1, I, J, K) with a voxel-to-world affine (RAS mm), as it was searched.
        detection: What was found in it.
        title: Headline; what scan this is.

    Returns:
        A matplotlib figure that belongs to no window and no global state.
    """
    shown = display_volume(scan)
    here = [(n, lm) for n, lm in enumerate(detection.landmarks, 1) if lm.status != "absent"]
    places = shown.place(np.array([lm.position_world for _, lm in here]).reshape(-1, 3))
    tiles = here[:_MOST_TILES]
    rows = math.ceil(len(tiles) / _COLUMNS)

    high = row_height(shown, _WIDTH, most=9.0)
    tile = (_WIDTH - (_COLUMNS + 1) * GAP) / _COLUMNS
    first = TOP + high + 0.42
    sheet = Sheet(_WIDTH, first + rows * (tile + _LINE) + _BOTTOM)
    for view, panel in sheet.row(shown, TOP, high):
        _draw_view(panel, shown, view, detection, here, places)
    middle = float(np.median(places[:, 0])) if len(places) else 0.0
    for n, ((number, landmark), place) in enumerate(zip(tiles, places, strict=False)):
        row, column = divmod(n, _COLUMNS)
        above = first + _LINE + row * (tile + _LINE)
        panel = sheet.panel(GAP + column * (tile + GAP), above, tile, tile)
        plane = SAGITTAL if abs(place[0] - middle) < 5 else AXIAL
        _draw_tile(panel, shown, plane, place, number, landmark)
    if tiles:
        line = f"Each landmark on its own slice, {_tile_mm(shown):.3g} mm wide"
        sheet.write(GAP, TOP + high + 0.26, line, fontsize=10.5)
    absent = [short_name(lm.name) for lm in detection.landmarks if lm.status == "absent"]
    names = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if absent[10:] else "")
    note = f"Not in this scan: {names}. " if absent else ""
    return sheet.finish(title, _facts(detection), _handles(detection), note=note)


def _tile_mm(shown: DisplayVolume) -> float:
    return min(_TILE_MM, max(shown.size_mm(axis) for axis in range(3)) / 3)


def _draw_view(
    axes: Axes,
    shown: DisplayVolume,
    view: View,
    detection: Detection,
    here: list[tuple[int, Landmark]],
    places: Array,
) -> None:
    """One large view: the slice that most landmarks lie near, all paths, numbered landmarks."""
    from matplotlib.patheffects import withStroke

    at_mm = busiest_slice(places[:, view.across], shown.size_mm(view.across))
    show_slice(axes, shown, view, at_mm)
    show_whole(axes, shown, view)
    _draw_paths(axes, shown, view, detection)

    shadow = [withStroke(linewidth=2.2, foreground="black")]
    on_slice = np.abs(places[:, view.across] - at_mm) <= SLAB_MM
    flat = places[:, [view.right, view.up]]
    for (_, landmark), point, near in zip(here, flat, on_slice, strict=True):
        color, marker = landmark_style(landmark)
        if near:
            axes.plot(*point, marker, color=color, ms=6.5, mec="black", mew=0.9, zorder=5)
        else:
            axes.plot(*point, marker, color="none", mec=color, ms=5, mew=1.1, alpha=0.8, zorder=4)
    labelled = np.flatnonzero(on_slice)
    clutter = np.concatenate([flat[on_slice], flat[~on_slice]])
    size = (shown.size_mm(view.right), shown.size_mm(view.up))
    spots = spread_labels(flat[labelled], clutter, size=size, away=min(9.0, max(size) / 18))
    for index, spot in zip(labelled, spots, strict=True):
        axes.annotate(
            str(here[index][0]),
            flat[index],
            xytext=spot,
            color=landmark_style(here[index][1])[0],
            fontsize=10,
            fontweight="bold",
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.6, "shrinkA": 5, "shrinkB": 3},
            path_effects=shadow,
            zorder=6,
        )
    write_sides(axes, shown, view, at_mm)


def _draw_paths(axes: Axes, shown: DisplayVolume, view: View, detection: Detection) -> None:
    """Every agent's way, projected onto the view and coloured by the scale it walked on."""
    from matplotlib.collections import LineCollection

    colors = _scale_colors(detection)
    for agent in detection.trajectory.agents:
        if len(agent.positions_world) < 2:
            continue
        flat = shown.place(agent.positions_world)[:, [view.right, view.up]]
        segments = np.stack([flat[:-1], flat[1:]], axis=1)
        # A step belongs to the scale on which its agent stood when it left.
        scales = np.asarray(agent.scales_mm[:-1], dtype=np.float64)
        lines = LineCollection(
            list(segments),
            colors=[colors[float(scale)] for scale in scales],
            linewidths=[0.8 + 0.07 * scale for scale in scales],
            alpha=0.75,
            zorder=3,
        )
        axes.add_collection(lines, autolim=False)


def _draw_tile(
    axes: Axes, shown: DisplayVolume, view: View, place: Array, number: int, landmark: Landmark
) -> None:
    """One landmark: its surroundings and an open crosshair that hides nothing."""
    show_slice(axes, shown, view, float(place[view.across]))
    x, y = place[view.right], place[view.up]
    color, _ = landmark_style(landmark)
    half = _tile_mm(shown) / 2
    for near, far in ((0.08 * half, 0.25 * half), (-0.08 * half, -0.25 * half)):
        axes.plot([x + near, x + far], [y, y], color=color, lw=1.6)
        axes.plot([x, x], [y + near, y + far], color=color, lw=1.6)
    axes.plot(x, y, ".", color=color, ms=2.5)
    axes.set_xlim(x + half, x - half)
    axes.set_ylim(y - half, y + half)
    for spine in axes.spines.values():
        spine.set_color(color)
    title = f"{number}  {short_name(landmark.name)}"
    if len(title) > _TITLE_LETTERS:
        title = title[: _TITLE_LETTERS - 1] + "…"
    axes.set_title(title, color=INK, fontsize=9 if len(title) < 21 else 7.8, pad=3)
    corner: dict[str, Any] = {"fontsize": 7.5, "shadow": 1.8}
    write_on(axes, 0.03, 0.5, view.letters[0], va="center", **corner)
    write_on(axes, 0.97, 0.97, view.name[:3].lower(), ha="right", va="top", **corner)
    if not math.isnan(landmark.confidence):
        write_on(axes, 0.03, 0.03, f"{landmark.confidence:.0%}", **corner)


def _facts(detection: Detection) -> str:
    """How many landmarks were found."""
    statuses = [lm.status for lm in detection.landmarks]
    counts = [f"{statuses.count('found')} of {len(statuses)} landmarks found"]
    if "corrected" in statuses:
        counts.append(f"{statuses.count('corrected')} placed by the shape prior")
    if "by hand" in statuses:
        counts.append(f"{statuses.count('by hand')} by hand")
    return ", ".join(counts)


def _handles(detection: Detection) -> list[Any]:
    """The legend."""
    handles = [
        line_handle(f"path at {scale:g} mm", color, lw=1 + 0.1 * scale)
        for scale, color in _scale_colors(detection).items()
    ]
    styles = {
        "confidence 80 % and more": (GOOD, "o"),
        "50 to 80 %": (FAIR, "o"),
        "below 50 %: check": (POOR, "o"),
        "corrected by the shape prior": (_CORRECTED, "D"),
        "placed by hand": (BY_HAND, "s"),
        "confidence unknown": (UNJUDGED, "o"),
    }
    used = {landmark_style(lm) for lm in detection.landmarks if lm.status != "absent"}
    for label, (color, marker) in styles.items():
        if (color, marker) in used:
            handles.append(marker_handle(label, marker, color))
    return [*handles, projected_handle(SLAB_MM)] if used else handles


def short_name(name: str) -> str:
    """A landmark's name as a person writes it: ``Putamen_L_centroid`` becomes Putamen L."""
    return name.removesuffix("_centroid").replace("_", " ")


def landmark_style(landmark: Landmark) -> tuple[str, str]:
    """Colour and marker (matplotlib's) of a landmark that is there, by how sure it is."""
    if landmark.status == "corrected":
        return _CORRECTED, "D"
    marker = "s" if landmark.status == "by hand" else "o"
    return answer_color(landmark.status, landmark.confidence), marker


def _scale_colors(detection: Detection) -> dict[float, str]:
    """A colour for each scale, coarse to fine."""
    scales = sorted({float(s) for a in detection.trajectory.agents for s in a.scales_mm})[::-1]
    return {scale: SCALE_COLORS[n % len(SCALE_COLORS)] for n, scale in enumerate(scales)}
