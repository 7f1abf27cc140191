"""A box in numbers, to be typed: its name and where its faces are."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QGridLayout, QLabel, QLineEdit, QWidget

from medrl_napari.space import Floats

_AXES = (
    ("R", "From left (less) to right (more), RAS mm"),
    ("A", "From back (less) to front (more), RAS mm"),
    ("S", "From feet (less) to head (more), RAS mm"),
)
_MOST_MM = 9999.0


class FacesForm(QWidget):
    """Name and faces of one box."""

    changed = Signal(object)
    """Other faces were typed: (2, 3) RAS mm."""
    renamed = Signal(str)
    """Another name was typed."""

    def __init__(self) -> None:
        """Show no box yet."""
        super().__init__()
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        self.name = QLineEdit()
        self.name.setPlaceholderText("no box is chosen")
        self.name.setToolTip("Name of the box; type another one to rename it")
        self.name.editingFinished.connect(self._rename)
        layout.addWidget(self.name, 0, 0, 1, 4)
        self.inputs = [[QDoubleSpinBox() for _ in _AXES] for _ in (0, 1)]
        for axis, (letter, tip) in enumerate(_AXES):
            layout.addWidget(QLabel(letter), 1 + axis, 0)
            for side, word in enumerate(("", "to")):
                made = self.inputs[side][axis]
                made.setRange(-_MOST_MM, _MOST_MM)
                made.setDecimals(1)
                made.setSuffix(" mm")
                made.setKeyboardTracking(False)
                made.setToolTip(tip)
                made.setMinimumWidth(60)
                made.valueChanged.connect(self._type)
                if word:
                    layout.addWidget(QLabel(word), 1 + axis, 2)
                layout.addWidget(made, 1 + axis, 1 + 2 * side)
        layout.setColumnStretch(1, 1)
        layout.setColumnStretch(3, 1)
        self._name = ""
        self._corners = np.zeros((2, 3))
        self.show_box(None, None)

    def show_box(self, name: str | None, corners_world: Floats | None) -> None:
        """Show another box.

        Args:
            name: What it is called; None for no box.
            corners_world: (2, 3) RAS mm.
        """
        self._name = name or ""
        self.name.setText(self._name)
        self.setEnabled(name is not None)
        if corners_world is None:
            return
        self._corners = np.array(corners_world, dtype=np.float64)
        with ExitStack() as quiet:
            for side, row in enumerate(self.inputs):
                for axis, made in enumerate(row):
                    quiet.enter_context(QSignalBlocker(made))
                    made.setValue(float(self._corners[side, axis]))

    def _type(self, _value: float) -> None:
        """Take what was typed; what was not keeps its decimals."""
        typed = np.array([[made.value() for made in row] for row in self.inputs])
        same = np.abs(typed - self._corners) < 0.0501
        self.changed.emit(np.where(same, self._corners, typed))

    def _rename(self) -> None:
        name = self.name.text().strip()
        if name and name != self._name:
            self.renamed.emit(name)
