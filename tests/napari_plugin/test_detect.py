"""The landmark widget in a real napari: driven by clicks and keys, judged by pixels and files."""

import gc
import json
import threading

import napari
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from medrl.errors import MedrlError
from medrl.landmark.data import read_datalist
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.detection import Detection, Landmark
from medrl.landmark.model import LandmarkModel, ModelSettings
from medrl.trajectory import Recording, Step
from medrl.volume.read import read
from medrl_napari.detect.points import LandmarkPoints
from medrl_napari.detect.widget import DetectWidget
from medrl_napari.scans import add, image_layer, show
from medrl_napari.search import widget as module

STEPS = 6
#: RAS mm, in the scan of `head`; the last one is absent.
POINTS = {
    "Putamen_L_centroid": (-20.0, 10.0, 4.0),
    "Putamen_R_centroid": (22.0, 12.0, 4.0),
    "Thalamus_L_centroid": (-10.0, -14.0, -16.0),
    "Thalamus_R_centroid": (12.0, -15.0, 18.0),
}
SURE = {"Putamen_L_centroid": 0.97, "Putamen_R_centroid": 0.7, "Thalamus_L_centroid": 0.2}
ABSENT = "Thalamus_R_centroid"
GREEN = (0x39, 0xD9, 0x8A)


class Scripted:
    """A detector whose agents walk straight to scripted points, one step each time they may."""

    def __init__(self, *, gate=None, error=None):
        self.gate = gate
        self.error = error
        self.calls = 0

    def detect(self, scan, *, landmarks, progress, watch):
        self.calls += 1
        recording = Recording()
        goals = np.array([POINTS[name] for name in landmarks])
        for number in range(STEPS):
            if self.gate is not None:
                assert self.gate.acquire(timeout=60)
            if self.error is not None and number == 2:
                raise self.error
            count = len(landmarks)
            step = Step(
                names=tuple(landmarks),
                starts=np.zeros(count, dtype=int),
                positions_world=goals * number / (STEPS - 1),
                scales_mm=np.full(count, 4.0 if number < 3 else 2.0),
                actions=np.zeros(count, dtype=int),
                values=np.linspace(1, 2, count),
            )
            recording.add(step)
            watch(step)
            progress(number, STEPS)
        found = tuple(
            Landmark(name, np.array(POINTS[name]), "found", SURE[name], "")
            if name != ABSENT
            else Landmark(name, np.array(POINTS[name]) * 9, "absent", 0.0, "")
            for name in landmarks
        )
        return Detection(found, recording.trajectory("landmark", {"window_voxels": 9}), (), 0.5)


def head(path="", *, affine=None, low=0.0):
    """A scan of 48^3 voxels of 2 mm about the world's origin, dark noise."""
    if affine is None:
        affine = np.diag([2.0, 2, 2, 1])
        affine[:3, 3] = -47
    values = np.random.default_rng(1).uniform(low, 20, (1, 48, 48, 48)).astype(np.float32)
    scan = MetaTensor(torch.from_numpy(values), affine=torch.from_numpy(affine))
    scan.meta["filename_or_obj"] = str(path)
    return scan


