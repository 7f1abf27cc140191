"""Two pictures of a registration: both scans in colours before and after, and a checkerboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data.meta_tensor import MetaTensor

from medrl.results.picture import (
    BOTTOM,
    GAP,
    TOP,
    Sheet,
    line_handle,
    marker_handle,
    row_height,
)
from medrl.results.views import (
    FAINT,
    INK,
    VIEWS,
    Array,
    DisplayVolume,
    View,
    display_volume,
    show_slice,
    show_whole,
    write_on,
    write_sides,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    #: Draws one slice at a place along a view's axis (display mm).
    Painter = Callable[[Axes, View, float], None]

#: Colours of the fixed and the moving scan; together they are white.
FIXED_COLOR, MOVING_COLOR = (0.2, 0.85, 0.35), (0.8, 0.15, 0.65)
#: A breath of them, which tells squares of grey apart.
FIXED_TINT, MOVING_TINT = (0.91, 1.0, 0.93), (1.0, 0.9, 0.98)
_ALARM = "#ff6b6b"
#: Side of the checkerboard's squares (mm), and the least number of them across a scan.
_SQUARE_MM, _LEAST_SQUARES = 20.0, 6
_WIDTH = 14.0


def draw_before_after(
    fixed: MetaTensor,
    before: MetaTensor,
    after: MetaTensor,
    report: Mapping[str, Any],
    *,
    title: str = "",
) -> Figure:
    """Draw the moving scan over the fixed one in another colour: a row before, a row after.

    Args:
        fixed: MetaTensor (1, I, J, K).
        before: The moving scan on the same grid, not moved.
        after: The same, moved.
        report: Of `medrl.registration.results`.
        title: Headline; what scans these are.

    Returns:
        A matplotlib figure that belongs to no window and no global state.
    """
    shown = display_volume(fixed)

    def painter(moved: MetaTensor) -> Painter:
        other = display_volume(moved)

        def paint(axes: Axes, view: View, at_mm: float) -> None:
            first, second = (_grey(one, view, at_mm) for one in (shown, other))
            colours = first[..., None] * np.array(FIXED_COLOR) + second[..., None] * np.array(
                MOVING_COLOR
            )
            _lay(axes, shown, view, np.clip(colours, 0, 1))

        return paint

    rows = [("before", painter(before)), ("after", painter(after))]
    return _draw(shown, rows, report, title, "white where both are equally bright")


def draw_checkerboard(
    fixed: MetaTensor, after: MetaTensor, report: Mapping[str, Any], *, title: str = ""
) -> Figure:
    """Draw squares of the fixed and of the moved scan in turn.

    Args:
        fixed: MetaTensor (1, I, J, K).
        after: The moving scan on the same grid, moved.
        report: Of `medrl.registration.results`.
        title: Headline; what scans these are.

    Returns:
        A matplotlib figure that belongs to no window and no global state.
    """
    shown, other = display_volume(fixed), display_volume(after)
    size = min(shown.size_mm(axis) for axis in range(3))
    square = min(_SQUARE_MM, size / _LEAST_SQUARES)

    def paint(axes: Axes, view: View, at_mm: float) -> None:
        first, second = (_grey(one, view, at_mm) for one in (shown, other))
        up, right = (np.arange(n) * shown.spacing // square for n in first.shape)
        odd = (up[:, None] + right[None, :]) % 2 == 1
        mixed = np.where(odd, second, first)[..., None]
        tint = np.where(odd[..., None], MOVING_TINT, FIXED_TINT)
        _lay(axes, shown, view, mixed * tint)

    line = f"squares of {square:.0f} mm: edges should go on from one to the next"
    return _draw(shown, [("", paint)], report, title, line)


def _grey(shown: DisplayVolume, view: View, at_mm: float) -> Array:
    """One slice (up, right), from 0 to 1 as the window shows it."""
    low, high = shown.window
    flat = np.take(shown.volume, shown.index(at_mm, view.across), axis=view.across)
    return np.clip((flat.T.astype(np.float64) - low) / (high - low), 0, 1)


def _lay(axes: Axes, shown: DisplayVolume, view: View, colours: Array) -> None:
    """Lay a coloured slice (up, right, 3) over a panel that shows the same slice in grey."""
    half = shown.spacing / 2
    right, up = shown.size_mm(view.right) - half, shown.size_mm(view.up) - half
    axes.imshow(colours, origin="lower", interpolation="bilinear", extent=(-half, right, -half, up))


def _middle(shown: DisplayVolume) -> Array:
    """Where the middle of what is bright lies, display mm (3,)."""
    low, high = shown.window
    sparse = np.clip(shown.volume[::3, ::3, ::3], low, high) - low
    where = np.argwhere(sparse > 0.2 * (high - low))
    size = np.array(shown.volume.shape) / 3
    middle: Array = where.mean(axis=0) if len(where) else size / 2
    return middle * 3 * shown.spacing


def _draw(
    shown: DisplayVolume,
    rows: Sequence[tuple[str, Painter]],
    report: Mapping[str, Any],
    title: str,
    line: str,
) -> Figure:
    """A row of three views for each painter, with headline and legend."""
    high = row_height(shown, _WIDTH)
    sheet = Sheet(_WIDTH, TOP + (high + GAP) * len(rows) + BOTTOM)
    middle = _middle(shown)
    for number, (name, paint) in enumerate(rows):
        for view, panel in sheet.row(shown, TOP + (high + GAP) * number, high):
            at_mm = float(middle[view.across])
            show_slice(panel, shown, view, at_mm)
            paint(panel, view, at_mm)
            show_whole(panel, shown, view)
            write_sides(panel, shown, view, at_mm)
            if name and view is VIEWS[0]:
                write_on(panel, 0.02, 0.03, name, fontsize=13)
    handles = [
        marker_handle("fixed", "s", FIXED_COLOR, ms=9),
        marker_handle("moving", "s", MOVING_COLOR, ms=9),
        line_handle(line, FAINT, ls=""),
    ]
    color = INK if report["trusted"] else _ALARM
    return sheet.finish(title, _facts(report), handles, facts_color=color)


def _facts(report: Mapping[str, Any]) -> str:
    """What was done and how far it is to be trusted, in a line."""
    error, sure = report["predicted_error_mm"], report["confidence"]
    facts = [
        "" if report["trusted"] else "NOT TRUSTED",
        report["transform"],
        f"turned {report['turn_deg']:.0f} deg, shifted {report['shift_mm']:.0f} mm",
        "" if sure is None else f"confidence {sure:.2f}",
        "" if error is None else f"predicted error {error:.1f} mm",
    ]
    return ", ".join(fact for fact in facts if fact)
