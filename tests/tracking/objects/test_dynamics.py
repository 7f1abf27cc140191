"""Agents of tracks: candidates, decisions together, and what comes of them."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import torch

from medrl.tracking.objects.detections import Detections
from medrl.tracking.objects.dynamics import LEFT_ALONE, TrackDynamics, TrackState
from medrl.tracking.objects.policy import HandMade, Together, together
from medrl.tracking.objects.scene import Scene
from medrl.tracking.objects.simulated import Flaws, World, detected, drawn_world, simulate
from medrl.tracking.objects.task import TrackTask, Truth
from medrl.tracking.objects.walk import Finish, Notes, finished, walk


def scene(places: list[list[tuple[float, float]]], side: float = 6.0) -> Scene:
    frame = [t for t, some in enumerate(places) for _ in some]
    middle = np.array([[*place, 0.0] for some in places for place in some])
    half = np.array([side / 2, side / 2, 0.5])
    box = np.stack([middle - half, middle + half], axis=1)
    return Scene.of(Detections.of(frame, box))


def advanced(dynamics: TrackDynamics, state: TrackState, action: list[int]) -> TrackState:
    after = dynamics.step(state, torch.tensor(action))
    return dynamics.arrivals(after, int(after.frame[0]))


def test_births_and_matches() -> None:
    dynamics = TrackDynamics([scene([[(0, 0), (30, 0)], [(31, 0), (1, 0)], [(2, 0)]])])
    v = dynamics.view
    state = dynamics.reset()
    assert state.birth.all()
    state = advanced(dynamics, state, [v.start, v.end])
    assert (~state.birth).tolist() == [True, False, False]
    sight = dynamics.sight(state)
    # Its nearest detection is the second of this frame; the other one is out of reach.
    assert sight.near[0, 0] == 1
    assert sight.open[0].tolist() == [True, False, False, False]
    after = dynamics.step(state, torch.tensor([0, v.end, v.start]))
    assert after.matched.tolist() == [True, False, False]
    # What a track has matched cannot begin another one.
    assert after.status.tolist() == [0, LEFT_ALONE, LEFT_ALONE]
    assert after.row[0] == 3


def test_the_nearer_one_gets_what_two_choose() -> None:
    dynamics = TrackDynamics([scene([[(0, 0), (8, 0)], [(3, 0)], []])])
    v = dynamics.view
    state = advanced(dynamics, dynamics.reset(), [v.start, v.start])
    after = dynamics.step(state, torch.tensor([0, 0, v.end]))
    assert after.matched.tolist() == [True, False, False]
    assert after.missed[1] == 1


def test_decisions_together_have_the_largest_sum() -> None:
    rng = np.random.default_rng(3)
    places = [[tuple(place) for place in rng.uniform(0, 12, (4, 2))] for _ in range(2)]
    dynamics = TrackDynamics([scene(places)])
    v = dynamics.view
    state = advanced(dynamics, dynamics.reset(), [v.start] * 4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        values = torch.randn((len(state), v.actions), generator=generator, dtype=torch.float64)
        action = together(dynamics, state, values)
        total = values.gather(1, action[:, None]).sum()
        assert dynamics.allowed(state).gather(1, action[:, None]).all()
        best = best_of_all(dynamics, state, values)
        torch.testing.assert_close(total, best)


def best_of_all(dynamics: TrackDynamics, state: TrackState, values: torch.Tensor) -> torch.Tensor:
    """Every way to give four detections to four tracks, to their own agents or to nobody."""
    v, sight = dynamics.view, dynamics.sight(state)
    values = values.masked_fill(~dynamics.allowed(state), -torch.inf)
    alone = values[:, [v.coast, v.end]].amax(dim=1)
    best = torch.tensor(-torch.inf, dtype=torch.float64)
    # A track's share of the permutation: 0..3 a detection, 4..7 none.
    for order in permutations(range(8), 4):
        total = torch.zeros((), dtype=torch.float64)
        for track, one in enumerate(order):
            if one >= 4:
                total = total + alone[track]
                continue
            slot = torch.nonzero((sight.near[track] == one) & sight.open[track])
            total = total + (values[track, slot[0, 0]] if len(slot) else -torch.inf)
        for birth in range(4):
            own = values[4 + birth]
            begins = torch.stack([own[v.start], own[v.divide], own[v.end]])
            total = total + (own[v.end] if birth in order else begins.max())
        best = torch.maximum(best, total)
    return best


def followed(film_seed: int, flaws: Flaws, world: World) -> tuple[float, int]:
    """Share of rows on the right object, and identity switches, of values by hand."""
    film = simulate(world, film_seed, images=False)
    seen = detected(film.truth, flaws, film_seed, film.shape)
    one = Scene.of(seen, length=film.shape[0])
    dynamics = TrackDynamics([one])
    notes = Notes(dynamics)
    walk(dynamics, Together(HandMade(dynamics.view)), on_step=notes)
    log = finished(notes.log(0), one.box.numpy(), Finish())
    matched = log.row >= 0
    right = switches = 0
    for track in np.unique(log.track):
        names = seen.track[log.row[(log.track == track) & matched]]
        _, counts = np.unique(names, return_counts=True)
        right += counts.max()
        switches += int((np.diff(names) != 0).sum())
    return right / len(seen), switches


def test_without_flaws_everything_is_followed() -> None:
    world = World(objects=6, meeting=0.0, speed=0.1, comings=0.0)
    share, switches = followed(0, Flaws(0.0, 0.0), world)
    assert share == 1.0
    assert switches == 0


def test_misses_are_bridged() -> None:
    world = World(objects=6, meeting=0.0, speed=0.1, comings=0.0)
    share, switches = followed(1, Flaws(0.2, 0.05), world)
    assert share > 0.97
    assert switches == 0


def test_the_expert_makes_no_mistakes() -> None:
    films = [simulate(drawn_world(seed, deep=False), seed, images=False) for seed in (1, 2, 3)]
    seen = [detected(f.truth, Flaws(0.2, 0.1, 0.1), 5, f.shape) for f in films]
    scenes = [Scene.of(d, length=f.shape[0]) for d, f in zip(seen, films, strict=True)]
    dynamics = TrackDynamics(scenes)
    truths = [Truth(d.track, f.parent) for d, f in zip(seen, films, strict=True)]
    task = TrackTask(dynamics, truths)
    state = None
    for frame in range(int(dynamics.length.max())):
        state = dynamics.arrivals(state, frame)
        action = task.expert(state)
        assert dynamics.allowed(state).gather(1, action[:, None]).all()
        after = dynamics.step(state, action)
        reward = task.reward(state, action, after)
        tracks = ~state.birth
        false = task.identity[after.row] < 0
        assert not (after.matched & false).any()
        # A track never changes over to another object, but for daughters.
        was, now = task.identity[state.row], task.identity[after.row]
        changed = tracks & after.matched & (was != now)
        assert (task.mother[now[changed]] == was[changed]).all()
        assert (reward[tracks] >= -0.1).all()
        state = after


def test_rewards_are_the_difference_an_agent_makes() -> None:
    one = scene([[(0, 0), (20, 0)], [(1, 0), (4, 0)]])
    dynamics = TrackDynamics([one])
    task = TrackTask(dynamics, [Truth(np.array([1, 2, 1, -1]), {})])
    v = dynamics.view
    state = advanced(dynamics, dynamics.reset(), [v.start, v.start])
    sight = dynamics.sight(state)
    right = int(torch.nonzero(sight.near[0] == 0)[0])
    wrong = int(torch.nonzero((sight.near[0] == 1) & sight.open[0])[0])
    for choice, expected in ((right, 2.0), (wrong, -1.0), (v.coast, -0.0), (v.end, 0.0)):
        action = torch.tensor([choice, v.end, v.end, v.end])
        reward = task.reward(state, action, dynamics.step(state, action))
        assert reward[0] == expected or (choice == v.coast and reward[0] <= 0)


def test_films_side_by_side_do_not_see_each_other() -> None:
    first = scene([[(0, 0)], [(1, 0)], [(2, 0)]])
    second = scene([[(0.5, 0)], [(1.5, 0)]])
    alone = TrackDynamics([first])
    both = TrackDynamics([first, second])
    logs = []
    for dynamics in (alone, both):
        notes = Notes(dynamics)
        walk(dynamics, Together(HandMade(dynamics.view)), on_step=notes)
        logs.append(notes.log(0))
    np.testing.assert_array_equal(logs[0].row, logs[1].row)
    np.testing.assert_array_equal(logs[0].box, logs[1].box)


def test_units_do_not_matter() -> None:
    film = simulate(World(objects=5), 3, images=False)
    rows = []
    for scale in (1.0, 0.1):
        one = Scene.of(film.truth, spacing=(scale, scale, scale))
        dynamics = TrackDynamics([replace(one)])
        notes = Notes(dynamics)
        walk(dynamics, Together(HandMade(dynamics.view)), on_step=notes)
        rows.append(notes.log(0).row)
    np.testing.assert_array_equal(*rows)