@pytest.fixture(scope="module")
def window(qapp):
    """One napari for all tests here."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(900, 650)
    # napari collects garbage at every layer that goes: let it look at what is new only.
    gc.collect()
    gc.freeze()
    yield viewer
    viewer.close()
    gc.unfreeze()


@pytest.fixture
def viewer(window, qapp):
    yield window
    empty(window)


def empty(viewer):
    viewer.layers.clear()
    viewer.dims.ndisplay = 2
    viewer.reset_view()
    QApplication.processEvents()


def docked(viewer, qtbot):
    """The widget in its dock, asked for the scripted landmarks only."""
    widget = DetectWidget(viewer)
    viewer.window.add_dock_widget(widget, name="detect", area="right")
    qtbot.waitExposed(widget)
    click(qtbot, widget.targets.none)
    for word in ("putamen", "thalamus"):
        qtbot.keyClicks(widget.targets.filter, word)
        click(qtbot, widget.targets.all)
        widget.targets.filter.clear()
    assert set(widget.targets.names) == set(POINTS)
    return widget


def undocked(viewer, widget, qtbot):
    job = widget.job
    if widget.parent() is not None:
        viewer.window.remove_dock_widget(widget)
    if job is not None:
        qtbot.waitUntil(lambda: not job.working)


@pytest.fixture
def widget(viewer, qtbot):
    widget = docked(viewer, qtbot)
    yield widget
    undocked(viewer, widget, qtbot)


@pytest.fixture
def scripted(monkeypatch):
    """Put a scripted detector in the place of the model."""

    def put(**options):
        detector = Scripted(**options)
        monkeypatch.setattr(module, "load_model", lambda name: detector)
        return detector

    return put


@pytest.fixture(scope="class")
def searched(window, request):
    """The widget after a search."""
    qtbot = QtBot(request)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_model", lambda name: Scripted())
        widget = docked(window, qtbot)
        open_scan(window, head())
        search(qtbot, widget)
    yield widget
    undocked(window, widget, qtbot)
    empty(window)


@pytest.fixture
def found(searched):
    """The same, for a test that may correct something."""
    yield searched
    for name in POINTS:
        searched.reset(name)
    searched.drag_button.setChecked(False)
    for layer in searched.viewer.layers:
        layer.visible = True


def click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def open_scan(viewer, scan, name="head"):
    return add(viewer, image_layer(show(scan), name=name))


def search(qtbot, widget):
    """Click on Find landmarks and wait for the end."""
    with qtbot.waitSignal(widget.finished, timeout=60_000):
        click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: not widget.running)


def click_row(qtbot, widget, name):
    table = widget.table
    row = next(r for r in range(table.rowCount()) if table._name(r) == name)
    table.scrollToItem(table.item(row, 1))
    spot = table.visualItemRect(table.item(row, 1)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=spot)


def walk(qtbot, widget, gate, steps=2):
    """Start a search whose agents wait at a gate, and let them go some steps."""
    click(qtbot, widget.run_button)
    for _ in range(steps):
        gate.release()
    qtbot.waitUntil(lambda: "agents" in names(widget.viewer))


def names(viewer):
    return [layer.name for layer in viewer.layers]


def world_of(layer):
    """Positions of a points layer in RAS mm, in a viewer along the body's axes."""
    return -np.asarray(layer.data)[:, ::-1]


def landmarks_of(viewer):
    layer = viewer.layers["landmarks"]
    return dict(zip(layer.features["name"], world_of(layer), strict=True))


def pixel_of(viewer, point_world):
    """(row, column) on the canvas where a point in the current slice must be seen."""
    napari_yx = -np.asarray(point_world)[[1, 0]]
    from_middle = (napari_yx - np.array(viewer.scene.camera.center)[-2:]) * viewer.scene.camera.zoom
    image = viewer.screenshot(canvas_only=True, flash=False)
    return np.array(image.shape[:2]) / 2 + from_middle, image


# -------------------------------------------------------------------------------------- a search


def test_keys_run_and_cancel(viewer, widget, scripted, qtbot):
    gate = threading.Semaphore(0)
    scripted(gate=gate)
    open_scan(viewer, head())
    qtbot.keyClick(widget.targets.list, Qt.Key.Key_Return)
    assert widget.running
    job = widget.job
    qtbot.keyClick(widget, Qt.Key.Key_Escape)
    assert not widget.running
    gate.release(100)
    qtbot.waitUntil(lambda: not job.working)
    qtbot.keyClick(widget.targets.filter, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: widget.result is not None and not widget.running)


def test_the_scan_is_seen_sharp_and_from_where_it_was_after_a_search(
    viewer, widget, scripted, qtbot
):
    scripted()
    scan = head()
    layer = open_scan(viewer, scan)
    viewer.scene.camera.zoom = 5
    search(qtbot, widget)
    assert viewer.scene.camera.zoom == 5
    for other in viewer.layers:
        other.visible = other is layer
    viewer.dims.set_point(1, 3.0)  # through the middle of the voxels at -3 mm
    low, high = layer.contrast_limits
    (row, column), image = pixel_of(viewer, (0, 0, 0))
    for i, j in [(20, 20), (21, 26), (23, 23), (24, 19), (27, 24)]:
        x, y = -47 + 2 * i, -47 + 2 * j
        seen = image[int(row - 5 * y), int(column - 5 * x), 0]
        value = np.clip((float(scan[0, i, j, 22]) - low) / (high - low), 0, 1)
        assert abs(seen - 255 * value) <= 2


