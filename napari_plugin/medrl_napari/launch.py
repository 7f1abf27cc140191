"""napari with a scan and what belongs to it, ready to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication

from medrl.files import atomic_path
from medrl_napari.points import layer_positions_world
from medrl_napari.readers import read_layers
from medrl_napari.scans import KEY, add, center_views, frame_of_viewer, scan_layers
from medrl_napari.views.widget import OrthoViews

#: As the Plugins menu calls it, so that it finds the dock that is there already.
VIEWS_TITLE = "Orthogonal views (medrl)"
_VIEWS_WIDTH = 460
_SIZE = (1400, 900)
#: How long a picture waits for the window at the most.
_PATIENCE_MS = 10_000


def open_viewer(files: Sequence[Path]) -> tuple[napari.Viewer, OrthoViews]:
    """Open files in a new viewer, with the linked views beside it.

    Args:
        files: Scan first, then what lies on top of it: masks, points, agents' paths.

    Returns:
        The viewer, with its window on the screen, and the views.

    Raises:
        MedrlError: If a file cannot be read; no window is left then.
    """
    viewer = napari.Viewer(show=False, title=f"{files[0].name} - medrl")
    try:
        for path in files:
            for layer in read_layers(str(path)):
                if layer[0] is not None:
                    add(viewer, layer)
    except Exception:
        viewer.close()
        raise
    viewer.window.resize(*_SIZE)
    views = dock_views(viewer)
    middle = middle_of_points(viewer)
    if middle is not None:
        center_views(viewer, middle)
    viewer.show()
    # Only now, when the window lays itself out, does the canvas get its size.
    QTimer.singleShot(0, viewer.fit_to_view)
    return viewer, views


def dock_views(viewer: napari.Viewer) -> OrthoViews:
    """Dock the linked views at the right of a viewer."""
    views = OrthoViews(viewer)
    dock = viewer.window.add_dock_widget(views, name=VIEWS_TITLE, area="right")
    viewer.window._qt_window.resizeDocks([dock], [_VIEWS_WIDTH], Qt.Orientation.Horizontal)
    return views


def middle_of_points(viewer: napari.Viewer) -> NDArray[np.float64] | None:
    """The middle of all landmarks in a viewer, (3,) in napari's world; of its scan without any."""
    found = [_places(layer) for layer in viewer.layers]
    places = np.concatenate([np.empty((0, 3)), *found])
    if len(places):
        # One that lies far off, such as an agent that left the scan, does not matter.
        return frame_of_viewer(viewer).to_napari(np.median(places, axis=0))
    scans = scan_layers(viewer)
    return np.asarray(np.mean(scans[-1].extent.world, axis=0)) if scans else None


def save_screenshot(path: Path, viewer: napari.Viewer, views: OrthoViews) -> None:
    """Write a picture of the whole window as PNG, once all views have been drawn.

    Raises:
        MedrlError: If it cannot be written.
    """
    wait = QEventLoop()
    patience, look = QTimer(), QTimer()
    patience.setSingleShot(True)
    patience.timeout.connect(wait.quit)
    look.timeout.connect(lambda: wait.quit() if views.up_to_date else None)
    patience.start(_PATIENCE_MS)
    look.start(50)
    wait.exec_() if hasattr(wait, "exec_") else wait.exec()
    look.stop()
    QApplication.processEvents()
    with atomic_path(path) as temporary:
        viewer.window.screenshot(str(temporary), canvas_only=False, flash=False)


def run() -> None:
    """Hand over to the user, until the window is closed."""
    napari.run()


def _places(layer: Any) -> NDArray[np.float64]:
    """Landmarks (P, 3) that a layer holds, RAS mm: points, middles of boxes, agents' answers."""
    known = layer.metadata.get(KEY)
    if not isinstance(known, dict):
        return np.empty((0, 3))
    if known.get("kind") == "agents":
        answers = [a.answer_world for a in known["trajectory"].agents if a.answer_world is not None]
        return np.array(answers).reshape(-1, 3)
    if known.get("kind") == "boxes" and "view" in known:
        corners = known["view"].boxes_world.values()
        return np.array([box.mean(axis=0) for box in corners]).reshape(-1, 3)
    if known.get("kind") in ("landmarks", "seeds"):
        return layer_positions_world(layer, known["frame"])
    return np.empty((0, 3))
