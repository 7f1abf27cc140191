"""One picture of an alignment: three planes through AC, with the line from AC to PC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medrl.results.picture import (
    BOTTOM,
    FAIR,
    GOOD,
    POOR,
    TOP,
    Sheet,
    line_handle,
    marker_handle,
    row_height,
)
from medrl.results.views import (
    FAINT,
    SLAB_MM,
    display_volume,
    show_slice,
    show_whole,
    write_sides,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from monai.data.meta_tensor import MetaTensor

    from medrl.alignment.align import Alignment

_WIDTH = 15.0
_LINE = "#48dbfb"


def draw_alignment(alignment: Alignment, aligned: MetaTensor, *, title: str = "") -> Figure:
    """Draw an alignment.

    Args:
        alignment: Of a head.
        aligned: The scan in the frame, MetaTensor (1, I, J, K).
        title: Headline; what scan this is.

    Returns:
        A matplotlib figure that belongs to no window and no global state.
    """
    shown = display_volume(aligned)
    world = alignment.points_world
    ac = shown.place(world.get("AC", np.zeros(3)))
    line = shown.place(np.array([world[name] for name in ("AC", "PC") if name in world]))
    used = np.array([world[name] for name in alignment.fit.used if name in world]).reshape(-1, 3)
    places = shown.place(used)
    high = row_height(shown, _WIDTH, most=9.0)
    sheet = Sheet(_WIDTH, TOP + high + BOTTOM)
    for view, panel in sheet.row(shown, TOP, high):
        at_mm = float(ac[view.across])
        show_slice(panel, shown, view, at_mm)
        show_whole(panel, shown, view)
        for axis, mark in ((view.right, panel.axvline), (view.up, panel.axhline)):
            mark(float(ac[axis]), color=FAINT, lw=0.6, alpha=0.6)
        near = np.abs(places[:, view.across] - at_mm) <= SLAB_MM
        flat = places[near][:, [view.right, view.up]]
        panel.plot(*flat.T, ".", color=FAIR, ms=4, alpha=0.8)
        if len(line):
            panel.plot(*line[:, [view.right, view.up]].T, "-o", color=_LINE, lw=1.4, ms=4)
        write_sides(panel, shown, view, at_mm)
    handles = [
        line_handle("AC to PC", _LINE, marker="o", ms=4),
        marker_handle(f"points used, within {SLAB_MM:g} mm", ".", FAIR),
    ]
    color = POOR if alignment.doubts else GOOD
    return sheet.finish(title, facts(alignment), handles, facts_color=color)


def facts(alignment: Alignment) -> str:
    """How well it is known, in a line."""
    found = alignment.fit.figures
    if alignment.to == "mni":
        count = len(alignment.fit.used)
        return f"{count} points, {found['residual_mm']:.1f} mm off on average"
    return f"AC to PC {found['ac_pc_mm']:.1f} mm, roll known to {found['roll_sd_deg']:.1f} degrees"