def test_an_oblique_scan_gives_what_the_library_gives(viewer, widget, qtbot, monkeypatch):
    torch.manual_seed(2)
    settings = ModelSettings(window=9, channels=(4, 4, 4), features=16, max_steps=12)
    wanted = tuple(POINTS)
    networks = tuple(settings.build_network(len(wanted)).eval() for _ in settings.spacings)
    detector = LandmarkDetector(LandmarkModel(wanted, settings, networks))
    monkeypatch.setattr(module, "load_model", lambda name: detector)
    angle = np.radians(30)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ head().affine.numpy()
    scan = head(affine=affine)
    layer = open_scan(viewer, scan)
    np.testing.assert_allclose(layer.scale, 2)
    search(qtbot, widget)
    direct = detector.detect(scan, landmarks=wanted)
    for landmark in direct.landmarks:
        mine = widget.result[landmark.name]
        np.testing.assert_array_equal(mine.position_world, landmark.position_world)
        assert mine.status == landmark.status
    # The layer's points are the same ones, seen along the scan's own axes.
    assert "landmarks" in names(viewer)
    layer = viewer.layers["landmarks"]
    for name, place in zip(layer.features["name"], layer.data, strict=True):
        world = turn[:3, :3] @ -place[::-1]
        np.testing.assert_allclose(world, direct[name].position_world, atol=1e-6)


