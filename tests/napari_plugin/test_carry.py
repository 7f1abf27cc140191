"""Carry outlines: drawn in the viewer, carried by whoever knows the truth, corrected again."""

from __future__ import annotations

from pathlib import Path

import napari
import numpy as np
import pytest
import torch
from PIL import Image

from medrl.cutting.answer import Carried, Thing
from medrl.cutting.carry import _by_stack, _outlines
from medrl.cutting.pieces import Joined
from medrl.trajectory import Trajectory
from medrl.volume.film import Film
from medrl_napari import models
from medrl_napari.films.carry import CarryWidget
from medrl_napari.films.layers import Carriable, film_layer
from medrl_napari.readers import read_layers
from medrl_napari.scans import add, image_layer, show
from tests.napari_plugin.conftest import made_scan


class Copier:
    """Copies what is outlined first to all pictures, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int | None, bool]] = []

    def carry(self, data, outlines, *, axis=None, earlier=None, progress=None, watch=None):
        """As a carrier."""
        self.asked.append((axis, earlier is not None))
        known = _outlines(outlines, data)
        axis = 2 if axis is None else axis
        count = len(data) if isinstance(data, Film) else data.shape[1 + axis]
        things = []
        for (stack, value), masks in _by_stack(known, data, axis).items():
            first = torch.from_numpy(next(iter(masks.values()))).float()
            chance = {n: torch.from_numpy(masks[n]).float() if n in masks else first
                      for n in range(count)}  # fmt: skip
            quality = {n: 1.0 if n in masks else 0.9 - 0.01 * n for n in range(count)}
            one = {stack: Joined(chance, quality)}
            things.append(Thing(value, known.names[value], one, {stack: tuple(masks)}))
        return Carried(data, axis, tuple(things), Trajectory("cutting", ()), (), 0.1, {})


@pytest.fixture
def copier(monkeypatch) -> Copier:
    made = Copier()
    monkeypatch.setattr("medrl_napari.films.carry.load_model", lambda *_, **__: made)
    assert models
    return made


@pytest.fixture
def viewer(screen) -> napari.Viewer:
    return napari.Viewer(show=False)


def carried(widget: CarryWidget, qtbot) -> Carried:
    with qtbot.waitSignal(widget.finished, timeout=20000) as told:
        widget.run()
    return told.args[0]


def a_film(colour: bool = True) -> Film:
    values = torch.rand((5, 3 if colour else 1, 30, 20, 1), generator=torch.Generator())
    return Film(255 * values, names=tuple("abcde"))


def test_a_film_is_drawn_on_carried_and_corrected(viewer, copier, qtbot) -> None:
    layer = add(viewer, film_layer(a_film(), name="film"))
    assert layer.data.shape == (5, 20, 30, 3)
    widget = CarryWidget(viewer)
    qtbot.addWidget(widget)
    widget.new_outline()
    drawn = widget.outline.layer
    assert drawn is not None
    assert drawn.data.shape == (5, 20, 30)
    data = np.array(drawn.data)
    data[2, 4:9, 10:17] = 1
    drawn.data = data
    result = carried(widget, qtbot)
    # The film's own grid is column, row; the layer's row, column.
    assert result.mask("object")[0, 10:17, 4:9, 0].all()
    mask = viewer.layers["carried"]
    assert mask.data.shape == (5, 20, 30)
    assert (mask.data[4] == data[2]).all()
    widget.go_to_worst()
    assert viewer.dims.current_step[0] == 4
    widget.correct()
    assert (drawn.data[4] == data[2]).all()
    drawn.data[4] = 0
    drawn.data[4, 0:3, 0:3] = 1
    again = carried(widget, qtbot)
    assert copier.asked == [(None, False), (2, True)]
    assert again.mask("object")[4, 0:3, 0:3, 0].all()


@pytest.mark.parametrize("orientation", ["RAS", "PIL", "LPS"])
def test_outlines_lie_where_they_are_drawn(viewer, copier, qtbot, orientation, tmp_path) -> None:
    scan = made_scan(orientation)
    shown = show(scan)
    layer = add(viewer, image_layer(shown, name="scan"))
    widget = CarryWidget(viewer)
    qtbot.addWidget(widget)
    widget.new_outline()
    drawn = widget.outline.layer
    data = np.array(drawn.data)
    data[5, 3:8, 4:9] = 1  # an axial slice
    drawn.data = data
    result = carried(widget, qtbot)
    assert (shown.to_layer_grid(result.mask("object"))[5] == (data[5] > 0)).all()
    axis = copier.asked[0][0]
    assert axis == shown.scan_axis(0)
    number, _ = result.things[0].worst
    widget.go_to_worst()
    along, index = shown.layer_slice(axis, number)
    assert along == 0
    assert viewer.dims.current_step[-3] == index
    assert layer.data.shape == drawn.data.shape


def test_outlines_of_another_scan_are_refused(viewer, copier, qtbot) -> None:
    add(viewer, film_layer(a_film(), name="film"))
    widget = CarryWidget(viewer)
    qtbot.addWidget(widget)
    viewer.add_labels(np.ones((2, 5, 5), dtype=np.uint8), name="other")
    widget.outline.layer = viewer.layers["other"]
    widget.run()
    assert "another scan" in widget.status.text()
    assert not copier.asked


def test_a_folder_of_pictures_opens_as_a_film(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        pixels = np.full((6, 8), number * 20, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    ((data, settings, kind),) = read_layers(str(tmp_path))
    assert kind == "image"
    assert data.shape == (3, 6, 8)
    assert [int(frame[0, 0]) for frame in data] == [20, 40, 200]
    assert not settings["rgb"]


def test_a_scan_with_a_time_keeps_its_place(viewer) -> None:
    scan = made_scan("LPS", channels=10)
    layer = add(viewer, image_layer(show(scan), name="series"))
    place = Carriable.of(layer, viewer)
    assert len(place.film) == 10
    drawn = np.zeros(layer.data.shape, dtype=np.uint16)
    drawn[3, 5, 6:9, 7:12] = 2
    (number,) = place.outlines(drawn)
    assert number == 3
    labels = np.zeros((10, *scan.shape[1:]), dtype=np.int64)
    labels[3] = place.outlines(drawn)[3]
    assert (place.masks(labels, name="m", names={"x": 2})[0] == drawn).all()
