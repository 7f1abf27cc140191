"""Three linked views in a real window: what is where, and that all follow what one does."""

import gc

import napari
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from napari.qt import QtViewer

from medrl_napari.scans import add, image_layer, labels_layer, show
from medrl_napari.segment.tool import SeedTool
from medrl_napari.views.widget import OrthoViews

#: A single bright voxel, (i, j, k), nowhere near the middle, and where it is by the affine.
VOXEL = (31, 12, 33)
SPACING = (1.5, 2.0, 3.0)
ORIGIN = (-34.0, -50.0, -70.0)
WORLD = np.array(VOXEL) * SPACING + ORIGIN
#: napari's world is (z, y, x) towards feet, back and left.
PLACE = -WORLD[::-1]
#: Down and right in each view, among (z, y, x): by the definition of the planes, and radiological.
AXES = {"axial": (1, 2), "coronal": (0, 2), "sagittal": (0, 1)}
#: Another voxel's centre, as napari's sliders take no others.
ELSEWHERE = (4.0, 4.0, 2.5)


def spot_scan() -> MetaTensor:
    """Faint noise with the bright voxel."""
    rng = np.random.default_rng(0)
    volume = rng.uniform(0, 20, (48, 48, 48)).astype(np.float32)
    volume[VOXEL] = 1000
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = ORIGIN
    return MetaTensor(torch.from_numpy(volume)[None], affine=torch.from_numpy(affine))


@pytest.fixture(scope="module", autouse=True)
def little_garbage():
    """napari collects garbage whenever a layer goes: not that of all of torch each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def test_nothing_is_left_behind(qtbot):
    """The dock closed, and the window closed with the dock open: no callback, no canvas stays."""
    before = len(QtViewer._instances)
    _open_and_close(qtbot, before)
    qtbot.wait(50)
    gc.collect()
    assert len(QtViewer._instances) == before


def _open_and_close(qtbot, before: int) -> None:
    viewer = napari.Viewer(show=False, show_welcome_screen=False)
    callbacks = _callbacks(viewer)
    add(viewer, image_layer(show(spot_scan()), name="scan"))
    own = _callbacks(viewer)
    views = OrthoViews(viewer)
    dock = viewer.window.add_dock_widget(views, name="views", area="right")
    assert _callbacks(viewer) > own
    assert len(QtViewer._instances) == before + 4
    dock.destroyOnClose()
    assert _callbacks(viewer) == own
    viewer.layers.clear()
    assert _callbacks(viewer) == callbacks
    del views, dock
    qtbot.wait(50)
    gc.collect()
    assert len(QtViewer._instances) == before + 1
    viewer.window.add_dock_widget(OrthoViews(viewer), name="views", area="right")
    add(viewer, image_layer(show(spot_scan()), name="scan"))
    viewer.close()


def _callbacks(viewer) -> int:
    """How many callbacks wait on a viewer and its layers."""
    groups = [viewer.events, viewer.dims.events, viewer.layers.events]
    groups += [viewer.layers.selection.events, *(layer.events for layer in viewer.layers)]
    mouse = (viewer.mouse_drag_callbacks, viewer.mouse_move_callbacks)
    counted = [len(emitter.callbacks) for group in groups for emitter in group.emitters.values()]
    return sum(counted) + sum(map(len, mouse)) + len(viewer.keymap)


# -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def window(qapp):
    """One viewer with the views, for all tests that follow."""
    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    viewer.window._qt_window.resize(900, 700)
    views = OrthoViews(viewer)
    viewer.window.add_dock_widget(views, name="views", area="right")
    yield viewer, views
    viewer.close()


@pytest.fixture
def viewer(window, qtbot):
    """The viewer with the scan, its slices away from the bright voxel."""
    viewer, views = window
    views.crosshair_visible = True
    add(viewer, image_layer(show(spot_scan()), name="scan"))
    viewer.layers["scan"].contrast_limits = (0, 1000)
    viewer.dims.set_point((0, 1, 2), ELSEWHERE)
    settle(qtbot, views)
    views.fit()
    settle(qtbot, views)
    yield viewer
    viewer.layers.clear()
    settle(qtbot, views)


@pytest.fixture
def views(window):
    """The views, by name."""
    return dict(zip(AXES, window[1].views, strict=True))


@pytest.fixture
def up_to_date(window, qtbot):
    """Waits until the views show all that has happened."""
    return lambda: settle(qtbot, window[1])


def settle(qtbot, views) -> None:
    """The views show all that has happened, and the window has laid itself out for it."""
    sizes: list[list] = []

    def steady() -> bool:
        sizes.append([view.canvas.canvas.size for view in views.views])
        return views.up_to_date and sizes[-5:] == [sizes[-1]] * 5

    qtbot.waitUntil(steady, timeout=30_000)


def picture(view) -> np.ndarray:
    """What is on a canvas, (height, width, 3)."""
    return view.canvas.screenshot(flash=False)[..., :3].astype(float)


def pixel(view, name: str, place=PLACE) -> np.ndarray:
    """Where a point of napari's world must be on a canvas, (x, y)."""
    down, right = AXES[name]
    camera = view.model.scene.camera
    height, width = picture(view).shape[:2]
    x = width / 2 + (place[right] - camera.center[2]) * camera.zoom
    y = height / 2 + (place[down] - camera.center[1]) * camera.zoom
    return np.array([x, y])