class TestAResult:
    """What can be done with the answers; one search for all of these."""

    def test_a_search_leaves_points_paths_and_a_table(self, found, qtbot):
        widget, viewer = found, found.viewer
        found = landmarks_of(viewer)
        assert set(found) == set(POINTS) - {ABSENT}
        for name, place in found.items():
            np.testing.assert_allclose(place, POINTS[name], atol=1e-9)
        layer = viewer.layers["landmarks"]
        assert list(layer.features["status"]) == ["found"] * 3
        assert dict(zip(layer.features["name"], layer.features["confidence"], strict=True)) == SURE
        assert "Putamen L" in list(layer.text.values)
        # One colour for each degree of confidence.
        assert len({tuple(color) for color in layer.face_color.round(3)}) == 3
        table = widget.table
        assert table.rowCount() == len(POINTS)
        assert table.text_of("Putamen_L_centroid")[:3] == ("Putamen L", "97%", "found")
        assert table.text_of(ABSENT)[1:3] == ("", "absent")
        assert set(table.ticked) == {"Putamen_L_centroid", "Putamen_R_centroid"}
        # The whole search is there to be replayed.
        assert viewer.dims.ndim == 4
        assert viewer.dims.nsteps[0] == STEPS
        # ... and it is, to its last step.
        qtbot.waitUntil(lambda: viewer.dims.current_step[0] == STEPS - 1)
        rows = next(la for la in viewer.layers if type(la).__name__ == "Tracks").data
        assert len(rows) == STEPS * len(POINTS)
        assert "3 of 4" in widget.status.text()

    @pytest.mark.parametrize("name", ["Putamen_L_centroid", "Thalamus_L_centroid"])
    def test_a_click_on_a_row_shows_the_landmark_where_it_is(self, found, qtbot, name):
        widget, viewer = found, found.viewer
        for layer in viewer.layers:
            layer.visible = layer.name in ("head", "landmarks")
        click_row(qtbot, widget, name)
        assert widget.table.current == name
        # All three slices go through it: voxels of 2 mm.
        at = -np.array(viewer.dims.point)[-3:][::-1]
        np.testing.assert_allclose(at, POINTS[name], atol=1.01)
        layer = viewer.layers["landmarks"]
        layer.selected_data = set()
        viewer.scene.camera.zoom = 5
        QApplication.processEvents()
        (row, column), image = pixel_of(viewer, POINTS[name])
        color = np.round(layer.face_color[list(layer.features["name"]).index(name), :3] * 255)
        seen = image[int(row), int(column), :3].astype(int)
        assert np.abs(seen - color).max() < 40
        # Its disc is about that spot, and as wide as a landmark: 5 mm at 5 pixels a mm.
        near = np.abs(image[..., :3].astype(int) - color).max(axis=2) < 40
        rows, columns = np.nonzero(near)
        assert abs(np.median(rows) - row) < 3
        assert abs(np.median(columns) - column) < 3
        assert 10 < np.ptp(columns) < 30

    def test_a_landmark_out_of_view_is_brought_into_view(self, found, qtbot):
        widget, viewer = found, found.viewer
        near, far = "Putamen_L_centroid", "Putamen_R_centroid"
        click_row(qtbot, widget, near)
        viewer.scene.camera.zoom = 16
        viewer.scene.camera.center = (0, *-np.array(POINTS[near])[[1, 0]])
        viewer.screenshot(flash=False)
        click_row(qtbot, widget, near)
        # What is in view stays where it is.
        np.testing.assert_allclose(viewer.scene.camera.center[1:], -np.array(POINTS[near])[[1, 0]])
        click_row(qtbot, widget, far)
        viewer.layers["landmarks"].selected_data = set()
        (row, column), image = pixel_of(viewer, POINTS[far])
        assert 0 < row < image.shape[0]
        assert 0 < column < image.shape[1]
        viewer.reset_view()

    def test_the_table_is_sorted_by_what_its_columns_mean(self, found, qtbot):
        widget = found
        table = widget.table
        table.sortItems(1, Qt.SortOrder.DescendingOrder)
        order = [table._name(row) for row in range(table.rowCount())]
        assert order == [*sorted(SURE, key=SURE.get, reverse=True), ABSENT]

    def test_paths_are_coloured_as_chosen(self, found, qtbot):
        widget, viewer = found, found.viewer
        tracks = next(la for la in viewer.layers if type(la).__name__ == "Tracks")
        by_scale = tracks.track_colors.copy()
        qtbot.keyClick(widget.coloring, Qt.Key.Key_Down)
        assert tracks.color_by == "value"
        assert np.abs(tracks.track_colors - by_scale).max() > 0.1

    def test_a_point_dragged_with_the_mouse_is_corrected_and_can_be_reset(self, found, qtbot):
        widget, viewer = found, found.viewer
        name = "Putamen_L_centroid"
        click_row(qtbot, widget, name)
        click(qtbot, widget.drag_button)
        viewer.scene.camera.zoom = 5
        QApplication.processEvents()
        goal = np.add(POINTS[name], (6.0, -8.0, 0))
        drag(viewer, POINTS[name], goal)
        np.testing.assert_allclose(landmarks_of(viewer)[name], goal, atol=0.5)
        assert np.linalg.norm(widget.result[name].position_world - goal) < 0.5
        text = widget.table.text_of(name)
        assert text[1:3] == ("", "by hand")
        moved = np.linalg.norm(widget.result[name].position_world - POINTS[name])
        assert text[3] == f"moved {moved:.1f} mm"
        for other in set(SURE) - {name}:
            np.testing.assert_allclose(landmarks_of(viewer)[other], POINTS[other], atol=1e-9)
            assert widget.table.text_of(other)[2] == "found"
        assert widget.table.current == name
        click(qtbot, widget.reset_button)
        np.testing.assert_allclose(landmarks_of(viewer)[name], POINTS[name], atol=1e-9)
        assert widget.table.text_of(name)[1:3] == ("97%", "found")
        assert not widget.reset_button.isEnabled()

    def test_points_are_added_for_absent_landmarks_and_taken_away(self, found, qtbot):
        widget, viewer = found, found.viewer
        layer = viewer.layers["landmarks"]
        click_row(qtbot, widget, "Putamen_L_centroid")
        layer.add([0.0, 0, 0])
        assert len(layer.data) == 3
        assert "choose the row of an absent landmark" in widget.status.text()
        click_row(qtbot, widget, ABSENT)
        layer.add([-18.0, 15, -12])
        np.testing.assert_allclose(landmarks_of(viewer)[ABSENT], POINTS[ABSENT], atol=1e-9)
        assert widget.table.text_of(ABSENT)[2:] == ("by hand", "not found by its agent")
        layer.selected_data = {list(layer.features["name"]).index("Thalamus_L_centroid")}
        layer.remove_selected()
        assert set(landmarks_of(viewer)) == set(POINTS) - {"Thalamus_L_centroid"}
        assert widget.table.text_of("Thalamus_L_centroid")[2] == "absent"
        click_row(qtbot, widget, "Thalamus_L_centroid")
        click(qtbot, widget.reset_button)
        assert set(landmarks_of(viewer)) == set(POINTS)
        for name, place in landmarks_of(viewer).items():
            np.testing.assert_allclose(place, POINTS[name], atol=1e-9)

    def test_a_scan_without_a_file_goes_into_no_datalist(self, found, qtbot, tmp_path):
        widget = found
        widget.save_corrections(tmp_path / "d.json")
        assert "not in a file" in widget.status.text()
        assert not list(tmp_path.iterdir())

    def test_keys_go_from_landmark_to_landmark(self, found, qtbot):
        widget, viewer = found, found.viewer
        widget.table.sortItems(0, Qt.SortOrder.AscendingOrder)
        widget.table.clearSelection()
        canvas = viewer.window._qt_viewer.canvas.native
        seen = []
        for part, key in [
            (widget.table, Qt.Key.Key_N),
            (widget, Qt.Key.Key_N),
            (widget.table, Qt.Key.Key_P),
            (canvas, Qt.Key.Key_N),
            (canvas, Qt.Key.Key_P),
        ]:
            qtbot.keyClick(part, key)
            seen.append(widget.table.current)
        left, right = "Putamen_L_centroid", "Putamen_R_centroid"
        assert seen == [left, right, left, right, left]
        at = -np.array(viewer.dims.point)[-3:][::-1]
        np.testing.assert_allclose(at, POINTS[left], atol=1.01)


