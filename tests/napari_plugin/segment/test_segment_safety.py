"""What goes wrong, and that no seed is lost by it."""

import json

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

import medrl
from medrl.errors import MedrlError
from medrl.seednet.seeds import read_seeds
from medrl_napari.scans import add, image_layer, show
from medrl_napari.segment import session_panel as segment
from medrl_napari.writers import write_points


def test_what_cannot_be(open_user):
    user = open_user()
    user.click(user.at())
    user.settle()
    mask = user.mask.copy()
    user.click(user.at(), "shift")
    user.settle()
    assert "same voxel" in user.widget.status.text()
    user.click(user.at() + 40 * user.right)
    user.settle()
    assert "outside the scan" in user.widget.status.text()
    assert len(user.seeds) == 1
    np.testing.assert_array_equal(user.mask, mask)
    user.undo()
    user.undo()
    user.settle()
    assert "nothing to undo" in user.widget.status.text()


def test_files(open_user, tmp_path, monkeypatch, balls):
    user = open_user()
    user.click(user.at())
    user.click(user.at() + 1.6 * balls.RADIUS * user.right, "shift")
    user.settle()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    user.press(user.widget.save)
    user.until(lambda: "Saved 4 files" in user.widget.status.text())
    mask = medrl.read(tmp_path / "ball.seg.nii.gz")
    np.testing.assert_array_equal(mask[0], user.mask)
    np.testing.assert_allclose(mask.affine, user.widget._annotation.shown.scan.affine, atol=1e-5)
    kept = read_seeds(tmp_path / "ball.seeds.mrk.json")
    for path in ("own.mrk.json", "layer.mrk.json"):
        name = str(tmp_path / path)
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, name=name: (name, ""))
        if path.startswith("own"):
            user.press(user.widget.save_seeds)
        else:
            data, meta, _ = user.widget._annotation.layers.seeds.as_layer_data_tuple()
            write_points(name, data, meta)
        again = read_seeds(name)
        assert [seed.label for seed in again] == [seed.label for seed in kept] == [1, 0]
        points = [[seed.position_world for seed in seeds] for seeds in (again, user.seeds)]
        np.testing.assert_allclose(points[0], points[1], atol=1e-6)
    for _ in range(2):
        user.undo()
    user.settle()
    assert not user.seeds
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (name, ""))
    user.press(user.widget.load)
    user.settle()
    assert [seed.label for seed in user.seeds] == [1, 0]
    np.testing.assert_array_equal(user.mask, mask[0])


def test_a_scan_that_is_closed_loses_no_seeds(open_user, tmp_path, balls):
    user = open_user()
    for offset in (0, 4, 8):
        user.click(user.at(offset, 0, 0))
    before = user.seeds
    thread = user.widget._thread
    user.viewer.layers.remove("ball")
    assert "was closed" in user.widget.status.text()
    layer = user.viewer.layers["seeds"]
    assert len(layer.data) == 3
    user.until(lambda: not thread.working)
    data, meta, _ = layer.as_layer_data_tuple()
    write_points(str(tmp_path / "kept.mrk.json"), data, meta)
    assert len(read_seeds(tmp_path / "kept.mrk.json")) == 3
    user.click_somewhere()
    assert len(layer.data) == 3
    # The same scan again: they are offered.
    user.clear()
    add(user.viewer, image_layer(show(balls.ball_scan(*balls.GRIDS["straight"])), name="ball"))
    assert not user.widget.restore.isHidden()
    user.press(user.widget.restore)
    user.until(lambda: "Restored 3 seeds" in user.widget.status.text())
    # In any order: those that the session has not heard of come last.
    points = [sorted(tuple(s.position_world) for s in seeds) for seeds in (user.seeds, before)]
    np.testing.assert_allclose(points[0], points[1])
    assert user.mask.any()


def test_a_model_that_fails_loses_no_seeds(open_user, model, tmp_path, direct_session):
    user = open_user()
    user.click(user.at())
    user.settle()
    network, works = model.network, model.network.prior

    def fail(*_):
        raise RuntimeError("out of order")

    network.prior = fail
    user.click(user.at(4, 0, 0))
    user.click(user.at(8, 0, 0))
    user.until(lambda: len(user.widget._seeds.unplaced) == 2)
    assert "out of order" in user.widget.status.text()
    assert "seeds are kept" in user.widget.status.text()
    assert len(user.seeds) == len(user.widget._annotation.layers.seeds.data) == 3
    (file,) = (tmp_path / "data" / "seeds").glob("*.json")
    kept = [seed for one in json.loads(file.read_text())["objects"] for seed in one["seeds"]]
    assert len(kept) == 3
    # Once it works again, the next click takes them along.
    network.prior = works
    user.click(user.at(0, 4, 0))
    user.settle()
    assert len(user.widget._seeds.held) == 4
    assert not user.widget._seeds.unplaced
    # And so does a restart.
    network.prior = fail
    user.click(user.at(0, -4, 0))
    user.until(lambda: len(user.widget._seeds.unplaced) == 1)
    network.prior = works
    user.press(user.widget.start)
    user.until(lambda: len(user.widget._seeds.held) == 5)
    user.settle()
    session = direct_session(user.widget._annotation.shown.scan, user.seeds)
    np.testing.assert_array_equal(user.mask, session.labels()[0])
    assert [layer.name for layer in user.viewer.layers].count("seeds") == 1


def test_a_model_that_cannot_be_loaded(open_user, monkeypatch):
    user = open_user(start=False)

    def fail(*_):
        raise MedrlError("the model is damaged")

    monkeypatch.setattr(segment, "load_model", fail)
    user.press(user.widget.start)
    user.until(lambda: "The model is damaged" in user.widget.status.text())
    user.go_to(user.at())
    user.click(user.at())
    assert len(user.seeds) == 1


def test_the_widget_is_closed_in_the_middle(open_user, window):
    user = open_user()
    user.click(user.at())
    user.settle()
    thread, layer = user.widget._thread, user.widget._annotation.layers.seeds
    user.key(Qt.Key.Key_G)
    user.close()
    user.until(lambda: not thread.working)
    # napari's own keys and mouse are back.
    assert not layer.mouse_drag_callbacks
    assert not layer.keymap
    assert layer.mouse_pan
    assert len(layer.data) >= 1
    window.layers.remove("ball")