def bright(view) -> np.ndarray:
    """Pixels (N, 2), (x, y), that are nearly white."""
    return np.argwhere(picture(view).min(axis=-1) > 240)[:, ::-1]


def canvas(view):
    return view.canvas.canvas.native


def go_to(viewer, place) -> None:
    viewer.dims.set_point((0, 1, 2), place)


@pytest.mark.parametrize("name", AXES)
def test_a_voxel_is_where_its_world_position_projects(viewer, views, up_to_date, window, name):
    view = views[name]
    assert not len(bright(view))
    window[1].crosshair_visible = False
    go_to(viewer, PLACE)
    up_to_date()
    spot = bright(view)
    # As large as the voxel, and in the right place to the pixel.
    down, right = AXES[name]
    size = np.array([SPACING[2 - right], SPACING[2 - down]]) * view.model.scene.camera.zoom
    np.testing.assert_allclose(np.ptp(spot, axis=0) + 1, size, atol=1.2)
    np.testing.assert_allclose(spot.mean(axis=0) + 0.5, pixel(view, name), atol=1.0)


def test_letters_say_which_side_is_which(viewer, views, up_to_date, window):
    """A move towards a side makes the bright voxel, which stays, move to the other."""
    sides = {"R": (2, -1), "L": (2, 1), "A": (1, -1), "P": (1, 1), "S": (0, -1), "I": (0, 1)}
    for view in views.values():
        left, right, top, bottom, _ = view._letters
        width, height = canvas(view).width(), canvas(view).height()
        assert left.x() < width / 4 < 3 * width / 4 < right.x()
        assert top.y() < height / 4 < 3 * height / 4 < bottom.y()
    for name, view in views.items():
        for letter, (axis, sign) in sides.items():
            if axis in AXES[name]:
                label = next(lb for lb in view._letters if lb.text() == letter)
                there = np.array(PLACE)
                there[axis] += sign * 20
                moved = pixel(view, name, there) - pixel(view, name)
                middle = np.array([label.x() + label.width() / 2, label.y() + label.height() / 2])
                outward = middle - [canvas(view).width() / 2, canvas(view).height() / 2]
                assert moved @ outward > 0.9 * np.linalg.norm(moved) * np.linalg.norm(outward)


def test_the_mouse_moves_the_crosshair_and_all_views_follow(viewer, views, up_to_date, mouse):
    axial, coronal, sagittal = views.values()
    assert viewer.dims.point == ELSEWHERE
    start = pixel(axial, "axial", ELSEWHERE)
    mouse.drag(canvas(axial), start, pixel(axial, "axial"))
    up_to_date()
    # Under the mouse to the pixel; the slice that was clicked in stays.
    atol = 1 / axial.model.scene.camera.zoom
    np.testing.assert_allclose(viewer.dims.point[1:], PLACE[1:], atol=atol)
    assert viewer.dims.point[0] == ELSEWHERE[0]
    mouse.click(canvas(coronal), pixel(coronal, "coronal"))
    up_to_date()
    np.testing.assert_allclose(viewer.dims.point, PLACE, atol=0.7)
    for name, view in views.items():
        near = np.linalg.norm(bright(view) - pixel(view, name), axis=1)
        assert len(near)
        assert near.max() < 2.5 * view.model.scene.camera.zoom
    # With Shift, it follows without a click.
    mouse.move(canvas(sagittal), pixel(sagittal, "sagittal", ELSEWHERE), modifier="shift")
    up_to_date()
    np.testing.assert_allclose(viewer.dims.point[:2], ELSEWHERE[:2], atol=0.7)
    assert viewer.dims.point[2] == pytest.approx(PLACE[2], abs=0.7)


