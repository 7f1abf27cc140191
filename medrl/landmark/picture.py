"""One picture of a detection: where the landmarks are, and how the agents got there.

Three orthogonal views carry the paths of all agents; below them every landmark has a tile of its
own, cut at the slice it lies on, so that a reader can judge each point by eye.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medrl.files import atomic_path
from medrl.volume.views import (
    AXIAL,
    BACKGROUND,
    FAINT,
    INK,
    PNG_EFFORT,
    SAGITTAL,
    SLAB_MM,
    VIEWS,
    Array,
    Stage,
    View,
    busiest_slice,
    set_stage,
    show_slice,
    show_whole,
    spread_labels,
    write_sides,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from monai.data.meta_tensor import MetaTensor

    from medrl.landmark.detect import Detection, Landmark

#: Coarse to fine.
_SCALE_COLORS = ("#ff9f43", "#48dbfb", "#ffffff", "#c8a2ff", "#7bed9f")
#: Colours: confidence from high to low, corrected, not judged, by hand.
_SURE, _UNSURE, _DOUBTFUL, _CORRECTED, _UNJUDGED, _BY_HAND = (
    "#39d98a",
    "#ffd43b",
    "#ff5c5c",
    "#d98cff",
    "#48dbfb",
    "#ffffff",
)
_TILE_MM = 64.0
_COLUMNS = 9
_TITLE_LETTERS = 28
_MOST_TILES = 45


def write_picture(
    path: str | Path, scan: MetaTensor, detection: Detection, *, title: str = ""
) -> None:
    """Draw a detection and write it as PNG; the file appears only when it is whole.

    Args:
        path: File to write.
        scan: MetaTensor (1, I, J, K) with a voxel-to-world affine (RAS mm), as it was searched.
        detection: What was found in it.
        title: Headline; what scan this is.

    Raises:
        OSError: If the file cannot be written.
    """
    figure = draw_detection(scan, detection, title=title)
    with atomic_path(path) as temporary:
        figure.savefig(
            temporary, dpi=110, facecolor=BACKGROUND, pil_kwargs={"compress_level": PNG_EFFORT}
        )


def draw_detection(scan: MetaTensor, detection: Detection, *, title: str = "") -> Figure:
    """Draw a detection.

    Args:
        scan: MetaTensor (1, I, J, K) with a voxel-to-world affine (RAS mm), as it was searched.
        detection: What was found in it.
        title: Headline; what scan this is.

    Returns:
        A matplotlib figure that belongs to no window and no global state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stage = set_stage(scan)
    here = [(n, lm) for n, lm in enumerate(detection.landmarks, 1) if lm.status != "absent"]
    places = stage.place(np.array([lm.position_world for _, lm in here]).reshape(-1, 3))
    tiles = here[:_MOST_TILES]
    rows = math.ceil(len(tiles) / _COLUMNS)

    extents = [(stage.size_mm(v.right), stage.size_mm(v.up)) for v in VIEWS]
    width, top, bottom = 15.0, 0.62, 0.62
    gap = 0.12
    height_of_views = (width - 4 * gap) / sum(w / h for w, h in extents)
    height_of_views = min(height_of_views, 9.0)
    tile = (width - (_COLUMNS + 1) * gap) / _COLUMNS
    height = top + height_of_views + 0.42 + rows * (tile + 0.3) + bottom
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)

    def axes_at(left: float, above: float, wide: float, high: float) -> Axes:
        box = (left / width, 1 - (above + high) / height, wide / width, high / height)
        axes: Axes = figure.add_axes(box)
        return axes

    left = (width - sum(w / h for w, h in extents) * height_of_views - 2 * gap) / 2
    for view, (wide, high) in zip(VIEWS, extents, strict=True):
        panel = axes_at(left, top, height_of_views * wide / high, height_of_views)
        _draw_view(panel, stage, view, detection, here, places)
        left += height_of_views * wide / high + gap
    middle = float(np.median(places[:, 0])) if len(places) else 0.0
    for n, ((number, landmark), place) in enumerate(zip(tiles, places, strict=False)):
        row, column = divmod(n, _COLUMNS)
        above = top + height_of_views + 0.72 + row * (tile + 0.3)
        panel = axes_at(gap + column * (tile + gap), above, tile, tile)
        plane = SAGITTAL if abs(place[0] - middle) < 5 else AXIAL
        _draw_tile(panel, stage, plane, place, number, landmark)
    if tiles:
        figure.text(
            gap / width,
            1 - (top + height_of_views + 0.26) / height,
            f"Each landmark on its own slice, {_TILE_MM:.0f} mm wide",
            color=INK,
            fontsize=10.5,
            va="center",
        )
    _draw_frame(figure, detection, title, width, height)
    return figure


