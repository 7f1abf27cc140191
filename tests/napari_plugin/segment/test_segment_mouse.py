"""Seeds by mouse and key, in a real viewer."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from medrl_napari.segment.layers import OBJECT_COLORS


@pytest.mark.parametrize("grid", ["straight", "finer, anisotropic", "oblique", "permuted"])
def test_clicks_in_slices_of_every_axis(open_user, grid, balls, direct_session):
    user = open_user(grid)
    scan = user.widget._annotation.shown.scan
    wanted = []
    for number, order in enumerate([(0, 1, 2), (1, 0, 2), (2, 0, 1)]):
        user.viewer.dims.order = order
        spot = balls.CENTER + np.roll([4.0, -3.0, 2.0], number)
        user.go_to(spot)
        user.click(spot)
        wanted.append((spot, 1))
        if number == 1:
            user.click(spot + 1.6 * balls.RADIUS * user.right, "shift")
            wanted.append((spot + 1.6 * balls.RADIUS * user.right, 0))
    user.settle()
    user.viewer.dims.order = (0, 1, 2)
    assert [seed.label for seed in user.seeds] == [label for _, label in wanted]
    off = np.array(
        [seed.position_world - point for seed, (point, _) in zip(user.seeds, wanted, strict=True)]
    )
    # Half a voxel across the slice, half a pixel in it.
    voxels = np.abs(off @ np.linalg.inv(np.asarray(scan.affine)[:3, :3]).T)
    assert voxels.max() <= 0.5 + 0.1
    assert (np.sort(voxels, axis=1)[:, :2] <= 0.1).all()
    session = direct_session(scan, user.seeds)
    assert session.mask().sum() > 100
    np.testing.assert_array_equal(user.mask, session.labels()[0])
    # The layer knows where its points are in the patient.
    layer = user.widget._annotation.layers.seeds
    shown = np.array(
        [user.widget._annotation.layers.position_world(n) for n in range(len(layer.data))]
    )
    np.testing.assert_allclose(shown, [s.position_world for s in user.seeds], atol=1e-9)


def test_a_scribble(open_user, direct_session):
    user = open_user()
    center = user.viewer.scene.camera.center
    ends = np.array([user.at(-8, 0, 0), user.at(0, 6, 0), user.at(8, 6, 0)])
    user.drag(ends)
    user.settle()
    (seed,) = user.seeds
    assert seed.is_scribble
    steps = np.linalg.norm(np.diff(seed.points_world, axis=0), axis=1)
    assert 0 < steps.max() <= 1.0 + 1e-9  # half a voxel: dots that look like a line
    np.testing.assert_allclose(seed.points_world[[0, -1]], ends[[0, -1]], atol=1.2)
    nearest = np.linalg.norm(seed.points_world - ends[1], axis=1).min()
    assert nearest < 1.2
    assert len(user.widget._annotation.layers.seeds.data) == len(seed.points_world)
    session = direct_session(user.widget._annotation.shown.scan, [seed])
    np.testing.assert_array_equal(user.mask, session.labels()[0])
    assert user.viewer.scene.camera.center[1:] == center[1:]  # the picture has not moved


def test_3d(open_user, balls):
    spot = balls.CENTER + np.array([12.0, -7.0, 5.0])
    scan = balls.ball_scan(*balls.GRIDS["oblique"], center=spot, radius=5.0, dim=False)
    user = open_user(scan=scan)
    user.viewer.dims.ndisplay = 3
    user.viewer.scene.camera.angles = (15, 35, 110)
    user.viewer.scene.camera.zoom = 5
    user.draw()
    user.click(spot)
    user.settle()
    (seed,) = user.seeds
    off = np.linalg.inv(np.asarray(scan.affine)[:3, :3]) @ (seed.position_world - spot)
    assert np.abs(off).max() <= 1.0
    assert user.mask.any()
    # A drag turns the scene and places nothing; with Ctrl it draws.
    before = user.viewer.scene.camera.angles
    user.drag(
        [spot + np.array([4, 0, 0]), spot + np.array([14, 8, 0]), spot + np.array([24, 10, 0])]
    )
    assert user.viewer.scene.camera.angles != before
    user.settle()
    assert len(user.seeds) == 1
    user.viewer.scene.camera.angles = before
    user.draw()
    user.drag([spot, spot + np.array([2, 0, 0]), spot + np.array([4, 1, 0])], "ctrl")
    user.settle()
    assert user.viewer.scene.camera.angles == before
    assert user.seeds[1].is_scribble
    assert np.linalg.norm(user.seeds[1].points_world - spot, axis=1).max() < 10.0
    # Beside the scan there is nothing.
    user.click(balls.CENTER + 70 * user.right)
    assert "nothing of the scan" in user.widget.status.text()


def test_undo_redo_and_removing_by_keys(open_user):
    user = open_user()
    masks = []
    for offset in ([0, 0, 0], [6, 0, 0], [0, -12, 0]):
        user.click(user.at(*offset), "shift" if offset[1] else None)
        user.settle()
        masks.append(user.mask.copy())
    assert [seed.label for seed in user.seeds] == [1, 1, 0]
    assert not np.array_equal(masks[2], masks[1])
    user.undo()
    user.settle()
    assert len(user.seeds) == 2
    np.testing.assert_array_equal(user.mask, masks[1])
    user.redo()
    user.settle()
    assert len(user.seeds) == 3
    np.testing.assert_array_equal(user.mask, masks[2])
    user.hover(user.at(0, -12, 0))
    user.key(Qt.Key.Key_Delete)
    user.settle()
    assert [seed.label for seed in user.seeds] == [1, 1]
    user.key(Qt.Key.Key_Delete)
    assert "no seed under the mouse" in user.widget.status.text()
    # The same by buttons, and with another layer selected.
    user.viewer.layers.selection.active = user.viewer.layers["ball"]
    assert not user.widget.place.isChecked()
    user.undo()
    user.settle()
    assert len(user.seeds) == 3
    for count in (2, 1, 0):
        user.press(user.widget.undo)
        user.settle()
        assert len(user.seeds) == count
    assert not user.mask.any()
    assert not user.widget.undo.isEnabled()
    user.press(user.widget.redo)
    user.settle()
    np.testing.assert_array_equal(user.mask, masks[0])
    user.press(user.widget.place)
    user.key(Qt.Key.Key_X)
    assert user.widget.background.isChecked()
    user.click(user.at(0, -12, 0))
    user.settle()
    assert [seed.label for seed in user.seeds] == [1, 0]


def test_naparis_own_tools(open_user):
    user = open_user()
    user.click(user.at())
    user.settle()
    layer = user.widget._annotation.layers.seeds
    layer.mode = "add"
    user.click(user.at(6, 0, 0))
    user.settle()
    assert len(user.seeds) == 2
    np.testing.assert_allclose(user.seeds[1].position_world, user.at(6, 0, 0), atol=0.3)
    layer.mode = "select"
    layer.selected_data = {0}
    user.key(Qt.Key.Key_Delete)
    user.settle()
    assert len(user.seeds) == 1
    np.testing.assert_allclose(user.seeds[0].position_world, user.at(6, 0, 0), atol=0.3)
    user.drag([user.at(6, 0, 0), user.at(7, 2, 0), user.at(8, 4, 0)])
    user.settle()
    (seed,) = user.seeds
    np.testing.assert_allclose(seed.position_world, user.at(8, 4, 0), atol=0.6)
    # A layer that was removed comes back.
    user.viewer.layers.remove("seeds")
    user.viewer.layers.remove("objects")
    user.press(user.widget.undo)
    user.settle()
    assert len(user.viewer.layers["seeds"].data) == len(user.seeds) > 0
    assert user.mask.any()


def test_drawing_corrects_the_mask(open_user):
    user = open_user()
    user.click(user.at())
    user.settle()
    before = user.mask.copy()
    objects = user.widget._annotation.layers.objects
    user.viewer.layers.selection.active = objects
    away = user.at(0, 22, 0)
    for mode, label in (("paint", 1), ("erase", 0)):
        spot = away if label else user.at(0, 6, 0)
        objects.mode, objects.brush_size = mode, 3
        user.draw()
        user.drag([spot, spot + np.array([2, 0, 0])])
        drawn = user.mask.copy()
        changed = drawn != before
        assert changed.any()
        user.settle()
        assert (user.mask[changed] == label).all()
        assert user.widget._seeds.state.can_undo
        before = user.mask.copy()
    objects.mode = "pan_zoom"
    # What was drawn outlasts another seed, and can be undone.
    user.press(user.widget.place)
    user.click(user.at(-6, 0, 0))
    user.settle()
    grid = np.linalg.inv(np.asarray(user.widget._annotation.shown.scan.affine))
    index = tuple(np.floor(grid[:3, :3] @ away + grid[:3, 3] + 0.5).astype(int))
    assert user.mask[index] == 1
    for _ in range(3):
        user.undo()
    user.settle()
    assert user.mask[index] == 0
    # A number that no object has is taken back.
    objects.selected_label = 7
    objects.mode = "paint"
    user.viewer.layers.selection.active = objects
    user.drag([away, away])
    user.until(lambda: "no object 7" in user.widget.status.text())
    assert user.mask[index] == 0


def test_the_color_is_on_the_screen(open_user):
    user = open_user()
    user.click(user.at())
    user.settle()
    user.widget._annotation.layers.objects.opacity = 1.0
    picture = user.viewer.screenshot(flash=False)
    ratio = picture.shape[1] / user.canvas.native.width()
    blue = [int(OBJECT_COLORS[0][n : n + 2], 16) for n in (1, 3, 5)]
    inside = user.pixel(user.at(6, 0, 0))
    outside = user.pixel(user.at(22, 0, 0))
    color = picture[round(inside[1] * ratio), round(inside[0] * ratio), :3]
    np.testing.assert_allclose(color, blue, atol=3)
    other = picture[round(outside[1] * ratio), round(outside[0] * ratio), :3].astype(int)
    assert np.ptp(other) < 3  # grey