def test_the_crosshair_is_drawn_where_the_slices_meet(viewer, views, up_to_date, window):
    go_to(viewer, (19.0, 16.0, -8.0))
    up_to_date()
    for name, view in views.items():
        image = picture(view)
        window[1].crosshair_visible = False
        lines = np.abs(image - picture(view)).sum(axis=-1) > 60
        window[1].crosshair_visible = True
        x, y = pixel(view, name, (19.0, 16.0, -8.0))
        column, row = lines.sum(axis=0), lines.sum(axis=1)
        assert abs(column.argmax() + 0.5 - x) <= 1
        assert abs(row.argmax() + 0.5 - y) <= 1
        assert column.max() > 0.8 * len(row)
        # What is in the middle can be seen.
        assert not lines[round(y) - 5 : round(y) + 5, round(x) - 5 : round(x) + 5].any()


def test_the_crosshair_has_a_key_and_a_button(viewer, views, window, qtbot):
    from qtpy.QtCore import Qt

    shown = [view.crosshair_visible for view in views.values()]
    assert shown == [True] * 3
    qtbot.mouseClick(window[1].crosshair_button, Qt.MouseButton.LeftButton)
    assert not any(view.crosshair_visible for view in views.values())
    qtbot.keyClick(canvas(views["axial"]), Qt.Key.Key_X, Qt.KeyboardModifier.ShiftModifier)
    assert all(view.crosshair_visible for view in views.values())


def test_the_wheel_goes_through_the_slices(viewer, views, up_to_date, mouse):
    for name, view in views.items():
        go_to(viewer, PLACE)
        (across,) = {0, 1, 2} - set(AXES[name])
        mouse.turn(canvas(view), (50, 50), 2)
        up_to_date()
        expected = np.array(PLACE)
        # Two of the scan's own slices, towards head, front or right.
        expected[across] -= 2 * SPACING[2 - across]
        np.testing.assert_allclose(viewer.dims.point, expected, atol=1e-6)
        assert not len(bright(view))
        mouse.turn(canvas(view), (50, 50), -2)
        up_to_date()
        np.testing.assert_allclose(viewer.dims.point, PLACE, atol=1e-6)
        assert len(bright(view))


def test_zoom_and_pan_keep_what_is_under_the_mouse(viewer, views, up_to_date, mouse, window):
    window[1].crosshair_visible = False
    go_to(viewer, PLACE)
    view = views["coronal"]
    before, zoom = pixel(view, "coronal"), view.model.scene.camera.zoom
    mouse.move(canvas(view), before)
    mouse.turn(canvas(view), before, 3, modifier="ctrl")
    assert view.model.scene.camera.zoom > 1.3 * zoom
    np.testing.assert_allclose(pixel(view, "coronal"), before, atol=0.6)
    shift = np.array([15, -10])
    mouse.drag(canvas(view), before, before + shift, button="middle")
    up_to_date()
    np.testing.assert_allclose(bright(view).mean(axis=0) + 0.5, before + shift, atol=1.5)
    np.testing.assert_allclose(viewer.dims.point, PLACE, atol=1e-6)


def colored(view) -> np.ndarray:
    """Pixels (N, 2), (x, y), that are not grey."""
    image = picture(view)
    return np.argwhere(image.max(axis=-1) - image.min(axis=-1) > 60)[:, ::-1]


