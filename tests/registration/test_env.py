"""Agents that move scans as an environment: what they see, do, are worth, and when they end."""

import math
import warnings
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as check_gymnasium
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tensordict import TensorDict, TensorDictBase

from medrl.errors import MedrlError
from medrl.registration.dynamics import (
    ACTIONS,
    PAPER_STEPS,
    SPENT,
    STEPS,
    UNSEEN,
    RegistrationState,
    Rules,
)
from medrl.registration.env import GYMNASIUM_ID, make
from medrl.registration.task import (
    ARRIVED,
    AlignSettings,
    AlignTask,
    PosedPair,
    RewardSettings,
    align_pairs,
)
from medrl.rl.check import check_env
from medrl.rl.env import AgentsEnv
from medrl.volume.pyramid import Pyramid

SPACINGS = (4.0, 8.0)
WINDOWS = (11, 9)
NONE = ACTIONS // 2
UP = {0.0: NONE} | {size: NONE + 1 + n for n, size in enumerate(STEPS[1:])}

Matrix = NDArray[np.float64]


def rigid(turn: tuple[float, float, float], shift: tuple[float, float, float]) -> Matrix:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def about(matrix: Matrix, pivot: NDArray[np.float64]) -> Matrix:
    there, back = np.eye(4), np.eye(4)
    there[:3, 3], back[:3, 3] = pivot, -pivot
    return np.asarray(there @ matrix @ back)


TRUTHS = [rigid((20, -30, 10), (12, -7, 5)), rigid((0, 0, 90), (3, 0, 1)), np.eye(4)]


def scan(
    rng: np.random.Generator,
    turn: tuple[float, float, float],
    center_world: NDArray[np.float64],
    shape: tuple[int, int, int],
) -> list[Pyramid]:
    """Noise on turned grids of two voxel sizes that have their middle somewhere."""
    found = []
    for spacing in SPACINGS:
        affine = rigid(turn, (0, 0, 0)) @ np.diag([spacing] * 3 + [1])
        affine[:3, 3] = center_world - affine[:3, :3] @ (np.array(shape) - 1) / 2
        volume = torch.from_numpy(rng.uniform(0, 1.2, (1, *shape))).float()
        found.append(Pyramid((volume,), (spacing,), (affine,), UNSEEN))
    return found


def pool() -> list[PosedPair]:
    """Grids of different turns and shapes, away from the world's origin."""
    rng = np.random.default_rng(0)
    pairs = []
    for number, truth in enumerate(TRUTHS):
        points = rng.uniform(-40, 40, (20, 3)) + np.array([-10, 60, 340])
        there = (truth @ [-10, 60, 340, 1])[:3]
        fixed = scan(rng, (5, 10, -15), points[0] / 4 + points.mean(axis=0) * 3 / 4, (12, 11, 13))
        moving = scan(rng, (-40, 0, 15), there, (10, 13, 10 + number))
        pairs.append(PosedPair(fixed, moving, truth, points))
    return pairs


def build(
    batch_size: tuple[int, ...] = (), *, levels: tuple[int, ...] = (1,), **options: Any
) -> AgentsEnv[RegistrationState]:
    """An environment of the pool on some of its levels."""
    rules = {"action": "factored", "max_steps": 6} | {
        name: options.pop(name)
        for name in ("action", "kind", "step_sizes", "max_steps")
        if name in options
    }
    pairs = [
        PosedPair([p.fixed[n] for n in levels], [p.moving[n] for n in levels], p.truth_world,
                  p.points_world)
        for p in pool()
    ]  # fmt: skip
    windows = [WINDOWS[n] for n in levels]
    task = align_pairs(pairs, windows, Rules(**rules), AlignSettings(**options))
    return AgentsEnv(task.dynamics, task, batch_size=batch_size, seed=0)


def factored(parameters: int = 6, **steps: int) -> list[int]:
    """An action that makes no step but those named, as in ``p3=8``."""
    action = [NONE] * parameters
    for name, index in steps.items():
        action[int(name[1:])] = index
    return action