def _draw_view(
    axes: Axes,
    stage: Stage,
    view: View,
    detection: Detection,
    here: list[tuple[int, Landmark]],
    places: Array,
) -> None:
    """One large view: the slice that most landmarks lie near, all paths, numbered landmarks."""
    from matplotlib.patheffects import withStroke

    at_mm = busiest_slice(places[:, view.across], stage.size_mm(view.across))
    show_slice(axes, stage, view, at_mm)
    show_whole(axes, stage, view)
    _draw_paths(axes, stage, view, detection)

    shadow = [withStroke(linewidth=2.2, foreground="black")]
    on_slice = np.abs(places[:, view.across] - at_mm) <= SLAB_MM
    flat = places[:, [view.right, view.up]]
    for (_, landmark), point, near in zip(here, flat, on_slice, strict=True):
        color, marker = landmark_style(landmark)
        if near:
            axes.plot(*point, marker, color=color, ms=6.5, mec="black", mew=0.9, zorder=5)
        else:
            axes.plot(*point, marker, color="none", mec=color, ms=5, mew=1.1, alpha=0.8, zorder=4)
    shown = np.flatnonzero(on_slice)
    clutter = np.concatenate([flat[on_slice], flat[~on_slice]])
    size = (stage.size_mm(view.right), stage.size_mm(view.up))
    spots = spread_labels(flat[shown], clutter, size=size)
    for index, spot in zip(shown, spots, strict=True):
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
    write_sides(axes, stage, view, at_mm)


def _draw_paths(axes: Axes, stage: Stage, view: View, detection: Detection) -> None:
    """Every agent's way, projected onto the view and coloured by the scale it walked on."""
    from matplotlib.collections import LineCollection

    colors = _scale_colors(detection)
    for agent in detection.trajectory.agents:
        if len(agent.positions_world) < 2:
            continue
        flat = stage.place(agent.positions_world)[:, [view.right, view.up]]
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
    axes: Axes, stage: Stage, view: View, place: Array, number: int, landmark: Landmark
) -> None:
    """One landmark: its surroundings and an open crosshair that hides nothing."""
    from matplotlib.patheffects import withStroke

    show_slice(axes, stage, view, float(place[view.across]))
    x, y = place[view.right], place[view.up]
    color, _ = landmark_style(landmark)
    for near, far in ((2.5, 8.0), (-2.5, -8.0)):
        axes.plot([x + near, x + far], [y, y], color=color, lw=1.6)
        axes.plot([x, x], [y + near, y + far], color=color, lw=1.6)
    axes.plot(x, y, ".", color=color, ms=2.5)
    half = _TILE_MM / 2
    axes.set_xlim(x + half, x - half)
    axes.set_ylim(y - half, y + half)
    for spine in axes.spines.values():
        spine.set_color(color)
    title = f"{number}  {short_name(landmark.name)}"
    if len(title) > _TITLE_LETTERS:
        title = title[: _TITLE_LETTERS - 1] + "…"
    axes.set_title(title, color=INK, fontsize=9 if len(title) < 21 else 7.8, pad=3)
    corner: dict[str, Any] = {
        "transform": axes.transAxes,
        "color": INK,
        "fontsize": 7.5,
        "path_effects": [withStroke(linewidth=1.8, foreground="black")],
    }
    axes.text(0.03, 0.5, view.left_letter, va="center", **corner)
    axes.text(0.97, 0.97, view.name[:3].lower(), ha="right", va="top", **corner)
    if not math.isnan(landmark.confidence):
        axes.text(0.03, 0.03, f"{landmark.confidence:.0%}", **corner)


