"""The boxes widget in a real napari: driven by the mouse, judged by geometry and files."""

import gc
import json
from itertools import product

import napari
import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.path import Path as Polygon
from monai.data.meta_tensor import MetaTensor
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication
from scipy.spatial import ConvexHull

from medrl import systems
from medrl.bundles.manifest import FORMAT, VERSION
from medrl.errors import MedrlError
from medrl.volume.boxes import read_boxes, write_boxes
from medrl.volume.read import read
from medrl_napari import models
from medrl_napari.box_layers import BoxLayers
from medrl_napari.launch import middle_of_points
from medrl_napari.localize.grip import LEAST_MM, drawn_box, grip_at, lie_of
from medrl_napari.localize.widget import LocalizeWidget
from medrl_napari.readers import read_layers
from medrl_napari.scans import add, image_layer, show, shown_of
from medrl_napari.space import STRAIGHT, frame_of
from medrl_napari.views.widget import OrthoViews
from medrl_napari.writers import write_box_layer
from tests.napari_plugin.conftest import made_scan
from tests.napari_plugin.localizer import ABSENT, BOXES, SURE, corners_of

OBLIQUE = frame_of(made_scan("LPS", turn_deg=(10, 20, 5)).affine)


def spine(path="", *, turn_deg=(0, 0, 0), orientation="LPS"):
    """A scan of 48^3 voxels of 2 mm about the world's origin, dark noise, its axes flipped."""
    scan = made_scan(orientation, shape=(48,) * 3, spacing=(2.0,) * 3, turn_deg=turn_deg)
    affine = scan.affine.numpy()
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, 23.5)
    scan = MetaTensor(scan.as_tensor(), affine=torch.from_numpy(affine))
    scan.meta["filename_or_obj"] = str(path)
    return scan


# --------------------------------------------------------------------------------------- geometry


@pytest.fixture
def model():
    model = ViewerModel()
    frame = OBLIQUE
    add(model, image_layer(show(spine(turn_deg=(10, 20, 5)), frame=frame), name="scan"))
    boxes = BoxLayers(model, frame)
    names = ["L3", "L4"]
    boxes.show(names, [corners_of(name) for name in names], ["red", "lime"])
    return model, boxes


def test_in_3d_boxes_are_where_they_are_on_an_oblique_flipped_scan(model):
    model, boxes = model
    model.dims.ndisplay = 3
    data = np.asarray(boxes.layer.data)
    assert len(data) == 24
    for number, name in enumerate(["L3", "L4"]):
        edges = data[12 * number : 12 * number + 12]
        ends = OBLIQUE.to_world(np.concatenate([edges[:, 0], edges.sum(axis=1)]))
        found = {tuple(np.round(end, 6) + 0.0) for end in ends}
        low, high = BOXES[name]
        assert found == set(product(*zip(low, high, strict=True)))
    colors = boxes.layer.edge_color
    np.testing.assert_allclose(colors[:12], np.tile([1, 0, 0, 1], (12, 1)))
    np.testing.assert_allclose(colors[12:], np.tile([0, 1, 0, 1], (12, 1)))


@pytest.mark.parametrize("across", [0, 1, 2])
def test_in_a_slice_the_outline_parts_inside_from_outside(model, across):
    model, boxes = model
    rest = [axis for axis in range(3) if axis != across]
    model.dims.order = (across, *rest)
    middle = OBLIQUE.to_napari(corners_of("L3").mean(axis=0))
    model.dims.set_point(range(3), middle)
    at = model.dims.point[across]
    data, colors = np.asarray(boxes.layer.data), boxes.layer.edge_color
    mine = data[colors[:, 0] == 1]
    assert 4 <= len(mine) <= 6
    np.testing.assert_allclose(mine[:, 0, across], at)
    # The polygon that the edges enclose holds exactly the points of the slice inside of the box.
    corners = np.concatenate([mine[:, 0], mine.sum(axis=1)])[:, rest]
    polygon = Polygon(corners[ConvexHull(corners).vertices])
    points = np.random.default_rng(0).uniform(-40, 40, (4000, 3)) + middle
    points[:, across] = at
    world, (low, high) = OBLIQUE.to_world(points), BOXES["L3"]
    inside = ((world >= low) & (world <= high)).all(axis=1)
    assert 100 < inside.sum() < 3900
    np.testing.assert_array_equal(polygon.contains_points(points[:, rest]), inside)
    # Its name is in the slice, at its corner; that of a box elsewhere is not.
    label = boxes.labels.data[0]
    np.testing.assert_allclose(label[rest], corners.min(axis=0))
    assert label[across] == at
    model.dims.set_point(range(3), OBLIQUE.to_napari((0.0, 0, 90)))
    assert not len(boxes.layer.data) or across != 0


