"""The objects of a seed session as a table: colour, name, kind, size, lock."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QColorDialog, QTableWidgetItem

from medrl_napari.segment.session_state import ObjectState, State
from medrl_napari.widgets import Table, dot

COLOR, NAME, KIND, VOLUME, LOCK = range(5)
_COLUMNS = (
    ("", "Colour; double-click to choose another"),
    ("Object", "Name; double-click to change it"),
    ("Kind", "What the model takes it for"),
    ("ml", "Volume in the label map"),
    ("Lock", "A locked object cannot be changed, and no other one takes its voxels"),
)


class ObjectTable(Table):
    """A row for every object; the selected one is worked on."""

    chosen = Signal(str)
    renamed = Signal(str, str)
    locked = Signal(str, bool)
    recolored = Signal(int, str)
    """Number of the object in the label map, and its new colour (#rrggbb)."""

    def __init__(self) -> None:
        """Begin without objects."""
        super().__init__(_COLUMNS, stretch=NAME)
        self._shown: tuple[ObjectState, ...] = ()
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        self.itemSelectionChanged.connect(self._select)
        self.itemChanged.connect(self._change)
        self.cellDoubleClicked.connect(self._double_click)

    def show_state(self, state: State | None, color: Callable[[int], str]) -> None:
        """Show the objects.

        Args:
            state: The session's; None for no session.
            color: Of an object, by its number in the label map.
        """
        self._shown = state.objects if state is not None else ()
        with QSignalBlocker(self):
            self.setRowCount(len(self._shown))
            for row, one in enumerate(self._shown):
                self._fill(row, one, color(row + 1))
            if state is not None and state.number:
                self.selectRow(state.number - 1)
            else:
                self.clearSelection()

    def _fill(self, row: int, one: ObjectState, color: str) -> None:
        picture = QTableWidgetItem()
        picture.setIcon(dot(color))
        picture.setFlags(picture.flags() & ~Qt.ItemFlag.ItemIsEditable)
        self.setItem(row, COLOR, picture)
        self.setItem(row, NAME, QTableWidgetItem(one.name))
        for column, text in ((KIND, one.target), (VOLUME, f"{one.volume_ml:.2f}"), (LOCK, "")):
            item = QTableWidgetItem(text)
            item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            self.setItem(row, column, item)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        self.item(row, VOLUME).setTextAlignment(right)
        lock = self.item(row, LOCK)
        lock.setFlags(lock.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        lock.setCheckState(Qt.CheckState.Checked if one.locked else Qt.CheckState.Unchecked)

    def _select(self) -> None:
        row = self.currentRow()
        if self.selectedItems() and 0 <= row < len(self._shown):
            self.chosen.emit(self._shown[row].name)

    def _change(self, item: QTableWidgetItem) -> None:
        if item.row() >= len(self._shown):
            return
        one = self._shown[item.row()]
        if item.column() == NAME and item.text().strip() != one.name:
            self.renamed.emit(one.name, item.text().strip())
        elif item.column() == LOCK:
            locked = item.checkState() == Qt.CheckState.Checked
            if locked != one.locked:
                self.locked.emit(one.name, locked)

    def _double_click(self, row: int, column: int) -> None:
        if column == COLOR:
            color = QColorDialog.getColor(parent=self)
            if color.isValid():
                self.recolored.emit(row + 1, color.name())