# ---------------------------------------------------------------------------------- when it fails


def test_a_search_cancelled_halfway_leaves_nothing(viewer, widget, scripted, qtbot):
    gate = threading.Semaphore(0)
    scripted(gate=gate)
    open_scan(viewer, head())
    walk(qtbot, widget, gate)
    assert widget.cancel_button.isEnabled()
    assert not widget.run_button.isEnabled()
    job = widget.job
    click(qtbot, widget.cancel_button)
    assert names(viewer) == ["head"]
    assert widget.table.rowCount() == 0
    assert widget.result is None
    assert not widget.save_button.isEnabled()
    assert widget.status.text() == "Cancelled."
    gate.release(100)
    qtbot.waitUntil(lambda: not job.working)
    assert names(viewer) == ["head"]
    assert "medrl-job" not in [thread.name for thread in threading.enumerate()]
    search(qtbot, widget)
    assert widget.table.rowCount() == len(POINTS)


def test_a_cancelled_second_search_leaves_the_first_result(viewer, widget, scripted, qtbot):
    gate = threading.Semaphore(STEPS)
    scripted(gate=gate)
    open_scan(viewer, head())
    search(qtbot, widget)
    before = sorted(names(viewer))
    walk(qtbot, widget, gate, steps=1)
    click(qtbot, widget.cancel_button)
    gate.release(100)
    assert sorted(names(viewer)) == before
    assert widget.table.rowCount() == len(POINTS)
    assert viewer.dims.nsteps[0] == STEPS
    assert widget.save_button.isEnabled()


@pytest.mark.parametrize("everything", [False, True])
def test_the_scan_closed_while_agents_walk_ends_the_search(
    viewer, widget, scripted, qtbot, everything
):
    gate = threading.Semaphore(0)
    scripted(gate=gate)
    layer = open_scan(viewer, head())
    walk(qtbot, widget, gate)
    job = widget.job
    if everything:
        viewer.layers.clear()
    else:
        viewer.layers.remove(layer)
    assert not widget.running
    assert names(viewer) == []
    assert widget.status.text() == "Cancelled: the scan was closed."
    gate.release(100)
    qtbot.waitUntil(lambda: not job.working)
    if not everything:
        open_scan(viewer, head(), name="another")
        search(qtbot, widget)
        assert "landmarks" in names(viewer)


def test_a_model_that_fails_is_one_line(viewer, widget, scripted, qtbot):
    open_scan(viewer, head())
    damaged = "the model is damaged: fetch it again"
    for error, says in [(MedrlError(damaged), damaged), (ValueError("no\nway"), "ValueError")]:
        scripted(error=error)
        click(qtbot, widget.run_button)
        qtbot.waitUntil(lambda: not widget.running)
        line = widget.status.text()
        assert says in line
        assert "\n" not in line
        assert names(viewer) == ["head"]
    scripted()
    search(qtbot, widget)
    assert widget.table.rowCount() == len(POINTS)


