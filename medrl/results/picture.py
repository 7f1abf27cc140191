"""The frame that pictures of results share: rows of views, headline, legend, disclaimer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.files import atomic_path
from medrl.results.views import BACKGROUND, FAINT, INK, VIEWS, DisplayVolume, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours of scales, coarse to fine.
SCALE_COLORS = ("#ff9f43", "#48dbfb", "#ffffff", "#c8a2ff", "#7bed9f")
#: Colours of what is good, to be looked at, and bad or background.
GOOD, FAIR, POOR = "#39d98a", "#ffd43b", "#ff5c5c"
#: Of an answer that nobody judged, and of one by hand.
UNJUDGED, BY_HAND = "#48dbfb", "#ffffff"

#: Space between panels, above all of them, and below (inches).
GAP, TOP, BOTTOM = 0.12, 0.62, 0.68
_CONVENTION = "Radiological convention: the patient's right is on the left. "
_DISCLAIMER = "For research; not for diagnosis."
_DPI = 110
#: zlib's level: a third of the time of the usual 6, for 7 % more bytes.
_PNG_EFFORT = 3


def answer_color(status: str, confidence: float) -> str:
    """Colour of something that is in the scan, by who placed it and how sure that is."""
    if status == "by hand":
        return BY_HAND
    if math.isnan(confidence):
        return UNJUDGED
    if confidence >= 0.8:
        return GOOD
    return FAIR if confidence >= 0.5 else POOR


def row_height(shown: DisplayVolume, width: float, *, most: float = 8.0) -> float:
    """Height (inches) at which the three views of a scan fill a width (inches)."""
    shares = (shown.size_mm(v.right) / shown.size_mm(v.up) for v in VIEWS)
    return min(most, (width - 4 * GAP) / sum(shares))


class Sheet:
    """A picture that is laid out in inches from its upper left corner.

    Attributes:
        figure: A matplotlib figure that belongs to no window and no global state.
        width: Of the picture, inches.
        height: Likewise.
    """

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure: Figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
        FigureCanvasAgg(self.figure)

    def panel(self, left: float, above: float, wide: float, high: float) -> Axes:
        """A place to draw: how far from the left and from above, and its size."""
        below = 1 - (above + high) / self.height
        box = (left / self.width, below, wide / self.width, high / self.height)
        axes: Axes = self.figure.add_axes(box)
        return axes

    def row(self, shown: DisplayVolume, above: float, high: float) -> Iterator[tuple[View, Axes]]:
        """The three views of a scan side by side, and a panel for each."""
        wide = [high * shown.size_mm(v.right) / shown.size_mm(v.up) for v in VIEWS]
        left = (self.width - sum(wide) - 2 * GAP) / 2
        for view, across in zip(VIEWS, wide, strict=True):
            yield view, self.panel(left, above, across, high)
            left += across + GAP

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a line, its middle so far from the left and from above."""
        style = {"color": INK, "va": "center", **style}
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def finish(
        self,
        title: str,
        facts: str,
        handles: Sequence[Any],
        *,
        facts_color: str = INK,
        note: str = "",
        anatomical: bool = True,
    ) -> Figure:
        """Write what is around the panels.

        Args:
            title: Headline: what scan this is.
            facts: What was found, beside it.
            handles: Of the legend; see :func:`line_handle` and :func:`marker_handle`.
            facts_color: Colour of the facts.
            note: What else is to be said, before the disclaimer; ends with a space.
            anatomical: Views follow the radiological convention, which is said.

        Returns:
            The figure.
        """
        self.write(GAP, 0.31, title, fontsize=14, fontweight="bold")
        self.write(self.width - GAP, 0.31, facts, color=facts_color, fontsize=11, ha="right")
        if handles:
            self.figure.legend(
                handles=handles, loc="lower left", bbox_to_anchor=(0.004, 0.26 / self.height),
                ncols=len(handles), frameon=False, labelcolor=INK, fontsize=9, handlelength=1.6,
                columnspacing=1.4, borderpad=0.2,
            )  # fmt: skip
        line = f"{_CONVENTION if anatomical else ''}{note}{_DISCLAIMER}"
        self.write(GAP, self.height - 0.16, line, color=FAINT, fontsize=9)
        return self.figure


def line_handle(label: str, color: str, **style: Any) -> Any:
    """A line in the legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, label=label, **style)


def marker_handle(label: str, marker: str, color: Any, **style: Any) -> Any:
    """A marker (matplotlib's) in the legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], ls="", marker=marker, color=color, label=label, **style)


def projected_handle(slab_mm: float) -> Any:
    """What a hollow marker means."""
    label = f"more than {slab_mm:g} mm off the slice, projected"
    return marker_handle(label, "o", FAINT, mfc="none")


def save_picture(path: str | Path, figure: Figure) -> None:
    """Write a figure as PNG; the file appears only when it is whole.

    Raises:
        MedrlError: If the file cannot be written.
    """
    with atomic_path(path) as temporary:
        figure.savefig(
            temporary, dpi=_DPI, facecolor=BACKGROUND, pil_kwargs={"compress_level": _PNG_EFFORT}
        )
