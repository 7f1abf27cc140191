"""How long a user of the napari plugin waits from a click to the frame that shows its answer.

The MNI152 head of nilearn in a real napari window, a seed placed by mouse events on the canvas, and
the clock stopped when the canvas has drawn the mask that answers it. Each click contradicts what
the mask says there. The window that the model looks at is 40^3 and 64^3 voxels; limits keep it from
growing. A virtual screen draws (Mesa's llvmpipe), so the processor does the graphics card's work.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import napari
import numpy as np
from evaluation.results import RESULTS, print_table, save
from pyvirtualdisplay import Display
from qtpy.QtCore import QObject, QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

import medrl
from medrl.bundles import find
from medrl.cli.demo import write_template
from medrl.evaluation import summarize
from medrl.seednet.model import SeedModel
from medrl.seednet.segment import SeedSegmenter
from medrl_napari.scans import add, center_views, image_layer, show
from medrl_napari.segment import operations
from medrl_napari.segment import session_panel as segment
from medrl_napari.segment.widget import SegmentWidget

CLAIM = "napari shows the answer to a click (software rendering)"
SIZES = (40, 64)
#: Milliseconds that an answer may take to the screen.
TARGETS = {40: 150.0, 64: 400.0}
#: In the left hippocampus of the template, RAS mm.
CLICK_WORLD = np.array([-25.5, -21.0, -14.0])
CLICKS = 12


class User(QObject):
    """Clicks, and waits for the frame."""

    def __init__(self, viewer: napari.Viewer, widget: SegmentWidget) -> None:
        super().__init__()
        self.viewer, self.widget = viewer, widget
        self.canvas = viewer.window._qt_viewer.canvas
        self._answered = False
        self._drawn = 0.0
        # After napari's own, so the frame is complete.
        self.canvas._scene_canvas.events.draw.connect(self._note_frame, position="last")

    def watch(self) -> None:
        """Notice answers; the widget has seen each by then."""
        self.widget._thread.stated.connect(self._note_answer)

    def go_to(self, point_world: np.ndarray) -> None:
        """Show the slice of a point, large."""
        there = self.widget._annotation.shown.frame.to_napari(point_world)
        center_views(self.viewer, there)
        self.viewer.scene.camera.center = tuple(there)
        self.viewer.scene.camera.zoom = 8
        for _ in range(20):
            QApplication.processEvents()

    def click(self, point_world: np.ndarray, *, shift: bool) -> float:
        """Click; milliseconds until the frame with the answer is drawn."""
        self._answered, self._drawn = False, 0.0
        modifier = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        there = self.widget._annotation.shown.frame.to_napari(point_world)[[1, 2]]
        x, y = self.canvas.view.scene.transform.map([*there[::-1], 0])[:2]
        begin = time.perf_counter()
        QTest.mouseClick(
            self.canvas.native, Qt.MouseButton.LeftButton, modifier, QPoint(round(x), round(y))
        )
        wait(lambda: self._drawn > 0)
        return 1000 * (self._drawn - begin)

    def settle(self) -> None:
        """Wait for the agent's proposal."""
        wait(lambda: not self.widget._seeds.pending and self.widget.next.text() != "…")

    def _note_answer(self, *_: Any) -> None:
        self._answered = True

    def _note_frame(self, _event: Any) -> None:
        if self._answered and not self._drawn:
            self._drawn = time.perf_counter()