def test_what_cannot_be_searched_is_said_in_one_line(viewer, widget, scripted, qtbot):
    detector = scripted()
    status = widget.status
    click(qtbot, widget.run_button)
    assert status.text() == "Open a 3D scan first."
    viewer.add_image(np.zeros((30, 30)), name="flat")
    click(qtbot, widget.run_button)
    assert status.text() == "Open a 3D scan first: a flat or coloured image is none."
    open_scan(viewer, head())
    click(qtbot, widget.targets.none)
    click(qtbot, widget.run_button)
    assert status.text() == "Tick at least one landmark."
    assert detector.calls == 0
    assert not widget.running


def test_a_ct_is_refused_by_a_model_of_mri(viewer, widget, qtbot, monkeypatch):
    settings = ModelSettings(window=9, channels=(4, 4, 4), features=16, modality="MR")
    networks = tuple(settings.build_network(4).eval() for _ in settings.spacings)
    detector = LandmarkDetector(LandmarkModel(tuple(POINTS), settings, networks))
    monkeypatch.setattr(module, "load_model", lambda name: detector)
    open_scan(viewer, head(low=-1000.0))
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: not widget.running)
    assert "looks like a CT" in widget.status.text()
    assert names(viewer) == ["head"]


def test_a_folder_without_a_landmark_model_is_refused(widget, tmp_path):
    widget.models.model = str(tmp_path)
    assert "not the folder of a model" in widget.status.text()
    widget.models.model = "rigid-head"
    assert "finds no landmarks" in widget.status.text()
    widget.models.model = "brain-t1"
    assert len(widget.targets.names) == 25


def test_the_widget_closed_while_agents_walk(viewer, widget, scripted, qtbot):
    gate = threading.Semaphore(0)
    scripted(gate=gate)
    open_scan(viewer, head())
    walk(qtbot, widget, gate)
    viewer.window.remove_dock_widget(widget)
    assert names(viewer) == ["head"]
    gate.release(100)
    qtbot.waitUntil(lambda: "medrl-job" not in [t.name for t in threading.enumerate()])
    viewer.layers.clear()
    open_scan(viewer, head(), name="another")
    assert names(viewer) == ["another"]


# ------------------------------------------------------------------------------------ corrections


def drag(viewer, from_world, to_world):
    """Drag on the canvas, as a mouse does, from one point of the current slice to another."""
    native = viewer.window._qt_viewer.canvas.native
    (row, column), _ = pixel_of(viewer, from_world)
    (to_row, to_column), _ = pixel_of(viewer, to_world)
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton

    def send(kind, fraction, button, buttons):
        x, y = column + fraction * (to_column - column), row + fraction * (to_row - row)
        place = QPointF(float(x), float(y))
        event = QMouseEvent(
            kind, place, native.mapToGlobal(place), button, buttons, Qt.KeyboardModifier.NoModifier
        )
        QApplication.sendEvent(native, event)
        QApplication.processEvents()

    send(QEvent.Type.MouseMove, 0, none, none)
    send(QEvent.Type.MouseButtonPress, 0, left, left)
    for fraction in (0.2, 0.6, 1.0):
        send(QEvent.Type.MouseMove, fraction, none, left)
    send(QEvent.Type.MouseButtonRelease, 1, left, none)


def move(viewer, name, world):
    """Correct a landmark through the layer's data."""
    layer = viewer.layers["landmarks"]
    data = np.array(layer.data)
    data[list(layer.features["name"]).index(name)] = -np.asarray(world)[::-1]
    layer.data = data


