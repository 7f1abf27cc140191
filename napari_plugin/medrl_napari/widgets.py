"""Parts that several widgets are made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QToolButton,
    QWidget,
)

from medrl import systems
from medrl.bundles import available
from medrl_napari.scans import is_scan

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer
    from qtpy.QtGui import QResizeEvent

_Button = TypeVar("_Button", QPushButton, QToolButton)
_COLORS = {"say": "", "warn": "color: #ffd43b", "error": "color: #ff6b6b"}
_FOLDER = "Folder\N{HORIZONTAL ELLIPSIS}"
#: Rows that a table has room for at the least.
_FEWEST_ROWS = 4


def button(text: str, tip: str, press: Callable[[], Any] | None = None) -> QPushButton:
    """A button that does something when it is pressed."""
    return _prepared(QPushButton(text), tip, press)


def tool_button(text: str, tip: str, press: Callable[[], Any] | None = None) -> QToolButton:
    """A small one."""
    made = QToolButton()
    made.setText(text)
    return _prepared(made, tip, press)


def _prepared(made: _Button, tip: str, press: Callable[[], Any] | None) -> _Button:
    made.setToolTip(tip)
    if press is not None:
        # Without what the signal says: whether the button is down.
        made.clicked.connect(lambda _down=False: press())
    return made


def row(*parts: QWidget | None, stretch: Sequence[int] = ()) -> QHBoxLayout:
    """Widgets beside one another; None takes the room that is left."""
    layout = QHBoxLayout()
    layout.setSpacing(4)
    for number, part in enumerate(parts):
        if part is None:
            layout.addStretch(1)
        else:
            layout.addWidget(part, stretch[number] if stretch else 0)
    return layout


def dot(color: str) -> QIcon:
    """A disc of a colour."""
    pixmap = QPixmap(12, 12)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(color))
    painter.drawEllipse(1, 1, 10, 10)
    painter.end()
    return QIcon(pixmap)


class Choice(QComboBox):
    """A choice as wide as there is room, not as its longest entry."""

    def __init__(self, parent: QWidget | None = None) -> None:
        """Offer nothing yet."""
        super().__init__(parent)
        self.setMinimumWidth(80)
        self.setMinimumContentsLength(6)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)


class LayerChoice(Choice):
    """A choice among the layers of a viewer that follows what happens to them."""

    chosen = Signal(object)
    """The layer that is now chosen, or None."""

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        *,
        wanted: Callable[[Layer], bool],
        none: str | None = None,
        tip: str = "",
    ) -> None:
        """Fill it, and follow the viewer.

        Args:
            viewer: The viewer.
            wanted: Which layers to offer.
            none: What to call the choice of no layer; without it there is none.
            tip: What it is for.
        """
        super().__init__()
        self._viewer = viewer
        self._wanted = wanted
        self._none = none
        self._layers: list[Layer | None] = []
        self.setToolTip(tip)
        layers = viewer.layers
        for event in (layers.events.inserted, layers.events.removed, layers.events.reordered):
            event.connect(self._refill)
        self.currentIndexChanged.connect(lambda _: self.chosen.emit(self.layer))
        self._refill()

    @property
    def layer(self) -> Layer | None:
        """The chosen layer, if there is one."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        if layer in self._layers:
            self.setCurrentIndex(self._layers.index(layer))

    def release(self) -> None:
        """Follow the viewer no more."""
        layers = self._viewer.layers
        for event in (layers.events.inserted, layers.events.removed, layers.events.reordered):
            event.disconnect(self._refill)
        for layer in self._layers:
            if layer is not None:
                layer.events.name.disconnect(self._refill)

    def _refill(self, _event: Any = None) -> None:
        before = self.layer
        for layer in self._layers:
            if layer is not None:
                layer.events.name.disconnect(self._refill)
        there: list[Layer | None] = [la for la in reversed(self._viewer.layers) if self._wanted(la)]
        for layer in there:
            if layer is not None:
                layer.events.name.connect(self._refill)
        self._layers = [None, *there] if self._none is not None else there
        with QSignalBlocker(self):
            self.clear()
            self.addItems([str(self._none) if la is None else la.name for la in self._layers])
            self.setCurrentIndex(self._layers.index(before) if before in self._layers else 0)
        if self.layer is not before:
            self.chosen.emit(self.layer)