def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Let Qt work until something is so.

    Raises:
        RuntimeError: If it is not so in time.
    """
    end = time.perf_counter() + seconds
    while not condition():
        QApplication.processEvents()
        # As Qt's own loop does when nothing happens; else the work would wait for this thread.
        time.sleep(0.001)
        if time.perf_counter() > end:
            raise RuntimeError("the answer did not come")


def measure(side: int, head: Path, clicks: int) -> dict[str, Any]:
    """Milliseconds from click to frame with a window of one size."""
    model, manifest = SeedModel.load(find("hippocampus-t1"))
    model = SeedModel(replace(model.settings, half_width=side // 2), model.network)
    segment.load_model = lambda _: SeedSegmenter(model, manifest=manifest)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1200, 900)
    add(viewer, image_layer(show(medrl.read(head)), name="head"))
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    widget.start.click()
    wait(lambda: widget._seeds.state is not None)
    user = User(viewer, widget)
    user.watch()
    user.go_to(CLICK_WORLD)
    widget.new_object.click()
    wait(lambda: bool(widget._seeds.state.objects))
    room = side / 2 - 2.5
    limits = np.stack([CLICK_WORLD - room, CLICK_WORLD + room])
    widget._put(operations.plain(lambda session: session.set_limits(limits)))
    wait(lambda: widget._seeds.state.can_undo)
    windows: list[list[int]] = []
    first = user.click(CLICK_WORLD, shift=False)
    user.settle()
    figures: dict[str, list[float]] = {"idle": [], "while it proposes": []}
    # No voxel twice: the second seed would contradict the first.
    places = np.argwhere(np.ones((9, 9))) * 2.0 - 8.0
    places = np.random.default_rng(0).permutation(places[np.abs(places).max(axis=1) > 0])
    for number, (x, y) in enumerate(places[: 2 * clicks]):
        where = CLICK_WORLD + np.array([x, y, 0.0])
        voxel = np.round(np.linalg.inv(affine_of(widget)) @ [*where, 1])[:3]
        i, j, k = voxel.astype(int)
        mask = widget._annotation.shown.to_scan_grid(
            np.asarray(widget._annotation.layers.objects.data)
        )
        kind = "idle" if number % 2 == 0 else "while it proposes"
        if kind == "idle":
            user.settle()
        figures[kind].append(user.click(where, shift=bool(mask[i, j, k])))
    user.settle()
    widget._put(operations.plain(lambda session: windows.append(_window(session))))
    wait(lambda: bool(windows))
    thread = widget._thread
    viewer.close()
    wait(lambda: not thread.working)
    return {
        "window": windows[0],
        "first_click_ms": first,
        "click_ms": {kind: summarize(values) for kind, values in figures.items()},
        "target_ms": TARGETS[side],
    }


def affine_of(widget: SegmentWidget) -> np.ndarray:
    """Voxel of the scan to world."""
    return np.asarray(widget._annotation.shown.scan.affine)


def _window(session: Any) -> list[int]:
    low, high = session._segmented().box
    return [b - a for a, b in zip(low, high, strict=True)]


def measured(result: dict[str, Any]) -> str:
    """Milliseconds from click to frame."""
    return "; ".join(
        f"{side}^3: {f['click_ms']['idle']['median']:.0f} ms (target {f['target_ms']:.0f})"
        for side, f in result["sizes"].items()
    )


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clicks", type=int, default=CLICKS, help="of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS / "napari_segment.json")
    options = parser.parse_args()
    screen = Display(visible=False, size=(1280, 1024))
    with screen, tempfile.TemporaryDirectory() as folder:
        os.environ["MEDRL_DATA_DIR"] = folder
        head = Path(folder) / "head.nii.gz"
        write_template(head)
        sizes = {str(side): measure(side, head, options.clicks) for side in SIZES}
    rows: list[list[object]] = []
    for side, f in sizes.items():
        idle, busy = f["click_ms"]["idle"], f["click_ms"]["while it proposes"]
        own = [idle["median"], idle["p95"], busy["median"], busy["p95"], f["first_click_ms"]]
        rows.append([f"{side}^3", *own, f["target_ms"]])
    header = ["window", "click, ms", "95 %", "while proposing", "95 %", "first click", "target"]
    print_table(header, rows)
    save(options.out, {"model": "hippocampus-t1", "sizes": sizes}, {CLAIM: measured})


if __name__ == "__main__":
    main()
