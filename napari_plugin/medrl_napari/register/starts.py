"""A table of the starts that a registration tried, and how far each of them came."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QTableWidgetItem
from scipy.spatial.transform import Rotation

from medrl.trajectory import Step
from medrl_napari.space import Floats
from medrl_napari.widgets import Table

_COLUMNS = (
    ("start", "Number; from 24 on one between the usual orientations"),
    (
        "turned x, y, z",
        "How the scan was turned when this agent set out, in degrees about the patient's axes",
    ),
    ("score", "How alike the scans look under this agent's transform, more is better"),
    ("came to", "Where its way ended: after each step, agents with lower scores are dropped"),
)
_BEST, _DROPPED = QColor("#7bed9f"), QColor("#9a9a9a")


@dataclass(frozen=True, eq=False)
class Start:
    """What is known of one start.

    Attributes:
        number: Its number; from 24 on, one between the usual orientations.
        turned_deg: About x, y and z of the patient, at the start.
        transform_world: (4, 4), where it has come to.
        value: Score of that, more is better.
        scale_mm: Resolution at which it looks, mm.
        steps: At how many steps it was seen.
        walking: Whether it is still under way.
    """

    number: int
    turned_deg: Floats
    transform_world: Floats
    value: float
    scale_mm: float
    steps: int
    walking: bool


class Starts:
    """Follows a registration step by step, in its thread; the window looks at any time."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.by_number: dict[int, Start] = {}
        self.best: int | None = None
        """The start whose agent gave the answer, once there is one."""

    def add(self, step: Step) -> None:
        """Take note of what agents did."""
        if step.transforms is None:
            return
        now = {number: replace(start, walking=False) for number, start in self.by_number.items()}
        rows = zip(step.starts, step.transforms, step.values, step.scales_mm, strict=True)
        for number, transform, value, scale in rows:
            known = now.get(int(number))
            now[int(number)] = Start(
                int(number),
                _turned(transform) if known is None else known.turned_deg,
                transform,
                float(value),
                float(scale),
                1 if known is None else known.steps + 1,
                True,
            )
        # At one stroke: whoever looks meanwhile sees the step before.
        self.by_number = now

    @property
    def leader(self) -> Start | None:
        """The best of those under way."""
        return max((s for s in self.by_number.values() if s.walking), key=_score, default=None)

    @property
    def ranked(self) -> list[Start]:
        """The answer first, then whoever came furthest."""
        return sorted(
            self.by_number.values(),
            key=lambda s: (s.number == self.best, s.walking, s.steps, _score(s)),
            reverse=True,
        )


class StartTable(Table):
    """The starts, best first; whoever clicks on one wants to see it."""

    picked = Signal(int)
    """Number of the start that was clicked on."""

    def __init__(self) -> None:
        """No starts yet."""
        super().__init__(_COLUMNS, stretch=3)
        self.itemSelectionChanged.connect(self._pick)

    @property
    def chosen(self) -> int | None:
        """Number of the selected start."""
        rows = self.selectionModel().selectedRows()
        return int(self.item(rows[0].row(), 0).text()) if rows else None

    def choose(self, number: int | None) -> None:
        """Select a start, or none, without telling of it."""
        with QSignalBlocker(self):
            self.clearSelection()
            for row in range(self.rowCount()):
                if number is not None and self.item(row, 0).text() == str(number):
                    self.selectRow(row)

    def show_starts(self, starts: Starts) -> None:
        """Show how things stand; what is selected stays selected."""
        chosen = self.chosen
        ranked = starts.ranked
        with QSignalBlocker(self):
            self._make_rows(len(ranked))
            for row, start in enumerate(ranked):
                best = start.number == starts.best
                waits = start.walking and starts.best is None
                brush = QBrush(_BEST if best else _DROPPED) if best or not waits else QBrush()
                turned = "  ".join(f"{angle:.0f}\N{DEGREE SIGN}" for angle in start.turned_deg)
                came = _came_to(start, starts.best)
                texts = (str(start.number), turned, f"{start.value:.3f}", came)
                for column, text in enumerate(texts):
                    item = self.item(row, column)
                    if item.text() != text:
                        item.setText(text)
                    if item.foreground() != brush:
                        item.setForeground(brush)
        self.choose(chosen)

    def _make_rows(self, count: int) -> None:
        known = self.rowCount()
        self.setRowCount(count)
        for row in range(known, count):
            for column in range(len(_COLUMNS)):
                item = QTableWidgetItem()
                if column in (0, 2):
                    right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    item.setTextAlignment(right)
                self.setItem(row, column, item)

    def _pick(self) -> None:
        if self.chosen is not None:
            self.picked.emit(self.chosen)


def _came_to(start: Start, best: int | None) -> str:
    where = f"{start.scale_mm:g} mm, step {start.steps}"
    if start.number == best:
        return f"best ({where})"
    if best is None and start.walking:
        return f"walking ({where})"
    return f"dropped ({where})"


def _score(start: Start) -> float:
    return start.value if np.isfinite(start.value) else -np.inf


def _turned(transform: Floats) -> Floats:
    """Angles about x, y and z, in degrees, of a transform's rotation."""
    left, _, right = np.linalg.svd(transform[:3, :3])
    with warnings.catch_warnings():
        # A quarter turn about y leaves the other two angles open; one of many is as good.
        warnings.simplefilter("ignore", UserWarning)
        angles = Rotation.from_matrix(left @ right).as_euler("xyz", degrees=True)
    return np.asarray(np.round(angles) + 0.0, dtype=np.float64)
