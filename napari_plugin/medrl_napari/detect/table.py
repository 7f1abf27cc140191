"""The landmarks of a scan as a table: how sure each is, and which go into a datalist."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QResizeEvent
from qtpy.QtWidgets import QHeaderView, QTableWidgetItem

from medrl.landmark.detect import Landmark
from medrl.landmark.picture import landmark_style, short_name
from medrl_napari.widgets import Table, dot

_NAME, _RANK = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1
_COLUMNS = (
    ("Landmark", "Tick: goes into the datalist with Save corrections"),
    ("Sure", "Probability that the error is below 4 mm"),
    ("Status", "found, absent, corrected by the shape prior, or by hand"),
    ("Note", "What is unusual"),
)
_STATUS, _NOTE = 2, 3
#: Narrower tables have no room for these columns (pixels): colour and tip tell the same.
_ROOM = {_STATUS: 280, _NOTE: 380}
#: What is at least this sure goes into a datalist unless it is unticked.
_SURE_ENOUGH = 0.5
#: How far each key goes down the table.
STEP_KEYS = {Qt.Key.Key_N: 1, Qt.Key.Key_P: -1}
_ABSENT_COLOR = "#7a828c"
_STATUS_TIPS = {
    "found": "Where its agent ended",
    "absent": "Not in this scan's field of view",
    "corrected": "Its agent ended where the other landmarks do not expect it: their expectation",
    "by hand": "Where you put it",
}


class LandmarkTable(Table):
    """Landmarks, one a row; sorted by a click on a column's head.

    A ticked landmark goes into a datalist. At first those are ticked that the model is sure of,
    and those placed by hand.
    """

    chosen = Signal(str)
    """A landmark was clicked, or moved to with the keys."""

    def __init__(self) -> None:
        """Show nothing yet."""
        super().__init__(_COLUMNS, stretch=0)
        head = self.horizontalHeader()
        head.setSectionResizeMode(_NOTE, QHeaderView.ResizeMode.Interactive)
        head.setSortIndicator(0, Qt.SortOrder.AscendingOrder)
        self.currentCellChanged.connect(self._moved_to)
        self.cellClicked.connect(lambda row, _: self.chosen.emit(self._name(row)))

    def show_landmarks(self, landmarks: Sequence[Landmark]) -> None:
        """Show other landmarks."""
        with QSignalBlocker(self):
            self.setSortingEnabled(False)
            self.clearSelection()
            self.setRowCount(len(landmarks))
            for row, landmark in enumerate(landmarks):
                for column in range(len(_COLUMNS)):
                    self.setItem(row, column, _Cell())
                self._fill(row, landmark)
            self.setCurrentCell(-1, -1)
            self.setSortingEnabled(True)

    def update_landmark(self, landmark: Landmark) -> None:
        """Show a landmark that has changed, on its row."""
        with QSignalBlocker(self):
            self.setSortingEnabled(False)
            self._fill(self._row(landmark.name), landmark)
            self.setSortingEnabled(True)
        self.viewport().update()

    @property
    def current(self) -> str | None:
        """The landmark of the current row."""
        row = self.currentRow()
        return self._name(row) if row >= 0 and self.selectedItems() else None

    @property
    def ticked(self) -> tuple[str, ...]:
        """The landmarks that go into a datalist, in the table's order."""
        return tuple(
            self._name(row)
            for row in range(self.rowCount())
            if self.item(row, 0).checkState() == Qt.CheckState.Checked
        )

    def text_of(self, name: str) -> tuple[str, ...]:
        """What stands on a landmark's row."""
        row = self._row(name)
        return tuple(self.item(row, column).text() for column in range(len(_COLUMNS)))

    def choose(self, name: str) -> None:
        """Make a landmark the current one."""
        self.setCurrentCell(self._row(name), 0)

    def step(self, by: int) -> None:
        """Go on by some rows, round and round."""
        if self.rowCount():
            now = self.currentRow() if self.current is not None else (-1 if by > 0 else 0)
            self.setCurrentCell((now + by) % self.rowCount(), 0)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """N and P go to the next landmark and the one before, round and round."""
        if event.key() in STEP_KEYS:
            self.step(STEP_KEYS[event.key()])
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Leave columns out for which there is no room."""
        super().resizeEvent(event)
        for column, room in _ROOM.items():
            self.setColumnHidden(column, self.width() < room)
        self.setColumnWidth(_NOTE, self.width() // 3)

    # ---------------------------------------------------------------------------------------------

    def _moved_to(self, row: int, _column: int, before: int, _: int) -> None:
        if row >= 0 and row != before:
            self.chosen.emit(self._name(row))

    def _name(self, row: int) -> str:
        return str(self.item(row, 0).data(_NAME))

    def _row(self, name: str) -> int:
        for row in range(self.rowCount()):
            if self._name(row) == name:
                return row
        raise KeyError(name)

    def _fill(self, row: int, landmark: Landmark) -> None:
        absent = landmark.status == "absent"
        unknown = absent or math.isnan(landmark.confidence)
        color = _ABSENT_COLOR if absent else landmark_style(landmark)[0]
        sure = "" if unknown else f"{landmark.confidence:.0%}"
        texts = (short_name(landmark.name), sure, landmark.status, landmark.note)
        place = ", ".join(f"{value:.1f}" for value in landmark.position_world)
        where = landmark.name if absent else f"{landmark.name}\nat {place} (RAS mm)"
        where += "".join(f"\n{said}" for said in (landmark.status, landmark.note) if said)
        tips = (where, "", _STATUS_TIPS[landmark.status], landmark.note)
        for column, (text, tip) in enumerate(zip(texts, tips, strict=True)):
            item = self.item(row, column)
            item.setText(text)
            item.setToolTip(tip)
            item.setData(_RANK, text.lower())
            item.setForeground(QColor(_ABSENT_COLOR) if absent else self.palette().text())
        self.item(row, 1).setData(_RANK, -1.0 if unknown else landmark.confidence)
        first = self.item(row, 0)
        first.setData(_NAME, landmark.name)
        first.setIcon(dot(color))
        good = landmark.status == "by hand" or (
            landmark.status == "found" and not landmark.confidence < _SURE_ENOUGH
        )
        first.setFlags(first.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        first.setCheckState(Qt.CheckState.Checked if good else Qt.CheckState.Unchecked)


class _Cell(QTableWidgetItem):
    """A cell that is sorted by what it means, not by how it is written."""

    def __lt__(self, other: QTableWidgetItem) -> bool:
        return bool(self.data(_RANK) < other.data(_RANK))