def _draw_frame(
    figure: Figure, detection: Detection, title: str, width: float, height: float
) -> None:
    """Headline, legend, and the convention of the views."""
    from matplotlib.lines import Line2D

    statuses = [lm.status for lm in detection.landmarks]
    counts = [f"{statuses.count('found')} of {len(statuses)} landmarks found"]
    if "corrected" in statuses:
        counts.append(f"{statuses.count('corrected')} placed by the shape prior")
    if "by hand" in statuses:
        counts.append(f"{statuses.count('by hand')} by hand")
    figure.text(0.12 / width, 1 - 0.31 / height, title, color=INK, fontsize=14, va="center",
                fontweight="bold")  # fmt: skip
    figure.text(1 - 0.12 / width, 1 - 0.31 / height, ", ".join(counts), color=INK, fontsize=11,
                va="center", ha="right")  # fmt: skip

    handles: list[Any] = [
        Line2D([], [], color=color, lw=1 + 0.1 * scale, label=f"path at {scale:g} mm")
        for scale, color in _scale_colors(detection).items()
    ]
    styles = {
        "confidence 80 % and more": (_SURE, "o"),
        "50 to 80 %": (_UNSURE, "o"),
        "below 50 %: check": (_DOUBTFUL, "o"),
        "corrected by the shape prior": (_CORRECTED, "D"),
        "placed by hand": (_BY_HAND, "s"),
        "confidence unknown": (_UNJUDGED, "o"),
    }
    used = {landmark_style(lm) for lm in detection.landmarks if lm.status != "absent"}
    for label, (color, marker) in styles.items():
        if (color, marker) in used:
            handles.append(Line2D([], [], ls="", marker=marker, color=color, label=label))
    if used:
        handles.append(
            Line2D(
                [],
                [],
                ls="",
                marker="o",
                mfc="none",
                color=FAINT,
                label=f"more than {SLAB_MM:.0f} mm off the slice, projected",
            )
        )
    if handles:
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0.004, 0.26 / height),
            ncols=len(handles), frameon=False, labelcolor=INK, fontsize=9, handlelength=1.6,
            columnspacing=1.4, borderpad=0.2,
        )  # fmt: skip
    absent = [short_name(lm.name) for lm in detection.landmarks if lm.status == "absent"]
    lines = "Radiological convention: the patient's right is on the left. "
    if absent:
        names = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if absent[10:] else "")
        lines += f"Not in this scan: {names}. "
    lines += "For research; not for diagnosis."
    figure.text(0.12 / width, 0.16 / height, lines, color=FAINT, fontsize=9, va="center")


def short_name(name: str) -> str:
    """A landmark's name as a person writes it: ``Putamen_L_centroid`` becomes Putamen L."""
    return name.removesuffix("_centroid").replace("_", " ")


def landmark_style(landmark: Landmark) -> tuple[str, str]:
    """Colour and marker (matplotlib's) of a landmark that is there, by how sure it is."""
    if landmark.status == "by hand":
        return _BY_HAND, "s"
    if landmark.status == "corrected":
        return _CORRECTED, "D"
    if math.isnan(landmark.confidence):
        return _UNJUDGED, "o"
    if landmark.confidence >= 0.8:
        return _SURE, "o"
    return (_UNSURE if landmark.confidence >= 0.5 else _DOUBTFUL), "o"


def _scale_colors(detection: Detection) -> dict[float, str]:
    """A colour for each scale, coarse to fine."""
    scales = sorted({float(s) for a in detection.trajectory.agents for s in a.scales_mm})[::-1]
    return {scale: _SCALE_COLORS[n % len(_SCALE_COLORS)] for n, scale in enumerate(scales)}