def distances(pair: PosedPair, transform: Matrix) -> float:
    """Mean distance of the points, in mm."""
    points = np.c_[pair.points_world, np.ones(len(pair.points_world))]
    apart = points @ (transform - pair.truth_world).T
    return float(np.linalg.norm(apart[:, :3], axis=1).mean())


def step(env: AgentsEnv[RegistrationState], action: Any) -> TensorDictBase:
    blank = TensorDict(batch_size=env.batch_size)
    return env.step(blank.set("action", torch.as_tensor(action)))["next"]


# The contract, and observations -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "kind", "levels"),
    [
        ("factored", "rigid", (1,)),
        ("single", "similarity", (0, 1)),
        ("step", "affine", (1,)),
    ],
)
def test_the_contract_holds(action: str, kind: str, levels: tuple[int, ...]) -> None:
    def one(batch_size: Any) -> AgentsEnv[RegistrationState]:
        return build(batch_size, action=action, kind=kind, levels=levels, max_steps=2)

    check_env(one, steps=6)


@pytest.mark.parametrize(("kind", "parameters"), [("rigid", 6), ("similarity", 7), ("affine", 12)])
def test_action_spaces(kind: str, parameters: int) -> None:
    spec = build((4,), kind=kind).action_spec
    assert (spec.nvec.reshape(-1, parameters) == ACTIONS).all()
    assert build(kind=kind, action="single").action_spec.n == 2 * parameters
    assert build((4,), kind=kind, action="step").action_spec.shape == (4, 12)


def test_observations_are_of_the_transform_that_they_tell() -> None:
    env = build((5,))
    pairs = pool()
    env.reset()
    for _ in range(3):
        seen = step(env, env.action_spec.rand())
        for n in range(5):
            pair = pairs[int(seen["pair"][n])]
            expected = distances(pair, seen["transform_world"][n].numpy())
            assert float(seen["distance_mm"][n]) == pytest.approx(expected, rel=1e-5)
        again = env.dynamics.look(0, seen["pair"], seen["transform_world"])
        torch.testing.assert_close(again, seen["windows"])


@pytest.mark.parametrize("level", [0, 1])
def test_windows_are_centred_on_the_points(level: int) -> None:
    pairs, middle = pool(), WINDOWS[level] // 2
    env = build((3,), levels=(level,))
    start = env.reset(pair=[0, 1, 2], misalignment=[0.0] * 12)
    for n, pair in enumerate(pairs):
        center = np.append(pair.points_world.mean(axis=0), 1)
        for channel, (one, to_scan) in enumerate(
            ((pair.fixed[level], np.eye(4)), (pair.moving[level], pair.truth_world))
        ):
            voxel = (np.linalg.inv(one.affines[0]) @ to_scan @ center)[:3]
            shown = float(start["windows"][n, channel, middle, middle, middle])
            low = np.floor(voxel).astype(int)
            around = one.levels[0][0, *(slice(v, v + 2) for v in low)]
            share = voxel - low
            weights = [np.array([1 - s, s]) for s in share]
            expected = np.einsum("ijk,i,j,k", around.numpy().astype(float), *weights)
            assert shown == pytest.approx(expected, abs=1e-5)
        assert start["windows"][n, 2].unique().tolist() == [0, 1]


