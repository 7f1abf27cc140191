"""What was found in a scan as a table: how sure each item is, and which go into a datalist."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QResizeEvent
from qtpy.QtWidgets import QHeaderView, QTableWidgetItem

from medrl_napari.search.kind import Kind
from medrl_napari.widgets import Table, dot

_NAME, _RANK = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1
_STATUS, _NOTE = 2, 3
#: Narrower tables have no room for these columns (pixels): colour and tip tell the same.
_ROOM = {_STATUS: 280, _NOTE: 380}
#: What is at least this sure goes into a datalist unless it is unticked.
_SURE_ENOUGH = 0.5
#: How far each key goes down the table.
STEP_KEYS = {Qt.Key.Key_N: 1, Qt.Key.Key_P: -1}
_ABSENT_COLOR = "#7a828c"


class FoundTable(Table):
    """Items, one a row; sorted by a click on a column's head.

    A ticked item goes into a datalist. At first those are ticked that the model is sure of,
    and those placed by hand.
    """

    chosen = Signal(str)
    """An item was clicked, or moved to with the keys."""

    def __init__(self, kind: Kind) -> None:
        """Show nothing yet.

        Args:
            kind: What the items are.
        """
        columns = (
            (kind.one.capitalize(), "Tick: goes into the datalist with Save corrections"),
            ("Sure", f"Probability that {kind.sure}"),
            ("Status", ", ".join(kind.meanings)),
            ("Note", "What is unusual"),
        )
        super().__init__(columns, stretch=0)
        self._kind = kind
        head = self.horizontalHeader()
        head.setSectionResizeMode(_NOTE, QHeaderView.ResizeMode.Interactive)
        head.setSortIndicator(0, Qt.SortOrder.AscendingOrder)
        self.currentCellChanged.connect(self._moved_to)
        self.cellClicked.connect(lambda row, _: self.chosen.emit(self._name(row)))

    def show_items(self, items: Sequence[Any]) -> None:
        """Show other items."""
        with QSignalBlocker(self):
            self.setSortingEnabled(False)
            self.clearSelection()
            self.setRowCount(len(items))
            for row, item in enumerate(items):
                for column in range(self.columnCount()):
                    self.setItem(row, column, _Cell())
                self._fill(row, item)
            self.setCurrentCell(-1, -1)
            self.setSortingEnabled(True)

    def renew_items(self, items: Sequence[Any]) -> None:
        """Show other items; those that were there stay ticked or not."""
        there, ticked = self.names, self.ticked
        self.show_items(items)
        for name in set(there) & set(self.names):
            state = Qt.CheckState.Checked if name in ticked else Qt.CheckState.Unchecked
            self.item(self._row(name), 0).setCheckState(state)

    def update_item(self, item: Any) -> None:
        """Show an item that has changed, on its row."""
        with QSignalBlocker(self):
            self.setSortingEnabled(False)
            self._fill(self._row(item.name), item)
            self.setSortingEnabled(True)
        self.viewport().update()

    @property
    def current(self) -> str | None:
        """The item of the current row."""
        row = self.currentRow()
        return self._name(row) if row >= 0 and self.selectedItems() else None

    @property
    def names(self) -> tuple[str, ...]:
        """All items, in the table's order."""
        return tuple(self._name(row) for row in range(self.rowCount()))

    @property
    def ticked(self) -> tuple[str, ...]:
        """The items that go into a datalist, in the table's order."""
        return tuple(
            self._name(row)
            for row in range(self.rowCount())
            if self.item(row, 0).checkState() == Qt.CheckState.Checked
        )

    def text_of(self, name: str) -> tuple[str, ...]:
        """What stands on an item's row."""
        row = self._row(name)
        return tuple(self.item(row, column).text() for column in range(self.columnCount()))

    def choose(self, name: str, *, quietly: bool = False) -> None:
        """Make an item the current one.

        Args:
            name: Which.
            quietly: Tell nobody.
        """
        with QSignalBlocker(self) if quietly else nullcontext():
            self.setCurrentCell(self._row(name), 0)
        self.viewport().update()

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

    def _fill(self, row: int, item: Any) -> None:
        kind, absent = self._kind, item.status == "absent"
        unknown = absent or math.isnan(item.confidence)
        color = _ABSENT_COLOR if absent else kind.color(item)
        sure = "" if unknown else f"{item.confidence:.0%}"
        texts = (kind.title(item.name), sure, item.status, item.note)
        where = item.name if absent else f"{item.name}\n{kind.where(item)} (RAS mm)"
        where += "".join(f"\n{said}" for said in (item.status, item.note) if said)
        tips = (where, "", kind.meanings[item.status], item.note)
        for column, (text, tip) in enumerate(zip(texts, tips, strict=True)):
            cell = self.item(row, column)
            cell.setText(text)
            cell.setToolTip(tip)
            cell.setData(_RANK, text.lower())
            cell.setForeground(QColor(_ABSENT_COLOR) if absent else self.palette().text())
        self.item(row, 1).setData(_RANK, -1.0 if unknown else item.confidence)
        first = self.item(row, 0)
        first.setData(_NAME, item.name)
        first.setIcon(dot(color))
        good = item.status == "by hand" or (
            item.status == "found" and not item.confidence < _SURE_ENOUGH
        )
        first.setFlags(first.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        first.setCheckState(Qt.CheckState.Checked if good else Qt.CheckState.Unchecked)


class _Cell(QTableWidgetItem):
    """A cell that is sorted by what it means, not by how it is written."""

    def __lt__(self, other: QTableWidgetItem) -> bool:
        return bool(self.data(_RANK) < other.data(_RANK))