def test_removed_boxes_take_their_names_along_and_follow_nobody(model):
    model, boxes = model
    model.layers.remove(boxes.layer)
    assert [layer.name for layer in model.layers] == ["scan"]
    model.dims.set_point(0, 3.0)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [0, 1])
def test_a_face_under_the_mouse_is_held_and_moved_alone(axis, side):
    boxes = {name: corners_of(name) for name in ("L3", "L4")}
    corners = boxes["L3"]
    point = corners.mean(axis=0)
    point[axis] = corners[side, axis] + 0.4
    for across in {0, 1, 2} - {2 - axis}:
        lie = lie_of(STRAIGHT, across)
        grip = grip_at(boxes, point, lie, 1.0)
        assert (grip.name, grip.faces, grip.whole) == ("L3", ((side, axis),), False)
        moved = grip.moved(corners, np.array([3.0, -2.0, 5.0]))
        expected = corners.copy()
        expected[side, axis] += (3.0, -2.0, 5.0)[axis]
        np.testing.assert_array_equal(moved, expected)
        # However far it is dragged, the box does not turn inside out.
        far = grip.moved(corners, np.full(3, 500.0 if side == 0 else -500.0))
        assert far[1, axis] - far[0, axis] == pytest.approx(LEAST_MM)
    # In a slice along the face there is nothing to take hold of: from its inside, all is moved.
    inside = corners.mean(axis=0)
    assert grip_at(boxes, inside, lie_of(STRAIGHT, 2 - axis), 1.0).whole
    assert grip_at(boxes, inside + 90, lie_of(STRAIGHT, 2 - axis), 1.0) is None


def test_an_edge_is_two_faces_and_reach_is_measured_in_the_slice():
    boxes = {"L3": corners_of("L3")}
    point = np.array([10.3, 12.3, 15.0])
    assert set(grip_at(boxes, point, lie_of(STRAIGHT, 0), 1.0).faces) == {(1, 0), (1, 1)}
    # In an oblique slice a way of 3 mm along it leads less far along the world's axis.
    lie = lie_of(OBLIQUE, 0)
    np.testing.assert_allclose(lie**2, 1 - OBLIQUE.matrix[:, 0] ** 2)
    middle = boxes["L3"].mean(axis=0)
    middle[0] = 10 + 2.9 * lie[0]
    assert grip_at(boxes, middle, lie, 3.0).faces == ((1, 0),)
    middle[0] = 10 + 3.1 * lie[0]
    assert grip_at(boxes, middle, lie, 3.0) is None


def test_a_rectangle_is_a_box_as_deep_as_its_shorter_side_or_as_told():
    lie = lie_of(STRAIGHT, 2)
    start, end = np.array([4.0, -10, 20]), np.array([4.0, 10, -5])
    np.testing.assert_allclose(drawn_box(start, end, lie, None), [[-6, -10, -5], [14, 10, 20]])
    np.testing.assert_allclose(drawn_box(end, start, lie, 30.0), [[-11, -10, -5], [19, 10, 20]])
    assert drawn_box(start, start + np.array([0, 0.5, 30]), lie, None) is None


# ------------------------------------------------------------------------------------- the widget