def test_agents_go_from_coarse_to_fine() -> None:
    env = build((3,), levels=(0, 1), max_steps=(3, 2))
    start = env.reset(misalignment=[0.0] * 12)
    state = env.state
    # A window of 9 lies in the middle of one of 11, out of view around it.
    assert start["windows"].shape == (3, 3, 11, 11, 11)
    coarse = env.dynamics.look(1, state.pair, state.transform)
    torch.testing.assert_close(start["windows"][..., 1:10, 1:10, 1:10], coarse)
    assert (start["windows"][..., 0, :, :] == 0).all()
    # Where one is ahead of the others, each sees its own level.
    ahead = replace(state, level=torch.tensor([1, 0, 1]))
    seen = env.dynamics.observe(ahead)["windows"]
    torch.testing.assert_close(seen[[0, 2]], start["windows"][[0, 2]])
    torch.testing.assert_close(
        seen[1:2], env.dynamics.look(0, state.pair[1:2], state.transform[1:2])
    )
    levels = []
    for _ in range(5):
        after = step(env, [factored()] * 3)
        levels.append((int(env.state.level[0]), int(env.state.steps[0])))
    assert levels == [(1, 1), (0, 0), (0, 1), (0, 2), (0, 3)]
    assert bool(after["truncated"].all())
    assert env.dynamics.places(env.state).scale_mm.tolist() == [4.0] * 3


# Starts -----------------------------------------------------------------------------------------


def start_changes(**options: Any) -> tuple[Matrix, NDArray[np.int64]]:
    """What is left to be done at many random starts, about the pivot, and the pairs."""
    env, pairs = build((400,), **options), pool()
    state = env.task.begin(400, torch.Generator().manual_seed(0))
    changes = []
    for which, transform in zip(state.pair.tolist(), state.transform.numpy(), strict=True):
        pair = pairs[which]
        left = np.linalg.inv(transform) @ pair.truth_world
        changes.append(about(left, -pair.points_world.mean(axis=0)))
    return np.stack(changes), state.pair.numpy()


def test_random_starts_are_as_far_off_as_they_may_be() -> None:
    changes, pairs = start_changes(turn=50.0, shift=30.0)
    assert set(pairs.tolist()) == {0, 1, 2}
    vectors = Rotation.from_matrix(changes[:, :3, :3]).as_rotvec(degrees=True)
    angles = np.linalg.norm(vectors, axis=1)
    assert 45 < angles.max() <= 50 + 1e-9
    assert angles.min() < 5
    assert (np.abs((vectors / angles[:, None]).mean(axis=0)) < 0.12).all()
    shifts = changes[:, :3, 3]
    assert (shifts.max(axis=0) > 27).all()
    assert (shifts.min(axis=0) < -27).all()
    assert np.abs(shifts).max() <= 30 + 1e-9


@pytest.mark.parametrize("kind", ["similarity", "affine"])
def test_random_starts_differ_in_size_where_agents_can_undo_it(kind: str) -> None:
    changes, _ = start_changes(turn=0.0, shift=0.0, resize=10.0, kind=kind)
    upper = changes[:, :3, :3]
    scales = np.log(np.diagonal(upper, axis1=1, axis2=2)) * 100
    shears = upper[:, *np.triu_indices(3, 1)] * 100
    assert np.abs(scales).max() <= 10 + 1e-9
    if kind == "similarity":
        assert np.ptp(scales, axis=1).max() < 1e-9
        assert np.abs(scales).max() > 5
        assert np.abs(shears).max() < 1e-9
    else:
        assert (np.abs(scales).max(axis=0) > 9).all()
        assert 9 < np.abs(shears).max() <= 10 + 1e-9


def test_pair_and_misalignment_given() -> None:
    env = build((3,))
    turned = [0, 0, 0, 0, 0, 90, 0, 0, 0, 0, 0, 0]
    shifted = [3, -4, 0, *[0] * 9]
    start = env.reset(pair=[2, 0, 1], misalignment=[[0] * 12, shifted, turned])
    assert start["pair"].tolist() == [2, 0, 1]
    assert start["distance_mm"][:2].tolist() == pytest.approx([0, 5], abs=1e-5)
    pair = pool()[1]
    undo = about(rigid((0, 0, -90), (0, 0, 0)), pair.points_world.mean(axis=0))
    np.testing.assert_allclose(
        start["transform_world"][2].numpy(), pair.truth_world @ undo, atol=1e-9
    )
    assert isinstance(env.task, AlignTask)
    wanted = torch.tensor([[0] * 12, shifted, turned]).double()
    torch.testing.assert_close(env.task.left(env.state), wanted, atol=1e-9, rtol=0)
    assert (env.reset(pair=1)["pair"] == 1).all()
    refused = ({"pair": 3}, {"pair": [0, 1]}, {"pair": 0.5}, {"misalignment": [0.0] * 6}, {"x": 1})
    for given in refused:
        with pytest.raises(MedrlError, match=next(iter(given))):
            env.reset(**given)
    with pytest.raises(MedrlError, match="misalignment"):
        env.reset(misalignment=[math.nan] * 12)