def test_what_is_painted_in_one_view_is_in_all(viewer, views, up_to_date, mouse, window):
    window[1].crosshair_visible = False
    scan = viewer.layers["scan"]
    labels = add(
        viewer,
        labels_layer(scan.metadata["medrl"], np.zeros((48, 48, 48), np.uint8), name="mask"),
    )
    go_to(viewer, PLACE)
    labels.brush_size = 4
    labels.mode = "paint"
    up_to_date()
    assert not any(len(colored(view)) for view in views.values())
    told = []
    labels.events.paint.connect(told.append)
    coronal = views["coronal"]
    mouse.click(canvas(coronal), pixel(coronal, "coronal"))
    up_to_date()
    # The arrays are the same ones: nothing was copied.
    for view in views.values():
        for layer, twin in zip(viewer.layers, view.model.layers, strict=True):
            assert np.shares_memory(layer.data, twin.data)
    painted = np.argwhere(labels.data)
    index = np.round(labels.world_to_data(PLACE)).astype(int)
    assert len(painted) > 4
    np.testing.assert_allclose(painted.mean(axis=0), index, atol=0.5)
    assert set(painted[:, 1]) == {index[1]}
    assert len(told) == 1
    for name, view in views.items():
        spot = colored(view)
        assert len(spot), name
        np.testing.assert_allclose(spot.mean(axis=0) + 0.5, pixel(view, name), atol=4)
    labels.undo()
    up_to_date()
    assert not labels.data.any()
    assert not any(len(colored(view)) for view in views.values())
    # And the other way round: drawn by a tool on the viewer's layer, without a word.
    labels.data[tuple(index)] = 3
    labels.refresh()
    up_to_date()
    assert all(len(colored(view)) for view in views.values())


def test_points_are_added_and_moved_in_any_view(viewer, views, up_to_date, mouse, window):
    window[1].crosshair_visible = False
    points = viewer.add_points(
        np.empty((0, 3)),
        size=8,
        face_color="red",
        border_color="red",
        axis_labels=("z", "y", "x"),
        units=("mm",) * 3,
    )
    go_to(viewer, PLACE)
    points.mode = "add"
    told = []
    points.events.data.connect(lambda event: told.append((str(event.action), event.data_indices)))
    up_to_date()
    sagittal, axial = views["sagittal"], views["axial"]
    mouse.click(canvas(sagittal), pixel(sagittal, "sagittal"))
    up_to_date()
    assert points.data.shape == (1, 3)
    np.testing.assert_allclose(points.data[0], PLACE, atol=0.7)
    assert told[-1] == ("added", (-1,))
    for name, view in views.items():
        place = pixel(view, name, points.data[0])
        np.testing.assert_allclose(colored(view).mean(axis=0) + 0.5, place, atol=3)
    points.mode = "select"
    up_to_date()
    target = points.data[0] + (0, 9, -12)
    start, end = (pixel(axial, "axial", p) for p in (points.data[0], target))
    mouse.drag(canvas(axial), start, end, steps=5)
    up_to_date()
    np.testing.assert_allclose(points.data[0], target, atol=1.5)
    assert told[-1][0] == "changed"
    assert set(points.selected_data) == {0}
    spot = colored(views["coronal"])
    assert not len(spot), "the point left the coronal slice"
    points.remove_selected()
    up_to_date()
    assert not any(len(colored(view)) for view in views.values())


@pytest.mark.parametrize("ndisplay", [2, 3])
def test_a_widgets_tool_works_in_every_view(viewer, views, up_to_date, mouse, ndisplay):
    """Seeds are placed with the mouse in the linked views as well, also beside a 3D view."""
    strokes = []
    scan = viewer.layers["scan"].metadata["medrl"]
    points = viewer.add_points(ndim=3, axis_labels=("z", "y", "x"), units=("mm",) * 3)
    tool = SeedTool(
        viewer,
        scan,
        on_stroke=lambda where, shifted: strokes.append((where, shifted)),
        on_draft=lambda where, shifted: None,
    )
    tool.attach(points)
    go_to(viewer, PLACE)
    viewer.dims.ndisplay = ndisplay
    viewer.layers.selection.active = points
    up_to_date()
    for name, view in views.items():
        mouse.click(canvas(view), pixel(view, name))
        (where, shifted) = strokes.pop()
        assert not strokes
        assert not shifted
        np.testing.assert_allclose(where, [WORLD], atol=0.7)
    # The crosshair stays: the button belongs to the tool.
    np.testing.assert_allclose(viewer.dims.point, PLACE, atol=1e-6)
    view = views["sagittal"]
    target = PLACE + np.array([12, 0, 0])
    ends = [pixel(view, "sagittal", place) for place in (PLACE, target)]
    mouse.drag(canvas(view), *ends, modifier="shift")
    (where, shifted) = strokes.pop()
    assert shifted
    np.testing.assert_allclose(where[-1], WORLD - (0, 0, 12), atol=1.5)
    assert len(where) > 5
    tool.release()
    viewer.dims.ndisplay = 2


