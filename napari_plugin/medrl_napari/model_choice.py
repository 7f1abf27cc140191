"""Which model to use: one that ships with medrl, or any bundle folder."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QWidget

from medrl_napari.widgets import models

_FOLDER = "Folder\N{HORIZONTAL ELLIPSIS}"


class ModelChoice(QComboBox):
    """A choice among the models of a system; the last entry asks for a folder."""

    chosen = Signal(str)
    """The model that is now chosen: a name or a folder."""

    def __init__(self, system: str, parent: QWidget | None = None) -> None:
        """Offer what ships.

        Args:
            system: ``landmark``, ``seednet`` or ``registration``.
            parent: The widget around it.
        """
        super().__init__(parent)
        self.setMinimumContentsLength(12)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for bundle in models(system):
            self.addItem(bundle.name, bundle.name)
            title = str(bundle.manifest["card"].get("title") or bundle.name)
            self.setItemData(self.count() - 1, title, Qt.ItemDataRole.ToolTipRole)
        self.addItem(_FOLDER)
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
