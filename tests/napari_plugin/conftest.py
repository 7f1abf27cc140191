"""Scans that lie in every way in the patient, and a napari that has a screen to be drawn on."""

import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation


def _hindrance() -> str:
    """Why there can be no window here, if so."""
    if find_spec("napari") is None:
        return "napari is not installed: pip install 'medrl[napari]'"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or shutil.which("Xvfb")):
        # Qt would end the interpreter.
        return "no screen, real or virtual: install xvfb"
    return ""


def pytest_pycollect_makemodule() -> None:
    """Skip whatever needs a window where there can be none, before it imports anything."""
    if reason := _hindrance():
        pytest.skip(reason, allow_module_level=True)


MakeScan = Callable[..., MetaTensor]


def made_scan(
    orientation: str = "RAS",
    *,
    shape: tuple[int, int, int] = (30, 36, 24),
    spacing: tuple[float, float, float] = (2.0, 1.5, 3.0),
    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
    channels: int = 1,
    seed: int = 0,
) -> MetaTensor:
    """A scan of noise whose array axes run to the given sides, turned about x, y, z."""
    directions = {"R": (1, 0, 0), "A": (0, 1, 0), "S": (0, 0, 1)}
    directions |= {a: tuple(-v for v in directions[b]) for a, b in zip("LPI", "RAS", strict=True)}
    columns = np.array([directions[letter] for letter in orientation], dtype=float).T
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    affine[:3, :3] = turn @ columns @ np.diag(spacing)
    affine[:3, 3] = (-21.0, 13.0, 8.5)
    values = np.random.default_rng(seed).uniform(0, 100, (channels, *shape)).astype(np.float32)
    return MetaTensor(torch.from_numpy(values), affine=torch.from_numpy(affine))


@pytest.fixture
def make_scan() -> MakeScan:
    """Makes scans."""
    return made_scan


class Mouse:
    """A hand on the mouse over a canvas: real Qt events, positions (x, y) in its pixels."""

    def __init__(self, qtbot) -> None:
        self._qtbot = qtbot

    def press(self, canvas, at, button="left", modifier=None) -> None:
        """Press a button."""
        self._send(canvas, "MouseButtonPress", at, button, button, modifier)

    def move(self, canvas, at, button=None, modifier=None) -> None:
        """Move, with a button held or none."""
        self._send(canvas, "MouseMove", at, None, button, modifier)
        # napari looks at the mouse every 5 ms.
        self._qtbot.wait(20)

    def release(self, canvas, at, button="left", modifier=None) -> None:
        """Let go."""
        self._send(canvas, "MouseButtonRelease", at, button, None, modifier)

    def drag(self, canvas, start, end, button="left", modifier=None, steps=3) -> None:
        """Press, move and let go."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        self.move(canvas, start, modifier=modifier)
        self.press(canvas, start, button, modifier)
        for step in range(1, steps + 1):
            self.move(canvas, start + (end - start) * step / steps, button, modifier)
        self.release(canvas, end, button, modifier)

    def click(self, canvas, at, button="left", modifier=None) -> None:
        """Press and let go."""
        self.move(canvas, at, modifier=modifier)
        self.press(canvas, at, button, modifier)
        self.release(canvas, at, button, modifier)

    def turn(self, canvas, at, notches, modifier=None) -> None:
        """Turn the wheel; away from the hand is more than 0."""
        from qtpy.QtCore import QPoint, QPointF, Qt
        from qtpy.QtGui import QWheelEvent
        from qtpy.QtWidgets import QApplication

        place = QPointF(*map(float, at))
        event = QWheelEvent(
            place,
            QPointF(canvas.mapToGlobal(place.toPoint())),
            QPoint(),
            QPoint(0, 120 * notches),
            Qt.MouseButton.NoButton,
            self._modifier(modifier),
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(canvas, event)

    def _send(self, canvas, kind, at, button, held, modifier) -> None:
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        buttons = {
            None: Qt.MouseButton.NoButton,
            "left": Qt.MouseButton.LeftButton,
            "right": Qt.MouseButton.RightButton,
            "middle": Qt.MouseButton.MiddleButton,
        }
        place = QPointF(*map(float, at))
        event = QMouseEvent(
            getattr(QEvent.Type, kind),
            place,
            QPointF(canvas.mapToGlobal(place.toPoint())),
            buttons[button],
            buttons[held],
            self._modifier(modifier),
        )
        QApplication.sendEvent(canvas, event)

    @staticmethod
    def _modifier(name):
        from qtpy.QtCore import Qt

        names = {None: "No", "shift": "Shift", "ctrl": "Control"}
        return getattr(Qt.KeyboardModifier, f"{names[name]}Modifier")


@pytest.fixture
def mouse(qtbot) -> Mouse:
    """The mouse."""
    return Mouse(qtbot)


@pytest.fixture
def open_viewer(qapp):
    """napari itself; its own fixture registers the plugins anew, which a process takes once."""
    import napari

    viewer = napari.Viewer(show=False, show_welcome_screen=False)
    yield viewer
    viewer.close()
