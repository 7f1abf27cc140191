"""Every widget fits a small window and a large one: nothing is cut, nothing covers anything."""

from itertools import combinations

import napari
import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QPoint, QRect
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QSlider,
    QTableWidget,
)

from medrl_napari.detect.widget import DetectWidget
from medrl_napari.localize.widget import LocalizeWidget
from medrl_napari.names import name_boxes, thin_names, without_overlap
from medrl_napari.panel.widget import AgentPanel
from medrl_napari.points import points_layer
from medrl_napari.register.widget import RegisterWidget
from medrl_napari.scans import add, image_layer, show
from medrl_napari.segment.widget import SegmentWidget
from medrl_napari.space import STRAIGHT
from medrl_napari.views.widget import OrthoViews
from medrl_napari.widgets import WholeRows
from tests.napari_plugin.conftest import made_scan

SIZES = [(900, 700), (1600, 1200)]
KINDS = [DetectWidget, LocalizeWidget, SegmentWidget, RegisterWidget, AgentPanel, OrthoViews]
PARTS = (QAbstractButton, QAbstractSpinBox, QComboBox, QLabel, QSlider, WholeRows)


@pytest.fixture
def viewer(qapp):
    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    add(viewer, image_layer(show(made_scan()), name="head"))
    yield viewer
    viewer.close()


def docked(viewer, widget, size, qtbot):
    viewer.window.add_dock_widget(widget, name="it", area="right")
    viewer.window.resize(*size)
    qtbot.waitUntil(
        lambda: (window_of(viewer).width(), window_of(viewer).height()) == size, timeout=20_000
    )
    qtbot.wait(200)


def window_of(viewer):
    return viewer.window._qt_window


def parts_of(widget):
    found = [part for kind in PARTS for part in widget.findChildren(kind)]
    return list(dict.fromkeys(part for part in found if part.isVisible()))


def place(part, widget):
    return QRect(part.mapTo(widget, QPoint(0, 0)), part.size())


def assert_apart(boxes):
    """No two boxes (left, top, right, bottom) overlap."""
    for one, other in combinations(boxes, 2):
        beside = one[2] <= other[0] or other[2] <= one[0]
        assert beside or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_in_its_place(viewer, qtbot, kind, size):
    widget = kind(viewer)
    docked(viewer, widget, size, qtbot)
    # What scrolls is whole in what it scrolls in.
    body = widget.widget() if hasattr(widget, "widget") else widget
    assert body.width() <= getattr(widget, "viewport", lambda: widget)().width()
    assert window_of(viewer).rect().contains(place(widget, window_of(viewer)))
    own = [part for part in parts_of(body) if not isinstance(part.parent(), QComboBox)]
    assert len(own) > 5
    for part in own:
        assert body.rect().contains(place(part, body)), part
        assert part.width() >= min(part.minimumSizeHint().width(), 60), part
    siblings = [(a, b) for a, b in combinations(own, 2) if a.parent() is b.parent()]
    for one, other in siblings:
        overlap = place(one, body).intersected(place(other, body))
        assert overlap.isEmpty() or one.isAncestorOf(other), (one, other)


def test_no_row_of_a_table_is_cut(viewer, qtbot):
    widget = DetectWidget(viewer)
    docked(viewer, widget, SIZES[0], qtbot)
    widget.status.say("One line after another. " * 12)
    QApplication.processEvents()
    for table in widget.findChildren(QTableWidget):
        height = table.verticalHeader().defaultSectionSize()
        assert table.viewport().height() % height == 0
        assert table.viewport().height() >= 4 * height
        assert not table.horizontalScrollBar().isVisible()


def test_the_window_line_fits_the_small_window(viewer, qtbot):
    views = OrthoViews(viewer)
    docked(viewer, views, SIZES[0], qtbot)
    contrast = views.contrast
    for box in (contrast.width_box, contrast.level_box):
        assert contrast.rect().contains(place(box, contrast))
        box.setValue(-1234.5)
        text = box.fontMetrics().horizontalAdvance(box.text())
        assert box.lineEdit().width() >= text


def test_names_never_cover_one_another():
    rng = np.random.default_rng(0)
    world = rng.uniform(-60, 60, (80, 3))
    world[:, 2] = rng.uniform(-3, 3, 80)
    model = ViewerModel()
    model.add_image(np.zeros((130, 130, 130)), translate=(-65,) * 3, units=("mm",) * 3)
    names = [f"landmark {number}" for number in range(80)]
    layer = add(model, points_layer(names, world, STRAIGHT, name="landmarks"))
    layer.text.visible = True
    model.dims.thickness = (10.0, 10.0, 10.0)
    layer.projection_mode = "all"
    thin_names(model)
    before = set()
    for zoom in (1.0, 2.5, 6.0):
        model.scene.camera.zoom = zoom
        for point in ((0.0, 0, 0), (2.0, 0, 0)):
            model.dims.set_point(range(3), point)
            rows = [int(row) for row in layer._view_indices]
            boxes, depth = name_boxes(model, layer, rows)
            shown = layer.text.color.array[rows, 3] > 0
            assert 0 < shown.sum() < len(rows)
            assert_apart(boxes[shown])
            # Whoever is hidden would cover one that is nearer to the slice.
            assert shown[int(np.argmin(depth))]
            before.add(int(shown.sum()))
    # The nearer one looks, the more names there is room for.
    assert len(before) > 2
    hidden = next(row for row in rows if not layer.text.color.array[row, 3])
    layer.selected_data = {hidden}
    model.dims.set_point(0, 1.0)
    if hidden in layer._view_indices:
        assert layer.text.color.array[hidden, 3] == 1


def test_of_boxes_that_overlap_the_first_by_rank_is_shown():
    boxes = [[0, 0, 10, 4], [5, 2, 15, 6], [11, 0, 20, 4], [0, 10, 5, 12]]
    assert list(without_overlap(boxes, [1, 0, 2, 3])) == [False, True, False, True]
    assert list(without_overlap(boxes, [0, 1, 2, 3])) == [True, False, True, True]
    assert not len(without_overlap(np.empty((0, 4)), []))


def test_each_view_has_its_own_names(viewer, qtbot):
    world = np.array([[0.0, 0, 0], [0, 0, 20], [1, 30, 0]])
    layer = add(viewer, points_layer(["one", "two", "three"], world, STRAIGHT, name="points"))
    layer.projection_mode = "all"
    viewer.dims.thickness = (200.0, 200.0, 200.0)
    views = OrthoViews(viewer)
    docked(viewer, views, SIZES[0], qtbot)
    qtbot.waitUntil(lambda: views.up_to_date)
    for view in views.views:
        (twin,) = [la for la in view.model.layers if la.name == "points"]
        rows = [int(row) for row in twin._view_indices]
        shown = twin.text.color.array[rows, 3] > 0
        boxes, _ = name_boxes(view.model, twin, rows)
        assert_apart(boxes[shown])
        assert shown.any()