def test_results_and_corrections_are_saved(viewer, widget, scripted, qtbot, tmp_path):
    scripted()
    path = tmp_path / "scans" / "s1.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(head().numpy()[0], head().affine.numpy()), path)
    open_scan(viewer, read(path))
    search(qtbot, widget)
    move(viewer, "Thalamus_L_centroid", (-9.0, -13.0, -14.0))
    widget.save_results(tmp_path / "out")
    qtbot.waitUntil(lambda: not widget.running, timeout=30_000)
    endings = {".mrk.json", ".csv", ".trajectory.json", ".png"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"s1{e}" for e in endings}
    assert "Saved s1.mrk.json" in widget.status.text()
    control = json.loads((tmp_path / "out" / "s1.mrk.json").read_text())["markups"][0]
    described = {p["label"]: p["description"] for p in control["controlPoints"]}
    assert described["Thalamus_L_centroid"] == "corrected by hand; moved 2.4 mm"
    assert described["Putamen_L_centroid"] == "found, confidence 0.97"
    assert ABSENT not in described

    # What the model doubts is not for training unless somebody ticks it or puts it right.
    table = widget.table
    datalist = tmp_path / "training" / "datalist.json"
    widget.save_corrections(datalist)
    (case,) = read_datalist(datalist)["training"]
    assert case.image.resolve() == path
    assert set(case.points_world) == set(SURE)
    np.testing.assert_allclose(case.points_world["Thalamus_L_centroid"], (-9, -13, -14), atol=1e-9)
    np.testing.assert_allclose(
        case.points_world["Putamen_R_centroid"], POINTS["Putamen_R_centroid"], atol=1e-9
    )
    for row in range(table.rowCount()):
        table.item(row, 0).setCheckState(Qt.CheckState.Unchecked)
    widget.save_corrections(datalist)
    assert widget.status.text().startswith("Tick the landmarks")


def test_a_new_search_keeps_corrections_that_nobody_saved(viewer, widget, scripted, qtbot):
    scripted()
    open_scan(viewer, head())
    search(qtbot, widget)
    search(qtbot, widget)
    assert names(viewer).count("landmarks") == 1
    assert not any("before" in name for name in names(viewer))
    move(viewer, "Putamen_L_centroid", (-25.0, 10, 4))
    search(qtbot, widget)
    kept = viewer.layers["landmarks before"]
    row = list(kept.features["name"]).index("Putamen_L_centroid")
    np.testing.assert_allclose(world_of(kept)[row], (-25, 10, 4), atol=1e-9)
    np.testing.assert_allclose(
        landmarks_of(viewer)["Putamen_L_centroid"], POINTS["Putamen_L_centroid"], atol=1e-9
    )
    # The layer taken away, there is no result any more.
    viewer.layers.remove("landmarks")
    assert widget.table.rowCount() == 0
    assert not widget.save_button.isEnabled()


def test_points_can_begin_and_end_with_none():
    absent = [Landmark(name, np.zeros(3), "absent", 0.0, "") for name in POINTS]
    changes = []
    points = LandmarkPoints(
        ViewerModel(), show(head()), absent, changed=changes.append, missing=lambda: ABSENT
    )
    assert len(points.layer.data) == 0
    points.layer.add([1.0, 2, 3])
    assert list(points.layer.text.values) == ["Thalamus R"]
    points.layer.remove([0])
    np.testing.assert_array_equal(changes[0][ABSENT], [-3, -2, -1])
    assert changes[1] == {ABSENT: None}


# ------------------------------------------------------------------------------------ a real head


def test_the_model_that_ships_finds_in_napari_what_it_finds_without(viewer, widget, qtbot):
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=2)
    values = torch.from_numpy(image.get_fdata().astype(np.float32))[None]
    scan = MetaTensor(values, affine=torch.from_numpy(image.affine))
    open_scan(viewer, scan, name="MNI152")
    click(qtbot, widget.targets.all)
    search(qtbot, widget)
    direct = LandmarkDetector.load("brain-t1").detect(scan)
    assert len(direct.landmarks) == 25
    shown = landmarks_of(viewer)
    assert set(shown) == {lm.name for lm in direct.landmarks if lm.status != "absent"}
    for landmark in direct.landmarks:
        mine = widget.result[landmark.name]
        assert mine.status == landmark.status
        np.testing.assert_allclose(mine.position_world, landmark.position_world, atol=1e-6)
        np.testing.assert_allclose(mine.confidence, landmark.confidence, atol=1e-6)
        if landmark.name in shown:
            np.testing.assert_allclose(shown[landmark.name], landmark.position_world, atol=1e-6)
    tracks = next(la for la in viewer.layers if type(la).__name__ == "Tracks")
    assert len(tracks.data) == sum(len(agent) for agent in direct.trajectory.agents)
