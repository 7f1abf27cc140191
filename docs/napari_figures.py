"""Make the documentation's pictures of the napari plugin again, offline; needs a screen.

    xvfb-run -a -s "-screen 0 1600x1200x24" python docs/napari_figures.py [NAME...]

They show the MNI152 average head that nilearn brings (extra ``samples``), never a subject.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QWidget
from torch import Generator

from medrl.cli.demo import write_template
from medrl.registration.cases import make_case
from medrl.seednet.seeds import FOREGROUND
from medrl_napari.agents import AgentsView
from medrl_napari.detect.widget import DetectWidget
from medrl_napari.launch import dock_views, middle_of_points
from medrl_napari.register.widget import RegisterWidget
from medrl_napari.samples import head, head_with_search, recorded_search, sample_scan
from medrl_napari.scans import add, center_views, frame_of_viewer, image_layer, show
from medrl_napari.segment.widget import SegmentWidget
from medrl_napari.views.widget import OrthoViews

IMAGES = Path(__file__).parent / "images"
SIZE = (1280, 820)
#: Inside the left hippocampus, RAS mm.
CLICK_WORLD = (-25.5, -21.0, -14.0)
LANDMARK = "Hippocampus_L_centroid"
#: Of the pose and contrast of the copy that is registered.
SEED = 3
#: Of the animation: each of its three views, and how long a step and the end are shown.
_TILE = (250, 250)
_STEP_MS, _END_MS = 160, 2000
_PATIENCE_S = 300
#: A larger picture is painted with fewer colours.
_MOST_BYTES = 290 * 1024


def main() -> None:
    """Write those that are named on the command line, or all."""
    figures = {
        "views": draw_views,
        "detect": draw_detection,
        "segment": draw_segmentation,
        "register": draw_registration,
        "agents": draw_agents,
    }
    IMAGES.mkdir(exist_ok=True)
    if len(sys.argv) == 2:
        figures[sys.argv[1]]()
        return
    # Each in a process of its own: drivers do not always get over one window after another.
    for name in sys.argv[1:] or figures:
        subprocess.run([sys.executable, __file__, name], check=True)


def draw_views() -> None:
    """The sample with its recorded search, in all three planes."""
    viewer = opened()
    for layer in head_with_search():
        add(viewer, layer)
    views = dock_views(viewer)
    viewer.layers.selection.active = viewer.layers[0]
    viewer.layers["agents: windows"].visible = False
    viewer.layers["landmarks"].text.visible = False
    center_views(viewer, middle_of_points(viewer))
    viewer.dims.ndisplay = 3
    viewer.layers[0].rendering = "attenuated_mip"
    viewer.scene.camera.angles = (0, 20, 100)
    finish("napari-views.png", viewer, views)


def draw_detection() -> None:
    """The landmark widget after a search, with one landmark chosen."""
    viewer = opened()
    add(viewer, head()[0])
    widget = DetectWidget(viewer)
    dock(viewer, widget, "Detect landmarks", width=400)
    widget.run_button.click()
    wait(lambda: not widget.running and widget.result is not None)
    names = [landmark.name for landmark in widget.result.landmarks]
    widget.table.selectRow(names.index(LANDMARK))
    finish("napari-detect.png", viewer)


def draw_segmentation() -> None:
    """The left hippocampus after one click."""
    viewer = opened()
    add(viewer, head()[0])
    widget = SegmentWidget(viewer)
    dock(viewer, widget, "Segment with seeds", width=380)
    widget.begin()
    widget.place_seed(np.array([CLICK_WORLD]), FOREGROUND)
    wait(lambda: viewer.layers["objects"].data.any())
    look_at(viewer, CLICK_WORLD, zoom=7)
    finish("napari-segment.png", viewer)


def draw_registration() -> None:
    """A turned copy in another contrast, brought back, as a checkerboard."""
    viewer = opened()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mni152_t1.nii.gz"
        write_template(path)
        case = make_case(path, turn=None, shift=30.0, generator=Generator().manual_seed(SEED))
    fixed = show(sample_scan())
    moving = add(viewer, image_layer(show(case.moving, frame=fixed.frame), name="turned copy"))
    still = add(viewer, image_layer(fixed, name="MNI152 T1"))
    widget = RegisterWidget(viewer)
    dock(viewer, widget, "Register scans", width=400)
    widget.form.fixed.layer, widget.form.moving.layer = still, moving
    widget.run_button.click()
    wait(lambda: not widget.running and widget.answer is not None and widget.view.sharp)
    widget.bar.buttons["checkerboard"].click()
    look_at(viewer, (0, -20, 10), zoom=3)
    finish("napari-register.png", viewer)


def draw_agents() -> None:
    """All agents walk; the window of one of them is shown in the three planes."""
    viewer = opened()
    add(viewer, head()[0])
    trajectory = recorded_search()
    agents = AgentsView(viewer, frame_of_viewer(viewer))
    agents.show(trajectory)
    agents.select(LANDMARK)
    views = OrthoViews(viewer)
    viewer.window.add_dock_widget(views, name="views", area="bottom")
    (own,) = (agent for agent in trajectory.agents if agent.name == LANDMARK)
    center_views(viewer, frame_of_viewer(viewer).to_napari(own.answer_world))
    views.crosshair_visible = False
    viewer.show()
    frames = []
    for step in range(int(viewer.dims.nsteps[0])):
        viewer.dims.set_current_step(0, step)
        settle(views)
        tiles = [
            Image.fromarray(view.canvas.screenshot(flash=False, size=_TILE)).convert("RGB")
            for view in views.views
        ]
        frame = Image.new("RGB", (sum(tile.width for tile in tiles) + 8, tiles[0].height), "#333")
        left = 0
        for tile in tiles:
            frame.paste(tile, (left, 0))
            left += tile.width + 4
        frames.append(frame)
    target = IMAGES / "napari-agents.webp"
    durations = [_STEP_MS] * (len(frames) - 1) + [_END_MS]
    frames[0].save(
        target, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=70
    )
    tell(target)
    viewer.close()


# -------------------------------------------------------------------------------------------------


def opened() -> napari.Viewer:
    """A new viewer in a window of the usual size."""
    viewer = napari.Viewer(show=False, show_welcome_screen=False)
    viewer.window.resize(*SIZE)
    viewer.show()
    return viewer


def dock(viewer: napari.Viewer, widget: QWidget, title: str, *, width: int) -> None:
    """Dock a widget at the right."""
    place = viewer.window.add_dock_widget(widget, name=title, area="right")
    viewer.window._qt_window.resizeDocks([place], [width], Qt.Orientation.Horizontal)
    settle()


def look_at(viewer: napari.Viewer, point_world: tuple[float, ...], *, zoom: float) -> None:
    """Bring a point, RAS mm, to the middle of the canvas."""
    place = frame_of_viewer(viewer).to_napari(point_world)
    center_views(viewer, place)
    viewer.scene.camera.center = tuple(place[list(viewer.dims.displayed[-2:])])
    viewer.scene.camera.zoom = zoom


def finish(name: str, viewer: napari.Viewer, views: OrthoViews | None = None) -> None:
    """Write a picture of the whole window, and close it."""
    viewer.window.resize(*SIZE)
    settle(views)
    picture = viewer.window.screenshot(canvas_only=False, flash=False)
    target = IMAGES / name
    colors = Image.fromarray(picture).convert("RGB")
    colors.save(target, optimize=True)
    if target.stat().st_size > _MOST_BYTES:
        # 256 colours are a third of the size, and look nearly the same.
        colors.quantize(256, kmeans=2).save(target, optimize=True)
    tell(target)
    viewer.close()


def tell(path: Path) -> None:
    """Say how large a picture is."""
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


def settle(views: OrthoViews | None = None) -> None:
    """Let the window draw whatever it has to draw."""
    for _ in range(5):
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            QApplication.processEvents()
    if views is not None:
        wait(lambda: views.up_to_date)


def wait(ready: Callable[[], object]) -> None:
    """Keep the window alive until something has happened."""
    until = time.monotonic() + _PATIENCE_S
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError("the window did not come to an end")
        QApplication.processEvents()
        time.sleep(0.005)


if __name__ == "__main__":
    main()
