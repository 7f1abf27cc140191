"""A replay goes from the first moment to the last, once, unless somebody takes over."""

import numpy as np
import pytest
from napari.components import ViewerModel

from medrl_napari.replay import Replay


@pytest.fixture
def viewer():
    model = ViewerModel()
    model.add_image(np.zeros((6, 5, 5, 5)))
    model.dims.set_current_step(0, 5)
    return model


def test_it_shows_every_moment_once(viewer, qtbot):
    seen = []
    viewer.dims.events.current_step.connect(lambda event: seen.append(event.value[0]))
    replay = Replay(viewer)
    replay.start()
    qtbot.waitUntil(lambda: not replay.running)
    assert list(dict.fromkeys(seen)) == [0, 1, 2, 3, 4, 5]
    assert viewer.dims.current_step[0] == 5


def test_who_moves_the_slider_takes_over(viewer, qtbot):
    replay = Replay(viewer)
    replay.start()
    qtbot.waitUntil(lambda: viewer.dims.current_step[0] == 2)
    viewer.dims.set_current_step(0, 4)
    qtbot.waitUntil(lambda: not replay.running)
    assert viewer.dims.current_step[0] == 4


def test_the_end_of_time_ends_it(viewer, qtbot):
    replay = Replay(viewer)
    replay.start()
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not replay.running)