@pytest.fixture(scope="module")
def window(qapp):
    """One napari for all tests here."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1100, 800)
    gc.collect()
    gc.freeze()
    yield viewer
    viewer.close()
    gc.unfreeze()


@pytest.fixture
def localizer(monkeypatch, tmp_path):
    """The scripted system is registered, and a model of it lies in a folder."""
    source = "tests.napari_plugin.localizer:ScriptedSystem"
    monkeypatch.setitem(systems._OWN, "localization", source)
    caches = (systems._sources, systems.get, models.load_model)
    for cache in caches:
        cache.cache_clear()
    model = tmp_path / "model"
    model.mkdir()
    manifest = {"format": FORMAT, "version": VERSION, "name": "toy", "task": "localization"}
    manifest |= {"settings": {}, "card": {"title": "A toy"}, "metrics": {}, "versions": {}}
    (model / "model.json").write_text(json.dumps(manifest))
    yield model
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def widget(window, localizer, qtbot):
    widget = LocalizeWidget(window)
    widget.models.model = str(localizer)
    window.window.add_dock_widget(widget, name="localize", area="right")
    qtbot.waitExposed(widget)
    yield widget
    window.window.remove_dock_widget(widget)
    window.layers.clear()
    window.dims.ndisplay = 2
    window.reset_view()
    QApplication.processEvents()


def click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def search(qtbot, widget, scan):
    layer = add(widget.viewer, image_layer(show(scan), name="spine"))
    with qtbot.waitSignal(widget.finished, timeout=60_000):
        click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: not widget.running)
    widget.replay.stop()
    return layer


def frame_in(widget):
    return widget.search.shown.frame


def pixel_of(viewer, point_napari, canvas_shape):
    """(x, y) on the viewer's canvas of a point (z, y, x) in the current slice."""
    shown = [axis - (viewer.dims.ndim - 3) for axis in viewer.dims.displayed]
    center = np.array(viewer.scene.camera.center)[-2:]
    down, right = (np.asarray(point_napari)[shown] - center) * viewer.scene.camera.zoom
    return np.array([canvas_shape[0] / 2 + right, canvas_shape[1] / 2 + down])


def drag_world(widget, mouse, start_world, end_world):
    """Drag on the viewer's canvas between two points of the current slice."""
    viewer = widget.viewer
    native = viewer.window._qt_viewer.canvas.native
    QApplication.processEvents()
    frame, size = frame_in(widget), (native.width(), native.height())
    start, end = (pixel_of(viewer, frame.to_napari(p), size) for p in (start_world, end_world))
    mouse.drag(native, start, end, steps=4)
    QApplication.processEvents()


def test_a_search_shows_boxes_with_names_and_how_sure_they_are(widget, qtbot):
    assert widget.targets.names == tuple(BOXES)
    search(qtbot, widget, spine())
    assert widget.status.text().startswith("2 of 3 found in 0.2 s.")
    assert widget.table.text_of("L3")[:3] == ("L3", "93%", "found")
    assert widget.table.text_of(ABSENT)[1:3] == ("", "absent")
    assert widget.table.ticked == ("L3",)
    boxes = widget.editor.layers
    assert set(boxes.boxes_world) == {"L3", "L4"}
    assert list(boxes.labels.features["name"]) == ["L3", "L4"]
    # The agents' boxes are replayed by the slider.
    assert widget.viewer.dims.nsteps[0] == 5
    widget.table.choose("L4")
    at = -np.array(widget.viewer.dims.point)[-3:][::-1]
    np.testing.assert_allclose(at, corners_of("L4").mean(axis=0), atol=1.01)
    assert widget.faces.name.text() == "L4"
    assert [[made.value() for made in row] for row in widget.faces.inputs] == [
        list(row) for row in BOXES["L4"]
    ]