def is_mask(layer: Layer) -> bool:
    """Whether a layer is a 3D mask or label map."""
    from napari.layers import Labels

    return isinstance(layer, Labels) and layer.ndim == 3


class ModelChoice(Choice):
    """A choice among the models of a task that ship; the last entry asks for a folder."""

    chosen = Signal(str)
    """The model that is now chosen: a name or a folder."""

    def __init__(self, task: str | None, *, system: str | None = None) -> None:
        """Offer what ships; what a system uses unless told otherwise is chosen.

        Args:
            task: Of the models, as their manifests name it; None for all.
            system: Which puts them to use; the task's own if left out.
        """
        super().__init__()
        for bundle in available():
            if task in (None, bundle.manifest["task"]):
                self.addItem(bundle.name, bundle.name)
                title = str(bundle.manifest["card"].get("title") or bundle.name)
                self.setItemData(self.count() - 1, title, Qt.ItemDataRole.ToolTipRole)
        self.addItem(_FOLDER)
        user = system or task
        usual = None if user is None else systems.get(user).default_model
        self.setCurrentIndex(0 if usual is None else max(self.findData(usual), 0))
        self._before = self.currentIndex()
        self.activated.connect(self._choose)

    @property
    def model(self) -> str:
        """Name or folder of the chosen model; empty if there is none."""
        return str(self.currentData() or "")

    @model.setter
    def model(self, name_or_dir: str) -> None:
        index = self.findData(name_or_dir)
        if index < 0:
            index = self.count() - 1
            self.insertItem(index, Path(name_or_dir).name, name_or_dir)
            self.setItemData(index, name_or_dir, Qt.ItemDataRole.ToolTipRole)
        self.setCurrentIndex(index)
        self._before = index
        self.chosen.emit(self.model)

    def _choose(self, index: int) -> None:
        if self.itemData(index) is not None:
            self._before = index
            self.chosen.emit(self.model)
            return
        folder = QFileDialog.getExistingDirectory(self, "Folder of a model")
        if folder:
            self.model = folder
        else:
            self.setCurrentIndex(self._before)


class LayerChoices(QWidget):
    """A model, and which layers its agents work on."""

    changed = Signal()
    """Another layer is chosen, or other ones are asked for."""

    def __init__(
        self, viewer: napari.viewer.Viewer, task: str | None, *, system: str | None = None
    ) -> None:
        """Ask for the model alone.

        Args:
            viewer: Whose scans are offered.
            task: Of the models; None for all.
            system: Which puts them to use; the task's own if left out.
        """
        super().__init__()
        self._viewer = viewer
        self.model = ModelChoice(task, system=system)
        self.choices: dict[str, LayerChoice] = {}
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setVerticalSpacing(3)
        self._form.addRow("Model", self.model)

    @property
    def layers(self) -> dict[str, Image]:
        """The chosen layers by what they are for, in the order in which they are asked for."""
        chosen = {name: choice.layer for name, choice in self.choices.items()}
        return {name: cast("Image", layer) for name, layer in chosen.items() if layer is not None}

    def ask(self, titles: Mapping[str, str], *, optional: Collection[str] = ()) -> None:
        """Ask for layers; what is asked for already stays as it is chosen.

        Args:
            titles: What to call each, by what it is for.
            optional: Which may be none.
        """
        if list(self.choices) != list(titles):
            self.release()
            while self._form.rowCount() > 1:
                self._form.removeRow(1)
            for number, (name, title) in enumerate(titles.items()):
                none = "none" if name in optional else None
                tip = f"The layer with the {name}"
                choice = LayerChoice(self._viewer, wanted=is_scan, none=none, tip=tip)
                # The uppermost scan for the first, the one below it for the next.
                choice.setCurrentIndex(0 if none else min(number, choice.count() - 1))
                choice.chosen.connect(lambda _layer: self.changed.emit())
                self.choices[name] = choice
                self._form.addRow(title, choice)
        self.changed.emit()

    def release(self) -> None:
        """Follow the viewer no more."""
        for choice in self.choices.values():
            choice.release()
        self.choices = {}


