"""Names to choose some of: a list to tick, with a filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import (
    QGridLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QSizePolicy,
    QWidget,
)

from medrl_napari.widgets import tool_button

_NAME = Qt.ItemDataRole.UserRole
_ROWS = 6
_ENTER = (Qt.Key.Key_Return, Qt.Key.Key_Enter)


class TickList(QWidget):
    """A list of names to tick; all are at first."""

    accepted = Signal()
    """Enter was pressed."""

    def __init__(self, what: str, *, label: Callable[[str], str] = str) -> None:
        """Offer nothing yet.

        Args:
            what: What the names are of, in the plural.
            label: What is shown for a name.
        """
        super().__init__()
        self._what, self._label = what, label
        self.filter = QLineEdit()
        self.filter.setClearButtonEnabled(True)
        self.filter.setToolTip(f"Show only {what} whose name contains this")
        self.filter.textChanged.connect(self._filter)
        self.filter.returnPressed.connect(self.accepted)
        self.list = QListWidget()
        self.list.setToolTip("Tick what is wanted (Space). Enter starts.")
        self.list.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Maximum)
        self.list.setUniformItemSizes(True)
        self.list.installEventFilter(self)
        self.all = tool_button("All", "Tick all that are listed", lambda: self._tick(True))
        self.none = tool_button("None", "Untick all that are listed", lambda: self._tick(False))
        self.list.itemChanged.connect(lambda _: self._count())
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.filter, 0, 0)
        layout.addWidget(self.all, 0, 1)
        layout.addWidget(self.none, 0, 2)
        layout.addWidget(self.list, 1, 0, 1, 3)
        self.offer(())

    @property
    def names(self) -> tuple[str, ...]:
        """The ticked names, in the list's order, whether the filter shows them or not."""
        return tuple(str(it.data(_NAME)) for it in self._items() if _is_ticked(it))

    def offer(self, names: Sequence[str]) -> None:
        """Fill the list with names, all of them ticked."""
        self.list.clear()
        for name in names:
            item = QListWidgetItem(self._label(name))
            item.setData(_NAME, name)
            item.setToolTip(name)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked)
            self.list.addItem(item)
        height = self.list.sizeHintForRow(0) if names else self.fontMetrics().height()
        self.list.setFixedHeight(_ROWS * max(height, 1) + 2 * self.list.frameWidth() + 2)
        self.filter.clear()
        self._count()

    def tick(self, names: Sequence[str]) -> None:
        """Tick these, and no others."""
        for item in self._items():
            wanted = item.data(_NAME) in names
            item.setCheckState(Qt.CheckState.Checked if wanted else Qt.CheckState.Unchecked)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Take Enter in the list; the other keys are the list's own."""
        entered = event.type() == QEvent.Type.KeyPress and event.key() in _ENTER
        if watched is self.list and entered:
            self.accepted.emit()
            return True
        return bool(super().eventFilter(watched, event))

    def _items(self) -> list[QListWidgetItem]:
        return [self.list.item(row) for row in range(self.list.count())]

    def _filter(self, text: str) -> None:
        for item in self._items():
            wanted = text.strip().lower()
            names = f"{item.text()} {item.data(_NAME)}".lower()
            item.setHidden(wanted not in names)

    def _tick(self, state: bool) -> None:
        for item in self._items():
            if not item.isHidden():
                item.setCheckState(Qt.CheckState.Checked if state else Qt.CheckState.Unchecked)

    def _count(self) -> None:
        self.filter.setPlaceholderText(
            f"{self._what}: {len(self.names)} of {self.list.count()} ticked"
        )


def _is_ticked(item: QListWidgetItem) -> bool:
    return bool(item.checkState() == Qt.CheckState.Checked)