@pytest.mark.parametrize(("order", "axis"), [((1, 2, 3), 0), ((2, 1, 3), 2), ((3, 1, 2), 1)])
def test_a_dragged_face_moves_and_no_other(widget, qtbot, mouse, order, axis):
    viewer = widget.viewer
    search(qtbot, widget, spine(turn_deg=(10, 20, 5)))
    viewer.dims.order = (0, *order)
    widget.table.choose("L3")
    viewer.scene.camera.zoom = 4
    click(qtbot, widget.move_button)
    corners, frame = corners_of("L3"), frame_in(widget)
    # A point of the slice on the face, and one from which the mouse pulls it outwards.
    across = frame.matrix[:, order[0] - 1]
    start = corners.mean(axis=0)
    middle_napari = frame.to_napari(start)
    middle_napari[order[0] - 1] = viewer.dims.point[order[0]]
    start = frame.to_world(middle_napari)
    inward = np.zeros(3)
    inward[axis] = 1.0
    along = inward - across * across[axis]
    start = start + along * (corners[1, axis] - start[axis]) / along[axis]
    end = start + along * 6.0 / along[axis]
    point = viewer.dims.point
    drag_world(widget, mouse, start, end)
    found = widget.result["L3"]
    assert found.status == "by hand"
    expected = corners.copy()
    expected[1, axis] += 6.0
    np.testing.assert_allclose(found.corners_world[1, axis], expected[1, axis], atol=0.3)
    others = np.ones((2, 3), dtype=bool)
    others[1, axis] = False
    np.testing.assert_array_equal(found.corners_world[others], expected[others])
    np.testing.assert_array_equal(widget.result["L4"].corners_world, corners_of("L4"))
    np.testing.assert_array_equal(widget.editor.layers.boxes_world["L3"], found.corners_world)
    # The slice that is worked on stays.
    assert viewer.dims.point == point
    assert widget.table.text_of("L3")[2] == "by hand"
    assert f"{found.corners_world[1, axis]:.1f}" in widget.faces.inputs[1][axis].text()
    click(qtbot, widget.undo_button)
    np.testing.assert_array_equal(widget.result["L3"].corners_world, corners)
    assert widget.result["L3"].status == "found"
    assert not widget.undo_button.isEnabled()


def test_a_box_is_moved_in_the_linked_views_too(widget, qtbot, mouse):
    viewer = widget.viewer
    search(qtbot, widget, spine())
    views = OrthoViews(viewer)
    dock = viewer.window.add_dock_widget(views, name="views", area="right")
    try:
        widget.table.choose("L3")
        click(qtbot, widget.move_button)
        qtbot.waitUntil(lambda: views.up_to_date)
        for view in views.views:
            # Each shows the rectangle where its own plane cuts the box.
            (twin,) = [la for la in view.model.layers if la.name == "boxes"]
            (labels,) = [la for la in view.model.layers if la.name == "boxes: names"]
            across = view.plane.axes[0]
            bright = np.asarray(twin.data)[twin.edge_color[:, 3] == 1]
            assert len(bright) == 4
            rest = [axis for axis in range(3) if axis != across]
            low, high = -corners_of("L3")[::-1][:, ::-1]
            ends = np.concatenate([bright[:, 0], bright.sum(axis=1)])[:, rest]
            np.testing.assert_allclose(ends.min(axis=0), low[rest], atol=1e-5)
            np.testing.assert_allclose(ends.max(axis=0), high[rest], atol=1e-5)
            np.testing.assert_allclose(labels.data[0][rest], low[rest])
        sagittal = views.views[2]
        native = sagittal.canvas.canvas.native
        size = native.width(), native.height()
        middle = corners_of("L3").mean(axis=0)
        front = middle.copy()
        front[1] = 12.0
        start = pixel_of(sagittal.model, STRAIGHT.to_napari(front), size)
        zoom = sagittal.model.scene.camera.zoom
        mouse.drag(native, start, start - (8 * zoom, 0), steps=4)
        corners = widget.result["L3"].corners_world
        expected = corners_of("L3")
        expected[1, 1] = 20.0
        np.testing.assert_allclose(corners, expected, atol=0.6)
        unmoved = np.ones((2, 3), bool)
        unmoved[1, 1] = False
        np.testing.assert_array_equal(corners[unmoved], expected[unmoved])
        qtbot.waitUntil(lambda: views.up_to_date)
    finally:
        viewer.window.remove_dock_widget(dock)