# Steps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1])
def test_the_right_factored_steps_bring_agents_home(level: int) -> None:
    env = build((3,), kind="affine", levels=(level,))
    factor = SPACINGS[level] / 8
    steps = [25, -10, 1.5, 0, -25, 0, 4, 0, -1.5, 0, 10, -4]
    env.reset(pair=[0, 1, 2], misalignment=[factor * one for one in steps])
    signed = [*[-s for s in reversed(STEPS[1:])], *STEPS]
    after = step(env, [[signed.index(size) for size in steps]] * 3)
    assert after["distance_mm"].tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    np.testing.assert_allclose(after["transform_world"].numpy(), TRUTHS, atol=1e-9)


def test_steps_in_numbers_are_what_is_left() -> None:
    env = build((3,), kind="affine", action="step")
    env.reset(misalignment=[7, -3, 1, 20, -30, 5, 4, -2, 1, 3, 0, -4])
    assert isinstance(env.task, AlignTask)
    after = step(env, env.task.left(env.state))
    assert after["distance_mm"].tolist() == pytest.approx([0, 0, 0], abs=1e-5)


@pytest.mark.parametrize("form", ["factored", "single"])
def test_similarities_have_one_scale(form: str) -> None:
    env = build(kind="similarity", action=form)
    start = env.reset(pair=2, misalignment=[0.0] * 12)["transform_world"].numpy()
    after = step(env, factored(7, p6=UP[1.5]) if form == "factored" else 12)
    pivot = pool()[2].points_world.mean(axis=0)
    wider = np.diag([math.exp(0.015)] * 3 + [1])
    expected = start @ about(wider, pivot)
    np.testing.assert_allclose(after["transform_world"].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("action", "sizes", "expected"),
    [
        (0, None, rigid((0, 0, 0), (1.5, 0, 0))),
        (5, None, rigid((0, 0, 0), (0, 0, -1.5))),
        (6, None, rigid((1.5, 0, 0), (0, 0, 0))),
        (2, PAPER_STEPS, rigid((0, 0, 0), (0, 1, 0))),
        (11, PAPER_STEPS, rigid((0, 0, -1), (0, 0, 0))),
        (9, (3.0, 7.0, 1.0, 1.0), rigid((0, -7, 0), (0, 0, 0))),
        (12, PAPER_STEPS, np.diag([math.exp(0.05), 1, 1, 1])),
        (23, PAPER_STEPS, np.eye(4) - 0.05 * np.outer(np.eye(4)[1], np.eye(4)[2])),
    ],
)
def test_single_actions_move_one_parameter(action: int, sizes: Any, expected: Matrix) -> None:
    env = build(kind="affine", action="single", step_sizes=sizes)
    start = env.reset()
    pivot = pool()[int(start["pair"])].points_world.mean(axis=0)
    after = step(env, action)["transform_world"].numpy()
    np.testing.assert_allclose(after, start["transform_world"].numpy() @ about(expected, pivot))


def test_rewards_add_up_to_the_progress() -> None:
    env = build((5,))
    first = env.reset()["distance_mm"]
    total, current = torch.zeros(5), None
    for _ in range(6):
        current = step(env, env.action_spec.rand())
        total += current["reward"][:, 0]
    assert current is not None
    assert bool(current["truncated"].all())
    assert not bool(current["terminated"].any())
    torch.testing.assert_close(total, first.log1p() - current["distance_mm"].log1p())
    assert env.state.status.tolist() == [SPENT] * 5


