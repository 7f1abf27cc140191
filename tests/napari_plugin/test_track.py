"""Track objects: boxes and paths move with the slider, corrections go to the agents."""

from __future__ import annotations

from pathlib import Path

import napari
import numpy as np
import pytest
import torch

from medrl.tracking.objects.corrections import Placed, Swapped
from medrl.tracking.objects.tracks import Tracks
from medrl.volume.film import Film
from medrl_napari.films.layers import film_layer
from medrl_napari.films.track import TrackWidget
from medrl_napari.scans import add


class Follower:
    """Takes the identities that detections come with, and notes what it was asked."""

    def __init__(self) -> None:
        self.corrections: list = []

    def follow(self, frames, detections=None, *, tracks=None, corrections=(), **_) -> Tracks:
        """As a tracker."""
        self.corrections += corrections
        if tracks is not None:
            return tracks
        order = np.lexsort((detections.frame, detections.track))
        known = detections.select(order)
        sure, rows = np.full(len(order), 0.9), np.arange(len(order))
        return Tracks(
            *(known.frame, known.track, known.box, rows, sure, 0 * rows),
            length=len(frames),
            detections=known,
        )


@pytest.fixture
def follower(monkeypatch) -> Follower:
    made = Follower()
    monkeypatch.setattr("medrl_napari.films.track.load_model", lambda *_, **__: made)
    return made


@pytest.fixture
def widget(screen, qtbot, follower) -> TrackWidget:
    viewer = napari.Viewer(show=False)
    film = Film(torch.rand((4, 3, 30, 20, 1)) * 255, names=tuple("abcd"))
    add(viewer, film_layer(film, name="film"))
    made = TrackWidget(viewer)
    qtbot.addWidget(made)
    return made


def write_table(path: Path) -> Path:
    lines = ["frame,track,x0,y0,x1,y1"]
    for frame in range(4):
        lines += [
            f"{frame},1,{2 + frame},3,{8 + frame},9",
            f"{frame},2,{20 - frame},10,{26 - frame},16",
        ]
    path.write_text("\n".join(lines))
    return path


def tracked(widget: TrackWidget, qtbot, act) -> None:
    act()
    qtbot.waitUntil(lambda: not widget.running, timeout=20000)


def test_boxes_and_paths_move_with_the_slider(widget, qtbot, tmp_path: Path) -> None:
    widget.choose(write_table(tmp_path / "boxes.csv"))
    tracked(widget, qtbot, widget.run)
    layers = widget.viewer.layers
    paths = layers["tracks"].data
    # Track, frame, row, column of the middle of a box of pixels.
    assert np.allclose(paths[paths[:, 0] == 1][2], [1, 2, 5.5, 6.5])
    boxes = [one for one in layers["boxes of tracks"].data if one[0, 0] == 2]
    assert len(boxes) == 2
    corners = np.array(boxes)[:, :, 1:]
    assert corners.min(axis=1).tolist() == [[2.5, 3.5], [9.5, 17.5]]
    assert widget.table.rowCount() == 2


def test_a_person_swaps_and_draws(widget, follower, qtbot, tmp_path: Path) -> None:
    widget.choose(write_table(tmp_path / "boxes.csv"))
    tracked(widget, qtbot, widget.run)
    widget.viewer.dims.set_current_step(0, 2)
    widget.first.setValue(1)
    widget.second.setValue(2)
    tracked(widget, qtbot, widget.swap)
    assert follower.corrections == [Swapped(2, 1, 2)]
    drawn = widget.viewer.layers["corrected boxes"]
    drawn.add_rectangles(np.array([[2, 4, 6], [2, 4, 12], [2, 9, 12], [2, 9, 6]], float))
    tracked(widget, qtbot, widget.place)
    placed = follower.corrections[1]
    assert isinstance(placed, Placed)
    assert (placed.frame, placed.track) == (2, 1)
    assert placed.box.tolist() == [[6, 4, -0.5], [12, 9, 0.5]]
    widget.viewer.dims.set_current_step(0, 3)
    widget.place()
    assert "Draw a rectangle" in widget.status.text()


def test_what_is_missing_is_said(widget, qtbot, tmp_path: Path) -> None:
    widget.run()
    assert "choose a table of detections" in widget.status.text()
    table = tmp_path / "twice.csv"
    table.write_text("frame,track,x0,y0,x1,y1\n0,1,2,2,9,9\n0,1,20,20,29,29\n")
    widget.choose(table)
    widget.run()
    assert "given twice" in widget.status.text()