class StatusLine(QLabel):
    """One line, or a few, that say how things stand."""

    def __init__(self) -> None:
        """Say nothing."""
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

    def say(self, text: str) -> None:
        """Tell how it goes."""
        self._set("say", text)

    def warn(self, text: str) -> None:
        """Tell what the user should look at."""
        self._set("warn", text)

    def tell(self, text: str, remarks: Sequence[str], *, doubt: str | None = None) -> None:
        """Tell how it went, and what the user should look at, if there is anything.

        Args:
            text: How it went.
            remarks: What the user should know of it.
            doubt: Why nobody should rely on it; comes before all else.
        """
        first = [f"Not to be relied on: {doubt}."] if doubt else []
        lines = [*first, text, *(f"{line[0].upper()}{line[1:]}." for line in remarks if line)]
        self._set("warn" if len(lines) > 1 else "say", "\n".join(lines))

    def error(self, text: str) -> None:
        """Tell what went wrong."""
        self._set("error", text)

    def _set(self, kind: str, text: str) -> None:
        self.setStyleSheet(_COLORS[kind])
        self.setText(text)


class ProgressLine(QProgressBar):
    """A thin bar that keeps its place while it is hidden."""

    def __init__(self) -> None:
        """Hidden."""
        super().__init__()
        self.setTextVisible(False)
        self.setFixedHeight(6)
        policy = self.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.setSizePolicy(policy)
        self.hide()

    def show_progress(self, done: int, total: int) -> None:
        """How much is done.

        Never Qt's endless bar: where OpenGL is slow, its animation costs the agents their time.
        """
        # Drawn with what comes next: the bar by itself draws the whole window at once, slowly.
        self.setUpdatesEnabled(False)
        self.setRange(0, total)
        self.setValue(done)
        self.setUpdatesEnabled(True)


class Table(QTableWidget):
    """A table of lines, as wide as there is room: what does not fit is cut with dots."""

    def __init__(self, columns: Sequence[tuple[str, str]], *, stretch: int | None) -> None:
        """Show nothing yet.

        Args:
            columns: Title and tip of each.
            stretch: Which column takes the room that the others leave; None for none: then one
                scrolls to those that do not fit.
        """
        super().__init__(0, len(columns))
        self.setHorizontalHeaderLabels([title for title, _ in columns])
        for number, (_, tip) in enumerate(columns):
            self.horizontalHeaderItem(number).setToolTip(tip)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        policy = Qt.ScrollBarPolicy
        scrolls = policy.ScrollBarAlwaysOff if stretch is not None else policy.ScrollBarAlwaysOn
        self.setHorizontalScrollBarPolicy(scrolls)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerItem)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 8)
        head = self.horizontalHeader()
        head.setMinimumSectionSize(24)
        head.setHighlightSections(False)
        head.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        head.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        if stretch is not None:
            head.setSectionResizeMode(stretch, QHeaderView.ResizeMode.Stretch)

    def height_of(self, rows: int) -> int:
        """How high it must be to show so many rows."""
        frame = 2 * self.frameWidth()
        rest = self.horizontalHeader().sizeHint().height() + frame
        if self.horizontalScrollBarPolicy() != Qt.ScrollBarPolicy.ScrollBarAlwaysOff:
            rest += self.horizontalScrollBar().sizeHint().height()
        return int(rest + rows * self.verticalHeader().defaultSectionSize())


class WholeRows(QWidget):
    """Shows a table at a height at which no row is cut."""

    def __init__(self, table: Table) -> None:
        """Hold a table."""
        super().__init__()
        self._table = table
        table.setParent(self)
        self.setMinimumHeight(table.height_of(_FEWEST_ROWS))
        self.setMinimumWidth(120)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Give the table the room that whole rows take."""
        height = self._table.verticalHeader().defaultSectionSize()
        rows = (self.height() - self._table.height_of(0)) // height
        self._table.setGeometry(0, 0, self.width(), self._table.height_of(max(rows, 0)))
        super().resizeEvent(event)