def test_faces_are_typed_boxes_renamed_deleted_and_all_of_it_undone(widget, qtbot):
    search(qtbot, widget, spine())
    widget.table.choose("L3")
    high = widget.faces.inputs[1][2]
    high.setValue(31.5)
    expected = corners_of("L3")
    expected[1, 2] = 31.5
    np.testing.assert_array_equal(widget.result["L3"].corners_world, expected)
    assert widget.table.text_of("L3")[2:] == ("by hand", "a wall moved 6.5 mm")
    high.setValue(-3.0)
    assert "not two corners" in widget.status.text()
    assert high.value() == 31.5
    np.testing.assert_array_equal(widget.result["L3"].corners_world, expected)
    # One level up after all: the name of a box in the scan is taken, that of an absent one free.
    widget.rename("L4")
    assert "already" in widget.status.text()
    widget.faces.name.setText(ABSENT)
    qtbot.keyClick(widget.faces.name, Qt.Key.Key_Return)
    assert widget.result["L3"].status == "absent"
    np.testing.assert_array_equal(widget.result[ABSENT].corners_world, expected)
    assert widget.table.current == ABSENT
    click(qtbot, widget.delete_button)
    assert widget.result[ABSENT].status == "absent"
    assert set(widget.editor.layers.boxes_world) == {"L4"}
    for there in ({"L4", ABSENT}, {"L3", "L4"}, {"L3", "L4"}):
        widget.undo()
        assert set(widget.editor.layers.boxes_world) == there
    np.testing.assert_array_equal(widget.result["L3"].corners_world, corners_of("L3"))
    assert not widget.search.unsaved


def test_a_box_is_drawn_for_an_absent_one_and_without_any_model(widget, qtbot, mouse):
    viewer = widget.viewer
    search(qtbot, widget, spine())
    widget.table.choose(ABSENT)
    viewer.dims.set_point(range(1, 4), (35.0, 0.0, 0.0))
    viewer.scene.camera.zoom = 4
    click(qtbot, widget.draw_button)
    at = -viewer.dims.point[1]
    drag_world(widget, mouse, (-20.0, -15, at), (18.0, 12, at))
    box = widget.result[ABSENT]
    assert box.status == "by hand"
    # As deep as the others are: 20 mm.
    expected = [[-20, -15, at - 10], [18, 12, at + 10]]
    np.testing.assert_allclose(box.corners_world, expected, atol=0.3)
    assert widget.move_button.isChecked()
    click(qtbot, widget.draw_button)
    drag_world(widget, mouse, (-30.0, 20, at), (-25.0, 30, at))
    np.testing.assert_allclose(
        widget.result["box 1"].corners_world, [[-30, 20, at - 10], [-25, 30, at + 10]], atol=0.3
    )
    assert "box 1" in widget.table.ticked
    # Boxes that nobody saved stay when the scan is searched anew.
    with qtbot.waitSignal(widget.finished, timeout=60_000):
        click(qtbot, widget.run_button)
    assert {"boxes", "boxes before"} <= {layer.name for layer in viewer.layers}
    viewer.layers.remove("boxes")
    assert widget.search is None
    assert widget.table.rowCount() == 0
    # Without a search: the boxes of a layer, and new ones.
    viewer.layers.selection = {viewer.layers["boxes before"]}
    click(qtbot, widget.draw_button)
    assert widget.table.names == ("box 1", "L3", "L4", ABSENT)
    assert "boxes before" not in viewer.layers
    assert {box.status for box in widget.result.boxes} == {"by hand"}


