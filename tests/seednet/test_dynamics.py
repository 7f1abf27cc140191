"""Placing seeds, against one agent simulated in plain Python and against SciPy's distances."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medrl.agents import ACTIVE
from medrl.errors import MedrlError
from medrl.seednet.dynamics import (
    SPENT,
    STOPPED,
    SeedDynamics,
    SeedState,
    Windows,
)
from medrl.seednet.geometry import ball, dilate, seed_maps

NONE, BACKGROUND, FOREGROUND = -1, 0, 1
SHAPE = (9, 12, 7)


@dataclass
class Numbered:
    """Stands for what a segmenter prepares: the numbers of the windows."""

    numbers: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *SHAPE)

    def select(self, rows: Tensor) -> "Numbered":
        return Numbered(self.numbers[rows])


class NearestSeed:
    """Stand-in segmenter: the share of the distance to background, in exact arithmetic.

    Every window has a tilt of its own, so that mixing up windows shows. ``calls`` remembers what
    was solved.
    """

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.starts: list[Tensor | None] = []

    def solve(
        self,
        system: Numbered,
        seeds: Tensor,
        *,
        prior: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        assert len(system.numbers) == len(seeds)
        assert prior is None or len(prior) == len(seeds)
        self.calls.append(system.numbers.tolist())
        self.starts.append(start)
        pairs = zip(seeds.numpy(), system.numbers.tolist(), strict=True)
        return torch.from_numpy(np.stack([nearest_seed(one, number) for one, number in pairs]))


def nearest_seed(seeds: NDArray[np.int8], number: int) -> NDArray[np.float32]:
    distances = [
        ndimage.distance_transform_edt(seeds != label)
        if (seeds == label).any()
        else np.full(seeds.shape, 100.0)
        for label in (BACKGROUND, FOREGROUND)
    ]
    probability = distances[0] / (distances[0] + distances[1])
    tilt = 0.05 * np.sin(np.arange(seeds.size).reshape(seeds.shape) * (number + 1))
    tilted = np.clip(probability + tilt, 0, 1)
    return np.where(seeds == NONE, tilted, seeds).astype(np.float32)


def rules(**options: Any) -> Any:
    return SeedDynamics(NearestSeed(), **options)


def random_seeds(count: int, seed: int, share: float = 0.02) -> Tensor:
    rng = np.random.default_rng(seed)
    drawn = rng.choice([BACKGROUND, FOREGROUND], (count, *SHAPE))
    seeds = np.where(rng.random((count, *SHAPE)) < share, drawn, NONE).astype(np.int8)
    seeds[:, 4, 6, 3] = FOREGROUND
    return torch.from_numpy(seeds)


def begin(rules: Any, seeds: Tensor, prior: Tensor | None = None) -> tuple[Any, SeedState]:
    dynamics = rules.on(Windows(Numbered(torch.arange(len(seeds))), prior))
    return dynamics, dynamics.reset(seeds)


def random_actions(state: SeedState, dynamics: SeedDynamics, rng: np.random.Generator) -> Tensor:
    """Mostly allowed ones, now and then one that is not, now and then STOP."""
    actions = []
    for allowed in dynamics.allowed(state).numpy():
        kinds = [np.flatnonzero(allowed), np.flatnonzero(~allowed), np.array([len(allowed) - 1])]
        kind = kinds[rng.choice(3, p=[0.8, 0.15, 0.05])]
        actions.append(rng.choice(kind if len(kind) > 0 else kinds[0]))
    return torch.tensor(actions)


# Distances --------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.001, 0.03, 0.4, 1.0])
def test_seed_maps_are_scipys_distances(share: float) -> None:
    rng = np.random.default_rng(3)
    drawn = rng.choice([BACKGROUND, FOREGROUND], (5, 20, 26, 18)).astype(np.int8)
    seeds = np.where(rng.random(drawn.shape) < share, drawn, NONE).astype(np.int8)
    seeds[4, 5:12, 6:15, 3:11] = FOREGROUND
    maps = seed_maps(torch.from_numpy(seeds), scale=4.0).numpy()
    assert maps.shape == (5, 2, 20, 26, 18)
    assert maps.dtype == np.float32
    for window, label in product(range(5), (BACKGROUND, FOREGROUND)):
        own = seeds[window] == label
        expected = np.zeros(own.shape)
        if own.any():
            expected = np.exp(-ndimage.distance_transform_edt(~own) / 4.0)
        np.testing.assert_allclose(maps[window, label], expected, atol=1e-6)


def test_seed_maps_of_many_voxels_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = random_seeds(2, seed=4, share=0.3)
    whole = seed_maps(seeds, scale=2.0)
    monkeypatch.setattr("medrl.seednet.geometry._CHUNK", 200)
    assert (seed_maps(seeds, scale=2.0) == whole).all()


@pytest.mark.parametrize("radius", [0.0, 1.0, 1.5, 3.0])
def test_ball_and_dilation(radius: float) -> None:
    reach = np.arange(-4, 5)
    near = np.linalg.norm(np.stack(np.meshgrid(reach, reach, reach, indexing="ij")), axis=0)
    assert {tuple(offset) for offset in ball(radius).tolist()} == {
        tuple(offset) for offset in (np.argwhere(near <= radius) - 4).tolist()
    }
    mask = random_seeds(3, seed=1) != NONE
    mask[2] = False
    mask[1, 2:7, 3:9, 1:6] = True
    grown = dilate(mask, radius).numpy()
    for n in range(2):
        expected = ndimage.distance_transform_edt(~mask[n].numpy()) <= radius
        np.testing.assert_array_equal(grown[n], expected)
    assert not grown[2].any()


# Actions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "grid"), [(1, (9, 12, 7)), (2, (5, 6, 4)), (4, (3, 3, 2))])
def test_grid_and_actions(stride: int, grid: tuple[int, int, int]) -> None:
    dynamics = rules(stride=stride)
    assert dynamics.grid(SHAPE) == grid
    assert dynamics.grid((5, *SHAPE)) == grid
    assert dynamics.actions(SHAPE) == 2 * np.prod(grid) + 1
    voxel = torch.tensor(list(np.ndindex(SHAPE)))
    for label in (BACKGROUND, FOREGROUND):
        action = dynamics.action_at(voxel, torch.full((len(voxel),), label), SHAPE)
        cell = np.ravel_multi_index(tuple((voxel // stride).T.numpy()), grid)
        np.testing.assert_array_equal(action.numpy(), label * np.prod(grid) + cell)
    none = dynamics.action_at(torch.tensor([-1, -1, -1]), torch.tensor(NONE), SHAPE)
    assert int(none) == dynamics.actions(SHAPE) - 1


def free_voxels(state: SeedState, n: int, label: int, exclusion: float) -> NDArray[np.bool_]:
    """Not seeded and not too near to a user seed of the other label, by SciPy."""
    seeds, user = state.seeds[n].numpy(), state.user[n].numpy()
    other = user & (seeds == 1 - label)
    near = np.zeros(SHAPE, dtype=bool)
    if other.any():
        near = ndimage.distance_transform_edt(~other) <= exclusion
    return (seeds == NONE) & ~near


@pytest.mark.parametrize(
    ("stride", "exclusion"), [(1, 3.0), (2, 3.0), (2, 0.0), (3, 1.5), (2, 30.0)]
)
def test_allowed_are_the_cells_with_a_free_voxel(stride: int, exclusion: float) -> None:
    dynamics = rules(stride=stride, exclusion_radius=exclusion)
    dynamics, state = begin(dynamics, random_seeds(4, seed=2, share=0.01))
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(4):
        allowed = dynamics.allowed(state).numpy()
        assert allowed.shape == (4, dynamics.actions(SHAPE))
        assert allowed[:, -1].all()
        for n, label in product(range(4), (BACKGROUND, FOREGROUND)):
            free = free_voxels(state, n, label, exclusion)
            padded = np.pad(free, [(0, -side % stride) for side in SHAPE])
            blocks = padded.reshape([x for g in dynamics.grid(SHAPE) for x in (g, stride)])
            expected = blocks.any(axis=(1, 3, 5)).ravel()
            cells = len(expected)
            np.testing.assert_array_equal(allowed[n, label * cells : (label + 1) * cells], expected)
            seen |= set(expected.tolist())
        state = dynamics.step(state, random_actions(state, dynamics, rng))
    assert (True in seen) == (exclusion < 30)
    assert False in seen or exclusion < 3


# Steps ------------------------------------------------------------------------------------------


def simulate(
    dynamics: Any,
    seeds: NDArray[np.int8],
    number: int,
    actions: list[int],
    prior: NDArray[np.float32] | None,
) -> dict[str, Any]:
    """One agent, voxel by voxel."""
    stride, grid = dynamics.stride, dynamics.grid(SHAPE)
    cells = int(np.prod(grid))
    user = {tuple(v): int(seeds[tuple(v)]) for v in np.argwhere(seeds != NONE)}
    painted = seeds.copy()
    probability = nearest_seed(painted, number)
    places: list[list[int]] = []
    labels: list[int] = []
    status = ACTIVE

    def may_hold(voxel: tuple[int, ...], label: int) -> bool:
        opposite = [place for place, own in user.items() if own != label]
        distances = [np.hypot.reduce(np.subtract(voxel, place)) for place in opposite]
        far = all(distance > dynamics.exclusion_radius for distance in distances)
        return painted[voxel] == NONE and far

    for action in actions:
        if status != ACTIVE:
            break
        if action == 2 * cells:
            status = STOPPED
            continue
        label, cell = divmod(action, cells)
        corner = np.array(np.unravel_index(cell, grid)) * stride
        within = [tuple(corner + offset) for offset in np.ndindex(stride, stride, stride)]
        within = [v for v in within if all(v[a] < SHAPE[a] for a in range(3))]
        within = [v for v in within if may_hold(v, label)]
        wrong = [v for v in within if (probability[v] > 0.5) != bool(label)]
        guide = probability if prior is None else prior
        if within:
            best = max(wrong or within, key=lambda v: guide[v] if label else 1 - guide[v])
            new = [
                v
                for v in np.ndindex(SHAPE)
                if np.hypot.reduce(np.subtract(v, best)) <= dynamics.seed_radius
                and may_hold(v, label)
            ]
            for v in new:
                painted[v] = label
            probability = nearest_seed(painted, number)
            places.append([int(x) for x in best])
            labels.append(label)
        else:
            places.append([-1, -1, -1])
            labels.append(NONE)
        if len(places) == dynamics.max_seeds:
            status = SPENT
    return {
        "seeds": painted,
        "probability": probability,
        "places": places,
        "labels": labels,
        "status": status,
    }


@pytest.mark.parametrize("with_prior", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "seed_radius": 1.0, "exclusion_radius": 2.0},
        {"stride": 3, "seed_radius": 2.0, "exclusion_radius": 3.0},
        {"stride": 4, "seed_radius": 0.0, "exclusion_radius": 0.0},
    ],
)
def test_agents_do_what_one_agent_in_plain_python_does(
    options: dict[str, Any], with_prior: bool
) -> None:
    count, steps = 10, 7
    dynamics = rules(max_seeds=5, **options)
    seeds = random_seeds(count, seed=5, share=0.01)
    seeds[:, :4, :4, :4] = BACKGROUND
    prior = torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(0))
    given = prior if with_prior else None
    dynamics, state = begin(dynamics, seeds, given)
    rng = np.random.default_rng(1)
    taken = []
    for _ in range(steps):
        taken.append(random_actions(state, dynamics, rng))
        state = dynamics.step(state, taken[-1])
    actions = torch.stack(taken, dim=1).tolist()
    refused = 0
    for n in range(count):
        expected = simulate(
            dynamics, seeds[n].numpy(), n, actions[n], prior[n].numpy() if with_prior else None
        )
        used = len(expected["places"])
        np.testing.assert_array_equal(state.seeds[n], expected["seeds"])
        np.testing.assert_array_equal(state.probability[n], expected["probability"])
        assert state.places[n, :used].tolist() == expected["places"]
        assert state.labels[n, :used].tolist() == expected["labels"]
        assert (state.places[n, used:] == -1).all()
        assert (state.labels[n, used:] == NONE).all()
        assert int(state.steps[n]) == used
        assert int(state.status[n]) == expected["status"]
        refused += expected["labels"].count(NONE)
    assert refused > 0
    assert {STOPPED, SPENT} <= set(state.status.tolist())


def test_user_seeds_always_win() -> None:
    """Whatever agents do, for long: user voxels stay, and the exclusion around them holds."""
    dynamics = rules(max_seeds=40, seed_radius=3.0, exclusion_radius=2.0)
    seeds = random_seeds(4, seed=6, share=0.005)
    dynamics, state = begin(dynamics, seeds)
    rng = np.random.default_rng(2)
    cells = dynamics.actions(SHAPE) - 1
    for _ in range(40):
        action = torch.from_numpy(rng.integers(0, cells, 4))
        state = dynamics.step(state, action)
    painted, user = state.seeds.numpy(), (seeds != NONE).numpy()
    assert (painted[user] == seeds.numpy()[user]).all()
    assert ((painted != NONE) & ~user).any(axis=(1, 2, 3)).all()
    for n, label in product(range(4), (BACKGROUND, FOREGROUND)):
        theirs = (painted[n] == label) & ~user[n]
        other = user[n] & (painted[n] == 1 - label)
        if other.any() and theirs.any():
            assert ndimage.distance_transform_edt(~other)[theirs].min() > 2.0


def test_repainting_around_new_user_seeds() -> None:
    dynamics = rules(max_seeds=6, seed_radius=1.0, exclusion_radius=2.0)
    seeds = random_seeds(5, seed=11, share=0.005)
    dynamics, state = begin(dynamics, seeds)
    rng = np.random.default_rng(4)
    for _ in range(6):
        state = dynamics.step(state, random_actions(state, dynamics, rng))
    assert (dynamics.repaint(state, seeds) == state.seeds).all()

    # The user contradicts the first seed of every agent, from one voxel beside it.
    more, beside = seeds.clone(), []
    for n in range(5):
        i, j, k = state.places[n, 0].tolist()
        beside.append((i, j, k + 1 if k + 1 < SHAPE[2] else k - 1))
        more[n, *beside[-1]] = 1 - state.labels[n, 0]
    painted = dynamics.repaint(state, more).numpy()
    user = more.numpy() != NONE
    assert (painted[user] == more.numpy()[user]).all()
    for n, label in product(range(5), (BACKGROUND, FOREGROUND)):
        theirs, other = (painted[n] == label) & ~user[n], more[n].numpy() == 1 - label
        if other.any():
            assert not theirs[ndimage.distance_transform_edt(~other) <= 2.0].any()
        # What is far from all that is new stays as it was.
        fresh = np.ones(SHAPE, dtype=bool)
        fresh[beside[n]] = False
        far = ndimage.distance_transform_edt(fresh) > 4.0
        np.testing.assert_array_equal(painted[n][far], state.seeds[n].numpy()[far])
    assert (painted != NONE).sum() > (more.numpy() != NONE).sum()


def test_only_windows_with_a_new_seed_are_solved() -> None:
    dynamics = rules(max_seeds=2)
    segmenter: Any = dynamics.segmenter
    dynamics, state = begin(dynamics, random_seeds(4, seed=7, share=0.0))
    assert segmenter.calls == [[0, 1, 2, 3]]
    stop = dynamics.actions(SHAPE) - 1
    corner, far = 0, int(stop // 2 - 1)
    actions = (
        [corner, stop, far, corner],
        [far, far, stop, far],
        [far, far, far, far],
        [stop, stop, stop, stop],
    )
    for action in actions:
        state = dynamics.step(state, torch.tensor(action))
    assert segmenter.calls[1:] == [[0, 2, 3], [0, 3]]
    assert state.status.tolist() == [SPENT, STOPPED, STOPPED, SPENT]
    assert state.steps.tolist() == [2, 0, 1, 2]


def test_warm_start_is_the_solution_before() -> None:
    dynamics = rules()
    segmenter: Any = dynamics.segmenter
    dynamics, first = begin(dynamics, random_seeds(3, seed=8, share=0.0))
    assert segmenter.starts == [None]
    stop = dynamics.actions(SHAPE) - 1
    second = dynamics.step(first, torch.tensor([0, stop, 5]))
    assert (segmenter.starts[1] == first.probability[[0, 2]]).all()
    dynamics.step(second, torch.tensor([9, 9, 9]))
    assert (segmenter.starts[2] == second.probability[[0, 2]]).all()
    again = dynamics.reset(first.seeds, start=second.probability)
    assert segmenter.starts[3] is second.probability
    assert (again.status == ACTIVE).all()


def test_a_step_leaves_the_state_before_as_it_was() -> None:
    dynamics = rules()
    dynamics, state = begin(dynamics, random_seeds(3, seed=9))
    copies = {name: value.clone() for name, value in vars(state).items()}
    dynamics.step(state, torch.tensor([3, 40, 100]))
    for name, copy in copies.items():
        assert (getattr(state, name) == copy).all(), name


def test_seeds_of_agents_kept_at_a_reset_exclude_nothing() -> None:
    dynamics = rules(exclusion_radius=2.0)
    seeds = torch.full((1, *SHAPE), NONE, dtype=torch.int8)
    seeds[0, 1, 1, 1], seeds[0, 7, 9, 5] = FOREGROUND, FOREGROUND
    user = torch.zeros(seeds.shape, dtype=torch.bool)
    user[0, 1, 1, 1] = True
    state = dynamics.on(Windows(Numbered(torch.tensor([0])))).reset(seeds, user=user)
    assert (state.user == user).all()
    free = state.free[0].numpy()
    assert not free[BACKGROUND, 1, 1, 2]
    assert free[FOREGROUND, 1, 1, 2]
    assert free[BACKGROUND, 7, 9, 4]
    assert not free[:, 7, 9, 5].any()


@pytest.mark.parametrize(
    "options", [{"stride": 0}, {"max_seeds": 0}, {"seed_radius": -1.0}, {"exclusion_radius": -0.5}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(MedrlError, match=next(iter(options))):
        rules(**options)
