"""Any agent's trajectory as layers: rows against the world positions they were made of."""

import numpy as np
import pytest
from napari.components import ViewerModel
from scipy.spatial.transform import Rotation

from medrl.results.picture import SCALE_COLORS
from medrl.trajectory import AgentPath, Recording, Step, Trajectory
from medrl_napari.agents import AgentsView, trajectory_layers
from medrl_napari.space import STRAIGHT, Frame

TURNED = Frame(Rotation.from_euler("xyz", (20, -10, 5), degrees=True).as_matrix())


def path(name="AC", length=5, *, start=0, values=None, scales=None, at=(0.0, 0.0, 0.0)):
    rng = np.random.default_rng(length)
    return AgentPath(
        name,
        start,
        rng.normal(0, 30, (length, 3)) + at,
        np.full(length, 2.0) if scales is None else np.asarray(scales, dtype=float),
        np.zeros(length, dtype=int),
        np.full(length, np.nan) if values is None else np.asarray(values, dtype=float),
    )


def ends(vectors):
    """Both ends of each vector of a layer, (N, 2, 3)."""
    return np.stack([vectors.data[:, 0], vectors.data.sum(axis=1)], axis=1)


def rgb(name):
    return tuple(int(name[i : i + 2], 16) / 255 for i in (1, 3, 5))


@pytest.fixture
def viewer():
    model = ViewerModel()
    model.add_image(np.zeros((60, 60, 60)), translate=(-30, -30, -30), units=("mm",) * 3)
    return model


@pytest.mark.parametrize("frame", [STRAIGHT, TURNED])
def test_tracks_are_the_agents_positions(frame):
    agents = (path("AC", 5), path("PC", 3), path("still", 1))
    (rows, settings, kind), (now, points, _) = trajectory_layers(Trajectory("any", agents), frame)
    assert kind == "tracks"
    assert [int(n) for n in np.bincount(rows[:, 0].astype(int))] == [5, 3, 1]
    for number, agent in enumerate(agents):
        own = rows[rows[:, 0] == number]
        np.testing.assert_allclose(frame.to_world(own[:, 2:]), agent.positions_world, atol=1e-9)
        np.testing.assert_array_equal(own[:, 1], np.arange(len(agent)))
    # Who has ended stays where it was.
    at_end = now[now[:, 0] == 4][:, 1:]
    ends = [agent.positions_world[-1] for agent in agents]
    np.testing.assert_allclose(frame.to_world(at_end), ends, atol=1e-9)
    assert points["features"]["name"] == ["AC"] * 5 + ["PC"] * 5 + ["still"] * 5
    assert settings["units"] == ("s", "mm", "mm", "mm")


def test_unknown_values_and_agents_without_steps_do_no_harm(viewer):
    agents = (path("AC", 4, values=[1, np.nan, 3, 2]), path("none", 0))
    view = AgentsView(viewer, STRAIGHT)
    view.show(Trajectory("any", agents))
    tracks = view.layers[0]
    np.testing.assert_array_equal(tracks.features["value"], [1, 1, 3, 2])
    assert not trajectory_layers(Trajectory("any", (path("none", 0),)), STRAIGHT)


def test_tracks_and_points_have_the_colours_of_their_scales(viewer):
    view = AgentsView(viewer, STRAIGHT)
    view.show(Trajectory("any", (path("AC", 6, scales=[4, 4, 2, 2, 1, 1]),)))
    tracks, points = view.layers[:2]
    expected = [rgb(SCALE_COLORS[n]) for n in (0, 0, 1, 1, 2, 2)]
    np.testing.assert_allclose(tracks.track_colors[:, :3], expected, atol=0.01)
    np.testing.assert_allclose(points.face_color[:, :3], expected, atol=0.01)
    view.color_by = "value"
    assert tracks.color_by == "value"


def test_the_slider_replays_the_steps(viewer):
    view = AgentsView(viewer, STRAIGHT)
    view.show(Trajectory("any", (path("AC", 7), path("PC", 4))))
    assert viewer.dims.nsteps[0] == 7
    assert viewer.dims.current_step[0] == 6
    assert viewer.dims.axis_labels == ("t", "z", "y", "x")