def test_results_and_corrections_are_saved(widget, qtbot, tmp_path):
    path = tmp_path / "scans" / "s1.nii.gz"
    path.parent.mkdir()
    scan = spine(turn_deg=(10, 20, 5))
    nib.save(nib.Nifti1Image(scan.numpy()[0], scan.affine.numpy()), path)
    search(qtbot, widget, read(path))
    widget.table.choose("L4")
    widget.faces.inputs[0][0].setValue(-25.0)
    datalist = tmp_path / "training" / "datalist.json"
    widget.save_corrections(datalist)
    assert "2 boxes of s1" in widget.status.text()
    (entry,) = json.loads(datalist.read_text())["training"]
    assert entry == {"image": "../scans/s1.nii.gz", "boxes": "s1.mrk.json"}
    kept = read_boxes(datalist.parent / "s1.mrk.json")
    assert set(kept) == set(SURE) - {ABSENT}
    expected = corners_of("L4")
    expected[0, 0] = -25
    np.testing.assert_allclose(kept["L4"], expected, atol=1e-6)
    np.testing.assert_allclose(kept["L3"], corners_of("L3"), atol=1e-6)
    pytest.importorskip("medrl.localization.results")
    widget.save_results(tmp_path / "out")
    qtbot.waitUntil(lambda: not widget.running, timeout=30_000)
    endings = {".mrk.json", ".csv", ".trajectory.json", ".png"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"s1{e}" for e in endings}
    kept = read_boxes(tmp_path / "out" / "s1.mrk.json")
    np.testing.assert_allclose(kept["L4"], expected, atol=1e-6)


def test_boxes_of_a_file_are_shown_and_saved_as_they_are(widget, qtbot, tmp_path):
    viewer = widget.viewer
    scan = spine(turn_deg=(10, 20, 5))
    write_boxes(tmp_path / "a.mrk.json", {name: corners_of(name) for name in ("L3", "L4")})
    # Without a viewer that they could follow: whole wire frames.
    ((edges, settings, kind),) = layers_without_viewer(tmp_path / "a.mrk.json")
    assert (len(edges), kind, settings["name"]) == (24, "vectors", "a")
    add(viewer, image_layer(show(scan), name="spine"))
    assert read_layers(str(tmp_path / "a.mrk.json")) == [(None,)]
    layer = viewer.layers["a"]
    np.testing.assert_allclose(
        show(scan).frame.to_world(middle_of_points(viewer)),
        np.median([corners_of(name).mean(axis=0) for name in ("L3", "L4")], axis=0),
        atol=1e-9,
    )
    data, meta, _ = layer.as_layer_data_tuple()
    write_box_layer(str(tmp_path / "b.mrk.json"), data, meta)
    back = read_boxes(tmp_path / "b.mrk.json")
    for name in ("L3", "L4"):
        np.testing.assert_allclose(back[name], corners_of(name), atol=1e-6)
    with pytest.raises(MedrlError, match="does not show boxes"):
        write_box_layer(str(tmp_path / "c.mrk.json"), data, {"name": "x"})


def layers_without_viewer(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(napari, "current_viewer", lambda: None)
        return read_layers(str(path))


def test_the_scan_is_cropped_to_a_box(widget, qtbot):
    scan = spine(turn_deg=(10, 20, 5))
    layer = search(qtbot, widget, scan)
    widget.table.choose("L3")
    click(qtbot, widget.crop_button)
    cut = shown_of(widget.viewer.layers["spine L3"])
    # What is cut out lies where it lay, and holds all voxels whose middle is in the box.
    own = np.argwhere(np.ones(scan.shape[1:]))
    world = own @ scan.affine.numpy()[:3, :3].T + scan.affine.numpy()[:3, 3]
    inside = ((world >= BOXES["L3"][0]) & (world <= BOXES["L3"][1])).all(axis=1)
    assert 0 < inside.sum() < len(own)
    there = np.linalg.inv(cut.scan.affine.numpy())
    voxels = world[inside] @ there[:3, :3].T + there[:3, 3]
    at = tuple(np.rint(voxels).astype(int).T)
    np.testing.assert_array_equal(cut.scan.numpy()[0][at], scan.numpy()[0][tuple(own[inside].T)])
    assert cut.scan.numpy().size < scan.numpy().size / 4
    assert cut.frame.same_as(shown_of(layer).frame)
