"""Buttons and a slider for looking at two scans over each other."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QGridLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from medrl_napari.register.blend import VIEWS, Comparison, View
from medrl_napari.widgets import button, row

_TITLES: dict[View, tuple[str, str]] = {
    "blend": ("Blend", "Both in colours: white where they agree, green or magenta where not"),
    "checkerboard": ("Checker", "Squares of either: edges should go on from one to the next"),
    "flicker": ("Flicker", "One after the other: what jumps does not fit"),
    "fixed": ("Fixed", "The fixed scan alone"),
    "moving": ("Moving", "The moving scan alone, where it was brought"),
}
#: What the slider sets in each view: its ends, where it begins, its unit, and what it is called.
_SLIDERS: dict[View, tuple[int, int, int, float, str, str]] = {
    "blend": (0, 100, 50, 0.01, "fixed \N{LEFT RIGHT ARROW} moving", "{:.0%}"),
    "checkerboard": (4, 80, 30, 1.0, "squares", "{:.0f} mm"),
    "flicker": (1, 20, 5, 0.1, "every", "{:.1f} s"),
}


class CompareBar(QWidget):
    """How two scans are compared, chosen by the user."""

    changed = Signal()
    """The view or its setting is another one."""
    turned = Signal()
    """It is the other scan's turn to be seen."""

    def __init__(self, parent: QWidget | None = None) -> None:
        """Begin with the blend."""
        super().__init__(parent)
        self._steps = {view: slider[2] for view, slider in _SLIDERS.items()}
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.turned)
        self.buttons: dict[View, QPushButton] = {}
        ways = QGridLayout()
        ways.setSpacing(2)
        group = QButtonGroup(self)
        for number, view in enumerate(VIEWS):
            made = button(*_TITLES[view], self._choose)
            made.setCheckable(True)
            group.addButton(made)
            # Two ways to see one scan below three to see both; a row of five is too wide.
            below, column = divmod(number, 3)
            ways.addWidget(made, below, 2 * column + below, 1, 2)
            self.buttons[view] = made
        self.slider = QSlider(Qt.Orientation.Horizontal, self)
        self.slider.valueChanged.connect(self._set)
        self._what, self._how_much = QLabel(self), QLabel(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(ways)
        layout.addLayout(row(self._what, self.slider, self._how_much, stretch=(0, 1, 0)))
        self.buttons["blend"].setChecked(True)
        self._choose()

    @property
    def view(self) -> View:
        """The chosen view."""
        return next(view for view, button in self.buttons.items() if button.isChecked())

    def give(self, comparison: Comparison) -> None:
        """Set a comparison as chosen."""
        comparison.set(
            view=self.view,
            share=self._value("blend"),
            square_mm=self._value("checkerboard"),
        )

    def stop(self) -> None:
        """Flicker no more: there is nothing to see."""
        self._timer.stop()

    def start(self) -> None:
        """Flicker, if that is what is chosen."""
        if self.view == "flicker":
            self._timer.start(round(1000 * self._value("flicker")))
        else:
            self._timer.stop()

    def _choose(self) -> None:
        view = self.view
        known = _SLIDERS.get(view)
        for widget in (self.slider, self._what, self._how_much):
            widget.setEnabled(known is not None)
        if known is not None:
            low, high, _, _, what, _ = known
            with QSignalBlocker(self.slider):
                self.slider.setRange(low, high)
                self.slider.setValue(self._steps[view])
            self._what.setText(what)
        self._tell()
        self.start()
        self.changed.emit()

    def _set(self, value: int) -> None:
        self._steps[self.view] = value
        self._tell()
        self.start()
        self.changed.emit()

    def _tell(self) -> None:
        view = self.view
        text = _SLIDERS[view][5].format(self._value(view)) if view in _SLIDERS else ""
        self._how_much.setText(text)

    def _value(self, view: View) -> float:
        return self._steps[view] * _SLIDERS[view][3]
