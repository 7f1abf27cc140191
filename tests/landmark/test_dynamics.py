"""How agents move and when they stop, against one agent simulated in plain Python."""

from typing import Any

import numpy as np
import pytest
import torch

from medrl.agents import ACTIVE
from medrl.errors import MedrlError
from medrl.landmark.dynamics import CAPPED, LEFT, LOOPED, MOVES, SearchDynamics, SearchState
from medrl.volume.pyramid import Pyramid

XP, XM, YP, YM, ZP, ZM = range(6)


STRIDES = (1, 2, 4)


def empty_scan(shape: tuple[int, int, int], spacing: float = 2.0) -> Pyramid:
    levels = tuple(torch.zeros(1, *[-(-n // stride) for n in shape]) for stride in STRIDES)
    affines = tuple(np.diag([spacing * s, spacing * s, spacing * s, 1.0]) for s in STRIDES)
    return Pyramid(levels, tuple(spacing * stride for stride in STRIDES), affines)


def dynamics(**options: Any) -> SearchDynamics:
    """Two empty scans, in which an agent ends where its level ends."""
    scans = [empty_scan((60, 50, 40)), empty_scan((30, 64, 48))]
    return SearchDynamics(scans, **({"landmarks": 1, "descends": False} | options))


def begin(
    world: SearchDynamics, scan: list[int], start: Any, level: list[int] | None = None
) -> SearchState:
    return world.reset(
        torch.tensor(scan),
        torch.zeros(len(scan), dtype=torch.int64),
        torch.as_tensor(start),
        None if level is None else torch.tensor(level),
    )


def follow(
    world: SearchDynamics, actions: list[int], start: tuple[int, int, int], level: int = 0
) -> list[SearchState]:
    """States of one agent that takes the actions given, the first one before any."""
    state = begin(world, [0], [start], [level])
    states = [state]
    for action in actions:
        state = world.step(state, torch.tensor([action]))
        states.append(state)
    return states


def answer(state: SearchState) -> set[tuple[int, ...]]:
    return {tuple(p) for p in state.visited[0][state.answer_mask()[0]].tolist()}


def test_moves_are_unit_steps_in_opposite_pairs() -> None:
    assert (MOVES.abs().sum(dim=1) == 1).all()
    assert (MOVES[::2] == -MOVES[1::2]).all()
    assert (MOVES[::2] == torch.eye(3, dtype=torch.int64)).all()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_step_is_one_voxel_of_the_level(level: int) -> None:
    start = np.array([20, 20, 20])
    for action in range(6):
        _, state = follow(dynamics(), [action], (20, 20, 20), level)
        moved = state.position[0].numpy() - start
        assert np.abs(moved).sum() == 2**level
        assert moved[action // 2] == (1 if action % 2 == 0 else -1) * 2**level
        assert int(state.status) == ACTIVE


LOOPS = {
    2: [XP, XM],
    4: [XP, YP, XM, YM],
    6: [XP, YP, ZP, XM, YM, ZM],
    8: [XP, XP, YP, YP, XM, XM, YM, YM],
    10: [ZP] * 4 + [YM] + [ZM] * 4 + [YP],
    30: [XP] * 8 + [YP] * 7 + [XM] * 8 + [YM] * 7,
}


@pytest.mark.parametrize("length", LOOPS)
@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("approach", [[], [XP], [ZP, XP, YM, XP, XP]])
def test_loops_of_any_length(length: int, level: int, approach: list[int]) -> None:
    states = follow(dynamics(), approach + LOOPS[length], (20, 20, 20), level)
    assert all(int(state.status) == ACTIVE for state in states[:-1])
    last = states[-1]
    assert int(last.status) == LOOPED
    assert int(last.loop_start) == len(approach)
    places = [tuple(s.position[0].tolist()) for s in states[len(approach) : -1]]
    assert len(places) == length
    assert answer(last) == set(places)
    assert int(last.answer_mask().sum()) == length


def test_a_loop_may_close_on_the_last_step_allowed() -> None:
    (*_, last) = follow(dynamics(max_steps=4), LOOPS[4], (20, 20, 20))
    assert int(last.status) == LOOPED


def test_steps_are_capped() -> None:
    states = follow(dynamics(max_steps=5), [XP] * 5, (20, 20, 20))
    assert [int(s.status) for s in states] == [ACTIVE] * 5 + [CAPPED]
    # Where the agent has arrived, nobody has looked yet.
    assert answer(states[-1]) == {(24, 20, 20)}


@pytest.mark.parametrize("action", range(6))
def test_leaving_the_scan(action: int) -> None:
    world = dynamics(margin=3, max_steps=200)
    states = follow(world, [action] * 80, (20, 20, 20))
    axis, sign = action // 2, 1 if action % 2 == 0 else -1
    border = (60, 50, 40)[axis] - 1 + 3 if sign > 0 else -3
    last = states[-1]
    assert int(last.status) == LEFT
    assert int(last.position[0, axis]) == border + sign
    inside = [s for s in states if int(s.status) == ACTIVE]
    assert int(inside[-1].position[0, axis]) == border


def test_each_scan_has_its_own_border() -> None:
    world = dynamics(margin=0, max_steps=100)
    state = begin(world, [0, 1], torch.full((2, 3), 20), [0, 0])
    for _ in range(50):
        state = world.step(state, torch.tensor([XP, XP]))
    assert state.position[:, 0].tolist() == [60, 30]


def test_ended_agents_do_not_move() -> None:
    last = follow(dynamics(), [*LOOPS[2], YP, ZP, ZP], (20, 20, 20))[-1]
    assert last.position[0].tolist() == [20, 20, 20]
    assert int(last.steps) == 2


def test_starts_are_snapped_to_the_lattice() -> None:
    state = begin(dynamics(), [0] * 3, [[10.6, 21.2, 7.9]] * 3, [0, 1, 2])
    assert state.position.tolist() == [[11, 21, 8], [10, 22, 8], [12, 20, 8]]
    assert (state.visited[:, 0] == state.position).all()


def test_searches_begin_on_the_coarsest_level() -> None:
    state = begin(dynamics(), [0], [[20, 20, 20]])
    assert int(state.level) == 2 == dynamics().coarsest


def test_a_level_that_ends_leads_on_to_the_mean_of_its_loop() -> None:
    world = dynamics(descends=True)
    state = begin(world, [0, 0], [[20, 20, 20], [8, 8, 8]])
    for action in [XP, YP, XM, YM]:
        state = world.step(state, torch.tensor([action, ZP]))
    assert state.status.tolist() == [ACTIVE, ACTIVE]
    assert state.level.tolist() == [1, 2]
    assert state.origin.tolist() == [[22.0, 22.0, 20.0], [8.0, 8.0, 8.0]]
    assert state.position.tolist() == [[22, 22, 20], [8, 8, 24]]
    assert state.steps.tolist() == [0, 4]
    # What it visited on the level before is no loop here.
    for action in (XM, YM, YM):
        state = world.step(state, torch.tensor([action, ZP]))
    assert state.level.tolist() == [1, 2]
    state = world.step(state, torch.tensor([YP, ZM]))
    assert state.level.tolist() == [0, 1]
    assert state.origin.tolist() == [[20.0, 19.0, 20.0], [8.0, 8.0, 34.0]]


def test_a_level_without_a_loop_ends_with_its_steps() -> None:
    world = dynamics(descends=True, max_steps=3)
    state = begin(world, [0], [[8, 8, 8]])
    for levels in (2, 2, 1, 1, 1, 0, 0, 0, 0):
        state = world.step(state, torch.tensor([XP]))
        assert int(state.level) == levels
    # From where it moved last on each level; where it arrived nobody has looked.
    assert int(state.status) == CAPPED
    assert state.position.tolist() == [[8 + 8 + 4 + 3, 8, 8]]


def test_estimates_count_by_how_sure_they_are() -> None:
    world = dynamics(descends=True)
    state = begin(world, [0], [[20, 20, 20]])
    # From x = 20 the agent sees its landmark one step ahead; from 24, where it is half as unsure,
    # half a step behind.
    state = world.step(state, torch.tensor([XP]), estimate=torch.tensor([[1.0, 0, 0, 0]]))
    sure = float(np.log(0.5))
    state = world.step(state, torch.tensor([XM]), estimate=torch.tensor([[-0.5, 0, 0, sure]]))
    assert int(state.level) == 1
    np.testing.assert_allclose(state.origin, [[(24 * 1 + 22 * 4) / 5, 20, 20]])
    # Nothing is left of those estimates on the next level.
    for action in (YP, YM):
        state = world.step(state, torch.tensor([action]))
    np.testing.assert_allclose(state.origin, [[22, 21, 20]])


def test_an_answer_tells_how_far_the_estimates_are_apart() -> None:
    world = dynamics()
    state = begin(world, [0], [[20, 20, 20]], [1])
    for action, offset in ((XP, 2.0), (XM, -1.0)):
        estimate = torch.tensor([[offset, 0, 0, -0.5]])
        state = world.step(state, torch.tensor([action]), estimate=estimate)
    answer = world.answer(state)
    np.testing.assert_allclose(answer.position, [[22, 20, 20]])  # seen at 24 and at 20
    np.testing.assert_allclose(answer.spread, [1.0])
    np.testing.assert_allclose(answer.log_scale, [-0.5])
    further = torch.tensor([[[22, 20, 20]]]), torch.tensor([[[0.0, 3.0, 0.0, -0.5]]])
    np.testing.assert_allclose(world.answer(state, further).position, [[22, 22, 20]])


def test_places_are_in_the_scans_world() -> None:
    world = dynamics()
    places = world.places(begin(world, [0, 1], [[20, 20, 20], [4, 8, 12]], [0, 2]))
    assert places.position_world.tolist() == [[40, 40, 40], [8, 16, 24]]
    assert places.scale_mm.tolist() == [2.0, 8.0]


def test_scans_must_fit_each_other() -> None:
    with pytest.raises(MedrlError, match="at least one scan"):
        SearchDynamics([], landmarks=1)
    scans = [empty_scan((9, 9, 9), spacing) for spacing in (1.0, 2.0)]
    with pytest.raises(MedrlError, match="the same spacings"):
        SearchDynamics(scans, landmarks=1)


def simulate(
    shape: list[int], start: list[int], stride: int, actions: list[int], cap: int, margin: int
) -> tuple[list[int], int, int, set[tuple[int, ...]]]:
    """One agent, step by step: final position, steps, status, positions of its answer."""
    place, path, status = list(start), [tuple(start)], ACTIVE
    for action in actions:
        place = list(place)
        place[action // 2] += stride * (1 if action % 2 == 0 else -1)
        path.append(tuple(place))
        seen = path.index(path[-1])
        if any(not -margin <= p <= n - 1 + margin for p, n in zip(place, shape, strict=True)):
            status = LEFT
        elif seen < len(path) - 1:
            return place, len(path) - 1, LOOPED, set(path[seen:-1])
        elif len(path) - 1 == cap:
            status = CAPPED
        if status != ACTIVE:
            break
    return place, len(path) - 1, status, {path[-2]}


def test_a_batch_is_as_many_single_agents() -> None:
    rng = np.random.default_rng(0)
    count, length = 400, 24
    world = dynamics(max_steps=16, margin=5)
    scan = rng.integers(0, 2, count)
    level = rng.integers(0, 3, count)
    # Long straight runs and short ones, so that every way of ending occurs.
    forward = rng.integers(0, 6, (count, 1)) // 2 * 2
    wander = rng.integers(0, 6, (count, length))
    stray = rng.random((count, 1)) * 0.6
    actions = np.where(rng.random((count, length)) < stray, wander, forward)
    first = rng.integers(0, 40, (count, 3))

    state = begin(world, scan.tolist(), first.astype(float), level.tolist())
    starts = state.position.tolist()
    for column in torch.from_numpy(actions).T:
        state = world.step(state, column)
    mask = state.answer_mask()
    for n in range(count):
        shape = world.shapes[scan[n]].tolist()
        place, steps, status, views = simulate(
            shape, starts[n], 2 ** int(level[n]), actions[n].tolist(), 16, 5
        )
        assert int(state.status[n]) == status
        assert state.position[n].tolist() == place
        assert int(state.steps[n]) == steps
        assert {tuple(p) for p in state.visited[n][mask[n]].tolist()} == views
    assert set(state.status.tolist()) == {LOOPED, CAPPED, LEFT}