def test_live_steps_add_up_to_the_same_as_the_whole(viewer):
    whole = Trajectory("any", (path("AC", 5, values=range(5)), path("PC", 3, values=range(3))))
    live, recording, steps = AgentsView(viewer, STRAIGHT), Recording(), []
    for moment in range(5):
        there = [agent for agent in whole.agents if len(agent) > moment]
        step = Step(
            tuple(agent.name for agent in there),
            np.array([agent.start for agent in there]),
            np.array([agent.positions_world[moment] for agent in there]),
            np.array([agent.scales_mm[moment] for agent in there]),
            np.array([agent.actions[moment] for agent in there]),
            np.array([agent.values[moment] for agent in there]),
        )
        recording.add(step)
        steps.append(step)
        live.show_steps(steps)
        assert viewer.dims.current_step[0] == moment
    rows = live.layers[0].data.copy()
    live.show(whole)
    np.testing.assert_allclose(live.layers[0].data, rows)
    for made, told in zip(recording.trajectory().agents, whole.agents, strict=True):
        np.testing.assert_array_equal(made.positions_world, told.positions_world)
        np.testing.assert_array_equal(made.values, told.values)


def test_windows_are_where_the_agents_look(viewer):
    scales = [4.0, 4.0, 1.0]
    agent = path("AC", 3, scales=scales)
    view = AgentsView(viewer, STRAIGHT)
    view.show(Trajectory("any", (agent,), {"window_voxels": 25}))
    for moment, scale in enumerate(scales):
        viewer.dims.set_current_step(0, moment)
        center = STRAIGHT.to_napari(agent.positions_world[moment])
        for across in range(3):
            viewer.dims.order = (0, 1 + across, *[1 + a for a in range(3) if a != across])
            viewer.dims.set_point(1 + across, center[across])
            box = ends(view.layers[2])
            assert len(box) == 4
            rest = [axis for axis in range(3) if axis != across]
            corners = box.reshape(-1, 3)
            np.testing.assert_allclose(corners.mean(axis=0), center, atol=1e-4)
            np.testing.assert_allclose(np.ptp(corners, axis=0)[rest], 25 * scale, atol=1e-4)
            np.testing.assert_allclose(corners[:, across], center[across], atol=1e-4)
            # Beyond the window nothing is drawn.
            viewer.dims.set_point(1 + across, center[across] + 25 * scale / 2 + 2)
            if viewer.dims.point[1 + across] > center[across] + 25 * scale / 2:
                assert not len(view.layers[2].data)


def test_in_3d_a_window_is_a_box(viewer):
    agent = path("AC", 2)
    view = AgentsView(viewer, STRAIGHT)
    view.show(Trajectory("any", (agent,), {"window_voxels": 10}))
    viewer.dims.ndisplay = 3
    box = ends(view.layers[2])
    center = STRAIGHT.to_napari(agent.positions_world[-1])
    np.testing.assert_allclose(box.min(axis=(0, 1)), center - 10, atol=1e-4)
    np.testing.assert_allclose(box.max(axis=(0, 1)), center + 10, atol=1e-4)
    # All twelve edges, each along one axis.
    edges = {tuple(sorted(map(tuple, np.round(edge, 3)))) for edge in box}
    assert len(edges) == 12
    assert all(np.count_nonzero(np.subtract(*edge)) == 1 for edge in edges)


def test_a_chosen_agent_stands_out(viewer):
    view = AgentsView(viewer, STRAIGHT)
    view.show(Trajectory("any", (path("AC", 3), path("PC", 3)), {"window_voxels": 40}))
    viewer.dims.ndisplay = 3
    assert len(view.layers[2].data) == 2 * 12
    view.select("PC")
    points, windows = view.layers[1:]
    sizes = dict(zip(points.features["name"], points.size, strict=True))
    assert sizes["PC"] > sizes["AC"]
    assert len(windows.data) == 12
    view.select(None)
    assert len(set(points.size)) == 1


def test_layers_that_the_user_removes_do_not_stop_the_others(viewer):
    view = AgentsView(viewer, STRAIGHT)
    agents = (path("AC", 3),)
    view.show(Trajectory("any", agents, {"window_voxels": 40}))
    for layer in list(view.layers):
        viewer.layers.remove(layer)
        view.show(Trajectory("any", agents, {"window_voxels": 40}))
    view.remove()
    assert len(viewer.layers) == 1
    assert viewer.dims.ndim == 3
    viewer.dims.set_current_step(0, 3)


def test_who_draws_on_a_layer_goes_on_with_it(viewer):
    drawn = viewer.add_points(ndim=3)
    viewer.layers.selection = {drawn}
    AgentsView(viewer, STRAIGHT).show(Trajectory("any", (path(),), {"window_voxels": 40}))
    assert viewer.layers.selection == {drawn}