def test_layers_and_their_looks_are_followed(viewer, views, up_to_date, window):
    scan = viewer.layers["scan"]
    other = add(viewer, image_layer(show(spot_scan()), name="other"))
    mask = np.zeros((48, 48, 48), np.uint8)
    labels = add(viewer, labels_layer(scan.metadata["medrl"], mask, name="mask"))
    viewer.layers.move(2, 0)
    other.name, other.visible, other.opacity = "renamed", False, 0.3
    scan.contrast_limits, scan.colormap, scan.blending = (3, 12), "magma", "additive"
    labels.selected_label, labels.brush_size, labels.mode = 5, 9, "erase"
    viewer.layers.selection.active = labels
    up_to_date()
    for view in views.values():
        twins = view.model.layers
        assert [layer.name for layer in twins] == ["mask", "scan", "renamed"]
        assert (twins[2].visible, twins[2].opacity) == (False, 0.3)
        assert list(twins[1].contrast_limits) == [3, 12]
        assert (twins[1].colormap.name, twins[1].blending) == ("magma", "additive")
        painted = twins[0]
        assert view.model.layers.selection.active is painted
        assert (painted.selected_label, painted.brush_size, painted.mode) == (5, 9, "erase")
    labels.data = np.ones_like(mask)
    viewer.layers.remove(other)
    up_to_date()
    for view in views.values():
        assert [layer.name for layer in view.model.layers] == ["mask", "scan"]
        assert np.shares_memory(view.model.layers[0].data, labels.data)


def test_a_time_axis_is_followed(viewer, views, up_to_date, window):
    window[1].crosshair_visible = False
    scan = viewer.layers["scan"]
    series = np.zeros((3, *scan.data.shape), np.float32)
    series[1] = 100
    viewer.add_image(
        series,
        contrast_limits=(0, 100),
        scale=(1, *scan.scale),
        translate=(0, *scan.translate),
        axis_labels=("t", "z", "y", "x"),
        units=("s", "mm", "mm", "mm"),
    )
    for moment, white in ((0, False), (1, True), (2, False)):
        viewer.dims.set_point((0, 1, 2, 3), (moment, *ELSEWHERE))
        up_to_date()
        for name, view in views.items():
            x, y = pixel(view, name, ELSEWHERE).round().astype(int)
            assert (picture(view)[y, x].min() > 240) == white, (name, moment)


def test_a_scan_is_fitted_the_same_beside_a_time_axis(viewer, views, up_to_date, window):
    def fitted():
        up_to_date()
        for view in views.values():
            view.fit()
        cameras = [view.model.scene.camera for view in views.values()]
        return np.array([(camera.zoom, *camera.center[-2:]) for camera in cameras])

    alone = fitted()
    axes = {"axis_labels": ("t", "z", "y", "x"), "units": ("s", "mm", "mm", "mm")}
    viewer.add_points([[0, *PLACE], [4, *PLACE]], **axes)
    np.testing.assert_allclose(fitted(), alone, rtol=0.01, atol=0.01)


def test_position_and_intensity_are_told(viewer, views, up_to_date, window):
    go_to(viewer, PLACE)
    up_to_date()
    right, front, up = WORLD
    told = window[1].position_label.text()
    assert told.startswith(f"R {right:.1f}  A {front:.1f}  S {up:.1f} mm")
    assert told.endswith("1000")


def test_double_click_shows_a_plane_in_the_main_view(viewer, views, qtbot):
    from qtpy.QtCore import Qt

    viewer.dims.ndisplay = 3
    qtbot.mouseDClick(canvas(views["sagittal"]), Qt.MouseButton.LeftButton)
    assert viewer.dims.ndisplay == 2
    assert viewer.dims.order == (2, 0, 1)
    viewer.dims.order = (0, 1, 2)
