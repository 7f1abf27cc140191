"""Align scan: the aligned scan and its points as layers, and the files of the command."""

from pathlib import Path

import napari
import numpy as np
import pytest
from qtpy.QtCore import Qt
from scipy.spatial.transform import Rotation

from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.detection import Detection, Landmark
from medrl.results.provenance import provenance
from medrl.trajectory import AgentPath, Trajectory
from medrl.volume.space import apply_affine, as_affine
from medrl_napari import models
from medrl_napari.align.widget import AlignWidget
from medrl_napari.points import layer_positions_world
from medrl_napari.scans import add, image_layer, show, shown_of
from tests.napari_plugin.conftest import made_scan

#: Symmetric about x = 0, AC in the origin.
POINTS = {
    "AC": (0, 0, 0), "PC": (0, -26, 0), "PMJ": (0, -25, -18), "genu of CC": (0, 30, 8),
    "R MB": (2, -10, -10), "L MB": (-2, -10, -10), "R AL temporal horn": (34, -8, -22),
    "L AL temporal horn": (-34, -8, -22),
}  # fmt: skip


def where() -> np.ndarray:
    """How the head lies in the scanner: AC-PC frame to world."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (8, -5, 10), degrees=True).as_matrix()
    matrix[:3, 3] = (3, 40, 30)
    return matrix


class Expert:
    """Knows where the points are."""

    landmark_names = tuple(POINTS)

    def __init__(self, *missing: str) -> None:
        self.missing = missing
        self.manifest = {"name": "expert"}

    def detect(self, scan, *, progress=None, watch=None) -> Detection:
        """As a landmark detector."""
        places = {name: apply_affine(where(), np.array(p, float)) for name, p in POINTS.items()}
        found, agents = [], []
        for name, place in places.items():
            there = "absent" if name in self.missing else "found"
            found.append(Landmark(name, place, there, 0.9, ""))
            one = np.ones(1)
            agents.append(AgentPath(name, 0, place[None], one, np.array([-1]), one))
        trajectory = Trajectory("landmark", tuple(agents), provenance(self.manifest, scan))
        return Detection(tuple(found), trajectory, (), 0.1, scan)


@pytest.fixture
def opened(qapp, qtbot, monkeypatch):
    """The widget in its dock beside a scan, with agents that know the way."""
    models.load_model.cache_clear()
    expert = Expert()
    monkeypatch.setattr(LandmarkDetector, "load", classmethod(lambda *_, **__: expert))
    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    layer = add(viewer, image_layer(show(made_scan("LPS")), name="head"))
    widget = AlignWidget(viewer)
    viewer.window.add_dock_widget(widget, name="align", area="right")
    yield viewer, widget, layer, expert
    viewer.close()
    models.load_model.cache_clear()


def run(widget, qtbot) -> None:
    with qtbot.waitSignal(widget.finished, timeout=20_000):
        qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not widget.running)


def test_the_aligned_scan_is_a_layer_and_is_saved(opened, qtbot, tmp_path):
    viewer, widget, layer, _ = opened
    assert widget.run_button.text() == "Align"
    assert set(widget.options.inputs) == {"to", "origin", "spacing", "header"}
    assert "rigid-head" not in [
        widget.scans.model.itemData(n) for n in range(widget.scans.model.count())
    ]
    run(widget, qtbot)
    np.testing.assert_allclose(widget.result.transform_world, where(), atol=1e-6)
    moved, points = viewer.layers["head (align acpc)"], viewer.layers["align acpc: points"]
    before, after = shown_of(layer), shown_of(moved)
    np.testing.assert_allclose(
        where() @ as_affine(after.scan.affine), as_affine(before.scan.affine), atol=1e-6
    )
    np.testing.assert_allclose(
        layer_positions_world(points, after.frame), list(POINTS.values()), atol=1e-4
    )
    assert not layer.visible
    np.testing.assert_allclose(viewer.dims.point, 0, atol=2)  # AC, as near as slices are
    widget.save(tmp_path)
    qtbot.waitUntil(lambda: (tmp_path / "head_acpc.tfm").exists() and not widget.running)
    names = {path.name for path in Path(tmp_path).iterdir()}
    assert {"head_acpc.nii.gz", "head_acpc.png", "head_acpc.mrk.json"} <= names


def test_what_cannot_be_is_said_in_the_widget(opened, qtbot):
    _, widget, layer, expert = opened
    expert.missing = ("PC",)
    qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "PC is not in the scan" in widget.status.text(), timeout=20_000)
    qtbot.waitUntil(lambda: not widget.running)
    widget.options.inputs["to"].setCurrentText("mni")
    qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "are needed" in widget.status.text(), timeout=20_000)
    assert layer.visible