def test_distance_rewards_are_in_millimetres_with_a_bonus_for_arriving() -> None:
    settings = RewardSettings("distance", bonus=10.0, threshold=2.0)
    env = build((3,), reward=settings, stop_at_target=True)
    env.reset(misalignment=[[5.5, *[0] * 11], [7, *[0] * 11], [40, *[0] * 11]])
    moved = step(env, [factored(p0=UP[4.0])] * 3)
    assert moved["reward"][:, 0].tolist() == pytest.approx([-1.5 + 10, -3, -36], abs=1e-4)
    assert moved["terminated"][:, 0].tolist() == [True, False, False]
    assert env.state.status.tolist() == [ARRIVED, 0, 0]
    # Without the rule nobody is told where it is right to stop.
    env = build((1,), reward=settings)
    env.reset(misalignment=[5.5, *[0] * 11])
    moved = step(env, [factored(p0=UP[4.0])])
    assert float(moved["reward"]) == pytest.approx(-1.5, abs=1e-4)
    assert not bool(moved["done"])


def test_batch_equals_single_agents() -> None:
    changes = np.random.default_rng(1).uniform(-20, 20, (4, 12))
    pairs = [0, 1, 2, 2]
    together, actions = build((4,)), []
    together.reset(pair=pairs, misalignment=changes)
    records = []
    for _ in range(3):
        actions.append(together.action_spec.rand())
        records.append(step(together, actions[-1]))
    for n in range(4):
        alone = build()
        alone.reset(pair=pairs[n], misalignment=changes[n])
        for action, batched in zip(actions, records, strict=True):
            single = step(alone, action[n])
            for name in ("transform_world", "distance_mm", "reward", "done"):
                torch.testing.assert_close(batched[name][n], single[name])
            # A voxel at the border may be in view in one and not in the other.
            apart = (batched["windows"][n] - single["windows"]).abs()
            assert float((apart > 1e-4).float().mean()) < 0.01


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "cubed"}, "no reward"),
        ({"action": "both"}, "action must be"),
        ({"kind": "warp"}, "kind must be"),
        ({"step_sizes": (1.0, 0.0, 1.0, 1.0)}, "step_sizes"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_steps": (3, 4)}, "max_steps"),
        ({"turn": 200.0}, "turn"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MedrlError, match=message):
        build(**options)


def test_pairs_must_fit() -> None:
    first, second, _ = (
        PosedPair(p.fixed[1:], p.moving[1:], p.truth_world, p.points_world) for p in pool()
    )

    def refused(pairs: list[PosedPair], message: str, *windows: int) -> None:
        with pytest.raises(MedrlError, match=message):
            align_pairs(pairs, windows or (7,))

    def other(one: PosedPair, **change: Any) -> PosedPair:
        return PosedPair(**(vars(one) | change))

    (shown,) = first.fixed
    fine = Pyramid(shown.levels, (4.0,), shown.affines, UNSEEN)
    bright = Pyramid(shown.levels, (8.0,), shown.affines)
    double = Pyramid((shown.levels[0].repeat(2, 1, 1, 1),), (8.0,), (np.eye(4),), UNSEEN)
    mirror = np.diag([-1.0, 1, 1, 1])
    refused([], "at least one pair")
    refused([first], "window must be", 0)
    refused([first], "each of 2 levels", 7, 7)
    refused([first, other(second, moving=[fine])], "voxel size")
    refused([other(first, fixed=[bright])], "background")
    refused([other(first, fixed=[double])], "one channel")
    refused([first, other(second, points_world=second.points_world[:5])], "number of points")
    refused([other(first, points_world=np.zeros((4, 2)))], "points_world")
    refused([first, other(second, truth_world=mirror)], "pair 1: truth_world")
    refused([other(first, points_world=np.full((4, 3), np.nan))], "finite")


# From scans, and Gymnasium ----------------------------------------------------------------------


def ball(affine: Matrix, center_world: tuple[float, float, float]) -> MetaTensor:
    """A bright ball of 40 mm with a dark one in it, in air."""
    shape = (30, 32, 28)
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    world = voxels @ affine[:3, :3].T + affine[:3, 3] - center_world
    volume = 100.0 * (np.linalg.norm(world, axis=-1) < 40)
    volume[np.linalg.norm(world - [10, 5, 0], axis=-1) < 15] = 40
    return MetaTensor(torch.from_numpy(volume)[None].float(), affine=torch.from_numpy(affine))


FIXED = rigid((3, 5, 40), (-60, 0, -50)) @ np.diag([5.0, 5.0, 6.0, 1])
CENTER = tuple((FIXED @ [14.5, 15.5, 13.5, 1])[:3])
SHIFT = rigid((0, 0, 0), (30, -20, 10))


def scans() -> dict[str, Any]:
    """The same object in two places."""
    moving = SHIFT @ FIXED
    moved = (SHIFT @ [*CENTER, 1])[:3]
    return {"fixed": ball(FIXED, CENTER), "moving": ball(moving, moved), "truth_world": SHIFT}


def test_scans_are_prepared_and_in_the_right_place() -> None:
    env = make(**scans(), level=1, window=16, seed=0)
    assert env.dynamics.views[0].spacing == 8
    start = env.reset(misalignment=[0.0] * 12)
    fixed, moving, seen = start["windows"]
    assert float(start["distance_mm"]) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(start["transform_world"].numpy(), SHIFT)
    torch.testing.assert_close(fixed, moving, atol=0.02, rtol=0)
    assert float(seen.mean()) > 0.5
    # Points are drawn in the object: off by 24 mm, one sees it elsewhere, three voxels away.
    off = env.reset(misalignment=[24.0, *[0.0] * 11])["windows"]
    torch.testing.assert_close(off[1, 3:-3, 3:-3, 3:-3], fixed[:-6, 3:-3, 3:-3], atol=0.05, rtol=0)
    every = make(**scans(), points_world=[CENTER])
    assert [(view.spacing, view.window) for view in every.dynamics.views] == [(4, 32), (8, 24)]
    with pytest.raises(MedrlError, match="level"):
        make(**scans(), level=2)
    with pytest.raises(MedrlError, match="1 fixed and 2 moving"):
        make(**scans() | {"moving": [scans()["moving"]] * 2})
    with pytest.raises(MedrlError, match="truth_world"):
        make(**scans() | {"truth_world": np.zeros((3, 4, 4))})
    with pytest.raises(MedrlError, match="unknown option colour"):
        make(**scans(), colour="red")


def test_gymnasium_is_the_same_environment() -> None:
    options = scans() | {"level": 1, "window": 8, "max_steps": 3}
    env = gymnasium.make(f"medrl.registration.env:{GYMNASIUM_ID}", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # TorchRL hands a tensor to Gymnasium's MultiDiscrete.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        check_gymnasium(env.unwrapped, skip_render_check=True)
    given = {"pair": 0, "misalignment": [10.0, 0, 0, 0, 20, *[0.0] * 7]}
    seen, info = env.reset(options=given)
    twin = make(**options)
    current = twin.reset(**given)
    for action in (factored(p0=7), factored(p4=8), factored(p2=1)):
        assert set(seen) == {"windows"}
        np.testing.assert_array_equal(seen["windows"], current["windows"].numpy())
        np.testing.assert_array_equal(info["transform_world"], current["transform_world"].numpy())
        assert info["distance_mm"] == float(current["distance_mm"])
        seen, reward, terminated, truncated, info = env.step(np.array(action))
        current = twin.step(current.set("action", torch.tensor(action)))["next"]
        assert reward == pytest.approx(float(current["reward"]))
        assert (terminated, truncated) == (bool(current["terminated"]), bool(current["truncated"]))
    assert truncated
