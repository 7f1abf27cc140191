"""The agent's proposals, several objects, models of several images."""

import threading

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor

from medrl_napari.segment import object_table


def test_proposals(open_user, direct_session):
    user = open_user()
    scan = user.widget._annotation.shown.scan
    user.click(user.at())
    user.settle()
    session = direct_session(scan, user.seeds)
    for key, react in ((Qt.Key.Key_A, session.accept), (Qt.Key.Key_R, session.reject)):
        proposal = session.propose()
        marker = user.widget._annotation.layers.proposal
        where = user.widget._annotation.shown.frame.to_napari(proposal.position_world)
        np.testing.assert_allclose(marker.data_to_world(marker.data[0]), where, atol=1e-9)
        gain = f"{proposal.expected_gain:+.3f}"
        assert [text.strip() for text in marker.text.values] == [gain]
        assert gain in user.widget.next.text()
        user.press(user.widget.go_to)
        assert np.abs(np.array(user.viewer.dims.point) - where)[0] <= 1.0
        user.key(key)
        react()
        user.settle()
        np.testing.assert_array_equal(user.mask, session.labels()[0])
    assert len(user.agents) == 1
    np.testing.assert_array_equal(user.agents[0].points_world, session.seeds[1].points_world)
    user.press(user.widget.auto)
    assert not user.widget.accept.isEnabled()
    assert not len(user.widget._annotation.layers.proposal.data)
    user.click(user.at(4, 0, 0))
    user.settle()
    assert not user.widget.accept.isEnabled()
    user.press(user.widget.auto)
    user.until(user.widget.accept.isEnabled)
    user.press(user.widget.accept)
    user.settle()
    assert len(user.agents) == 2


def test_let_it_run_and_stop(open_user, model, direct_session):
    user = open_user()
    user.click(user.at())
    user.settle()
    one = user.mask.copy()
    session = direct_session(user.widget._annotation.shown.scan, user.seeds)
    user.key(Qt.Key.Key_G)
    user.until(lambda: "stopped by itself" in user.widget.status.text())
    assert len(session.accept_all()) == len(user.agents) > 3
    np.testing.assert_array_equal(user.mask, session.labels()[0])
    user.undo()
    user.settle()
    np.testing.assert_array_equal(user.mask, one)

    steps = []
    user.widget._thread.stepped.connect(lambda state, placed: steps.append(placed))
    hold = threading.Event()
    look, network = model.network.values, model.network
    network.values = lambda *args: look(*args) if hold.wait(20) else None
    user.press(user.widget.run)
    assert user.widget.progress.isVisible()
    user.press(user.widget.run)
    assert not user.widget.progress.isVisible()
    hold.set()
    user.until(lambda: "was stopped after 1 seed" in user.widget.status.text())
    user.settle()
    assert len(user.agents) == 1
    user.undo()
    user.settle()
    # A click ends a run, and counts.
    hold.clear()
    user.press(user.widget.run)
    user.click(user.at(6, 0, 0))
    hold.set()
    user.settle()
    assert len(user.agents) < 4
    assert sum(seed.who == "user" for seed in user.seeds) == 2
    del network.values


def test_a_run_can_be_stopped_whatever_is_answered_meanwhile(open_user, model):
    user = open_user()
    user.click(user.at())
    user.settle()
    hold = threading.Event()
    look, network = model.network.values, model.network
    network.values = lambda *args: look(*args) if hold.wait(20) else None
    user.click(user.at(4, 0, 0))
    user.press(user.widget.run)
    # The answer to the click is not that of the run.
    user.until(lambda: not user.widget._seeds.pending)
    assert user.widget.run.text() == "Stop"
    user.press(user.widget.run)
    assert user.widget.run.text() == "Let it run"
    hold.set()
    user.until(lambda: "was stopped" in user.widget.status.text())
    user.settle()
    assert len(user.agents) == 1
    del network.values


def test_a_proposal_is_for_what_was_done_and_not_for_what_is_asked_next(open_user, qtbot):
    user = open_user()
    user.click(user.at())
    user.settle()
    thread = user.widget._thread
    assert user.widget.accept.isEnabled()
    # Just before the next operation is handed over.
    thread.serial += 1
    with qtbot.waitSignal(thread.proposed, timeout=60_000) as told:
        thread.wake()
    assert told.args[1] == thread.serial - 1


def test_several_objects(open_user, monkeypatch, direct_session):
    user = open_user()
    widget, table = user.widget, user.widget.objects
    user.click(user.at(-6, 0, 0))
    user.settle()
    widget.target.setCurrentText("anterior")
    user.key(Qt.Key.Key_N)
    user.click(user.at(8, 0, 0))
    user.settle()
    assert [table.item(row, 1).text() for row in range(2)] == ["whole", "anterior"]
    assert table.currentRow() == 1
    assert user.widget._annotation.layers.objects.selected_label == 2
    session = direct_session(widget._annotation.shown.scan, user.seeds[:1])
    session.new_object(target="anterior")
    session.add_seed(user.seeds[1].points_world, "fg")
    np.testing.assert_array_equal(user.mask, session.labels()[0])
    volume = float((user.mask == 2).sum()) * 8 / 1000
    assert table.item(1, 3).text() == f"{volume:.2f}"
    # Lock, name and colour.
    table.item(0, 4).setCheckState(Qt.CheckState.Checked)
    user.settle()
    session.lock("whole")
    np.testing.assert_array_equal(user.mask, session.labels()[0])
    table.item(1, 1).setText("right")
    user.settle()
    assert widget._seeds.current == "right"
    user.key(Qt.Key.Key_O)
    user.settle()
    assert table.currentRow() == 0
    user.click(user.at(0, 4, 0))
    user.settle()
    assert "locked" in widget.status.text()
    assert len(user.seeds) == 2
    table.selectRow(1)
    user.settle()
    assert widget._seeds.current == "right"
    monkeypatch.setattr(object_table.QColorDialog, "getColor", lambda **_: QColor("#123456"))
    table.cellDoubleClicked.emit(1, 0)
    colors = widget._annotation.layers.objects.colormap.color_dict
    np.testing.assert_allclose(colors[2][:3], np.array([0x12, 0x34, 0x56]) / 255, atol=1e-6)


def test_channels_of_a_model(open_user):
    user = open_user(start=False)
    scans = user.widget.scans
    assert list(scans.choices) == ["MR"]
    scans.model.model = "sarcoma-pet-ct"
    assert list(scans.choices) == ["PET", "CT"]
    assert scans.layers == {}
    user.press(user.widget.start)
    assert "choose it first" in user.widget.status.text()
    scans.choices["CT"].setCurrentIndex(1)
    assert [layer.name for layer in scans.layers.values()] == ["ball"]
    scans.model.model = "/nowhere"
    assert "/nowhere" in user.widget.status.text()


def test_a_model_that_was_not_made_for_an_object_says_so_first(open_user, monkeypatch):
    from medrl.seednet.session import SeedSession

    monkeypatch.setattr(SeedSession, "unfit", lambda self, name=None: ("contrast: another",))
    user = open_user()
    user.click(user.at())
    user.settle()
    user.until(lambda: "contrast: another" in user.widget.status.text())
    first, *others = user.widget.status.text().split("\n")
    assert first.startswith("Not to be relied on: ")
    assert "was not made for this scan" in first
    assert any("ml; seeds: 1 of yours" in line for line in others)
