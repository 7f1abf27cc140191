"""Two pictures of a registration: both scans in colours before and after, and a checkerboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data.meta_tensor import MetaTensor

from medrl.files import atomic_path
from medrl.volume.views import (
    BACKGROUND,
    FAINT,
    INK,
    PNG_EFFORT,
    VIEWS,
    Array,
    Stage,
    View,
    set_stage,
    show_slice,
    show_whole,
    write_sides,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    #: Draws one slice at a place along a view's axis (stage mm).
    Painter = Callable[[Axes, View, float], None]

#: Colours of the fixed and the moving scan; together they are white.
FIXED_COLOR, MOVING_COLOR = (0.2, 0.85, 0.35), (0.8, 0.15, 0.65)
#: A breath of them, which tells squares of grey apart.
FIXED_TINT, MOVING_TINT = (0.91, 1.0, 0.93), (1.0, 0.9, 0.98)
_ALARM = "#ff6b6b"
#: Side of the checkerboard's squares (mm), and the least number of them across a scan.
_SQUARE_MM, _LEAST_SQUARES = 20.0, 6
_DPI = 110


def write_before_after(
    path: str | Path,
    fixed: MetaTensor,
    before: MetaTensor,
    after: MetaTensor,
    report: Mapping[str, Any],
    *,
    title: str = "",
) -> None:
    """Draw the moving scan over the fixed one, before and after, and write it as PNG.

    Args:
        path: File to write; it appears only when it is whole.
        fixed: MetaTensor (1, I, J, K).
        before: The moving scan on the same grid, not moved.
        after: The same, moved.
        report: Of `medrl.registration.results`.
        title: Headline; what scans these are.

    Raises:
        MedrlError: If the file cannot be written.
    """
    _save(path, draw_before_after(fixed, before, after, report, title=title))


def write_checkerboard(
    path: str | Path,
    fixed: MetaTensor,
    after: MetaTensor,
    report: Mapping[str, Any],
    *,
    title: str = "",
) -> None:
    """Draw squares of the fixed and of the moved scan in turn, and write it as PNG.

    Args:
        path: File to write; it appears only when it is whole.
        fixed: MetaTensor (1, I, J, K).
        after: The moving scan on the same grid, moved.
        report: Of `medrl.registration.results`.
        title: Headline; what scans these are.

    Raises:
        MedrlError: If the file cannot be written.
    """
    _save(path, draw_checkerboard(fixed, after, report, title=title))


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
    stage = set_stage(fixed)

    def painter(moved: MetaTensor) -> Painter:
        other = set_stage(moved)

        def paint(axes: Axes, view: View, at_mm: float) -> None:
            first, second = (_grey(one, view, at_mm) for one in (stage, other))
            colours = first[..., None] * np.array(FIXED_COLOR) + second[..., None] * np.array(
                MOVING_COLOR
            )
            _lay(axes, stage, view, np.clip(colours, 0, 1))

        return paint

    rows = [("before", painter(before)), ("after", painter(after))]
    return _draw(stage, rows, report, title, "white where both are equally bright")


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
    stage, other = set_stage(fixed), set_stage(after)
    size = min(stage.size_mm(axis) for axis in range(3))
    square = min(_SQUARE_MM, size / _LEAST_SQUARES)

    def paint(axes: Axes, view: View, at_mm: float) -> None:
        first, second = (_grey(one, view, at_mm) for one in (stage, other))
        up, right = (np.arange(n) * stage.spacing // square for n in first.shape)
        odd = (up[:, None] + right[None, :]) % 2 == 1
        mixed = np.where(odd, second, first)[..., None]
        tint = np.where(odd[..., None], MOVING_TINT, FIXED_TINT)
        _lay(axes, stage, view, mixed * tint)

    line = f"squares of {square:.0f} mm: edges should go on from one to the next"
    return _draw(stage, [("", paint)], report, title, line)


def _save(path: str | Path, figure: Figure) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(
            temporary, dpi=_DPI, facecolor=BACKGROUND, pil_kwargs={"compress_level": PNG_EFFORT}
        )


def _grey(stage: Stage, view: View, at_mm: float) -> Array:
    """One slice (up, right), from 0 to 1 as the stage's window shows it."""
    low, high = stage.window
    flat = np.take(stage.volume, stage.index(at_mm, view.across), axis=view.across)
    return np.clip((flat.T.astype(np.float64) - low) / (high - low), 0, 1)


def _lay(axes: Axes, stage: Stage, view: View, colours: Array) -> None:
    """Lay a coloured slice (up, right, 3) over a panel that shows the same slice in grey."""
    half = stage.spacing / 2
    right, up = stage.size_mm(view.right) - half, stage.size_mm(view.up) - half
    axes.imshow(colours, origin="lower", interpolation="bilinear", extent=(-half, right, -half, up))


def _middle(stage: Stage) -> Array:
    """Where the middle of what is bright lies, stage mm (3,)."""
    low, high = stage.window
    sparse = np.clip(stage.volume[::3, ::3, ::3], low, high) - low
    where = np.argwhere(sparse > 0.2 * (high - low))
    size = np.array(stage.volume.shape) / 3
    middle: Array = where.mean(axis=0) if len(where) else size / 2
    return middle * 3 * stage.spacing


def _draw(
    stage: Stage,
    rows: Sequence[tuple[str, Painter]],
    report: Mapping[str, Any],
    title: str,
    line: str,
) -> Figure:
    """A row of three views for each painter, with headline and legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    width, gap, top, bottom = 14.0, 0.12, 0.62, 0.68
    extents = [(stage.size_mm(v.right), stage.size_mm(v.up)) for v in VIEWS]
    high = min(8.0, (width - 4 * gap) / sum(w / h for w, h in extents))
    height = top + (high + gap) * len(rows) + bottom
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    middle = _middle(stage)
    wide = [high * w / h for w, h in extents]
    for row, (name, paint) in enumerate(rows):
        left = (width - sum(wide) - 2 * gap) / 2
        below = 1 - (top + high + (high + gap) * row) / height
        for view, across in zip(VIEWS, wide, strict=True):
            panel = figure.add_axes((left / width, below, across / width, high / height))
            at_mm = float(middle[view.across])
            show_slice(panel, stage, view, at_mm)
            paint(panel, view, at_mm)
            show_whole(panel, stage, view)
            write_sides(panel, stage, view, at_mm)
            if name and view is VIEWS[0]:
                panel.text(
                    0.02, 0.03, name, transform=panel.transAxes, color=INK, fontsize=13,
                    path_effects=[withStroke(linewidth=2.2, foreground="black")],
                )  # fmt: skip
            left += across + gap
    _draw_frame(figure, report, title, line)
    return figure


def _draw_frame(figure: Figure, report: Mapping[str, Any], title: str, line: str) -> None:
    """Headline, how far the result is to be trusted, legend, and the convention of the views."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    figure.text(0.12 / width, 1 - 0.31 / height, title, color=INK, fontsize=14, va="center",
                fontweight="bold")  # fmt: skip
    figure.text(1 - 0.12 / width, 1 - 0.31 / height, _facts(report), fontsize=11, va="center",
                ha="right", color=INK if report["trusted"] else _ALARM)  # fmt: skip
    names = (("fixed", FIXED_COLOR), ("moving", MOVING_COLOR))
    handles = [
        Line2D([], [], ls="", marker="s", ms=9, color=color, label=name) for name, color in names
    ]
    handles.append(Line2D([], [], ls="", color=FAINT, label=line))
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.004, 0.26 / height),
        ncols=len(handles), frameon=False, labelcolor=INK, fontsize=9, handlelength=1.6,
        columnspacing=1.4, borderpad=0.2,
    )  # fmt: skip
    text = (
        "Radiological convention: the patient's right is on the left. "
        "For research; not for diagnosis."
    )
    figure.text(0.12 / width, 0.16 / height, text, color=FAINT, fontsize=9, va="center")


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
