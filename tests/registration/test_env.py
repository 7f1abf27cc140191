"""The registration environment, for TorchRL and for Gymnasium."""

import math
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tensordict import TensorDict, TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.envs.utils import check_env_specs

from medrl.errors import MedrlError
from medrl.registration.dynamics import UNSEEN
from medrl.registration.env import (
    GYMNASIUM_ID,
    MOVING,
    PAPER_STEPS,
    SPENT,
    STOPPED,
    PosedPair,
    RegistrationEnv,
    make,
)
from medrl.registration.network import ACTIONS, STEPS
from medrl.registration.rewards import RewardSettings
from medrl.volume.pyramid import Pyramid

SPACING = 8.0
WINDOW = 9
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
) -> Pyramid:
    """Noise on a turned grid that has its middle somewhere."""
    affine = rigid(turn, (0, 0, 0)) @ np.diag([SPACING] * 3 + [1])
    affine[:3, 3] = center_world - affine[:3, :3] @ (np.array(shape) - 1) / 2
    volume = torch.from_numpy(rng.uniform(0, 1.2, (1, *shape))).float()
    return Pyramid((volume,), (SPACING,), (affine,), UNSEEN)


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


def build(**options: Any) -> RegistrationEnv:
    return RegistrationEnv(pool(), **({"window": WINDOW, "seed": 0, "max_steps": 6} | options))


def factored(parameters: int = 6, *, stop: bool = False, **steps: int) -> list[int]:
    """An action that makes no step but those named, as in ``p3=8``."""
    action = [NONE] * parameters + [int(stop)]
    for name, index in steps.items():
        action[int(name[1:])] = index
    return action


def walk(env: EnvBase, policy: Any, steps: int, **reset: Any) -> list[TensorDictBase]:
    """The tensordicts of some steps from a reset, none of them reset again."""
    current = env.reset(**reset)
    records = []
    for _ in range(steps):
        current["action"] = policy(env, current)
        records.append(env.step(current).clone())
        current = records[-1]["next"].exclude("reward").clone()
    return records


def chance(env: EnvBase, _: TensorDictBase) -> torch.Tensor:
    return env.action_spec.rand()


def distances(pair: PosedPair, transform: Matrix) -> float:
    """Mean distance of the points, in mm."""
    points = np.c_[pair.points_world, np.ones(len(pair.points_world))]
    apart = points @ (transform - pair.truth_world).T
    return float(np.linalg.norm(apart[:, :3], axis=1).mean())


def step(env: RegistrationEnv, action: Any) -> TensorDictBase:
    blank = TensorDict(batch_size=env.batch_size)
    return env.step(blank.set("action", torch.tensor(action)))["next"]


# Specs and observations -------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [[], [4]])
@pytest.mark.parametrize("action", ["factored", "single"])
@pytest.mark.parametrize(("kind", "parameters"), [("rigid", 6), ("similarity", 7), ("affine", 12)])
def test_specs(batch_size: list[int], action: str, kind: str, parameters: int) -> None:
    env = build(batch_size=batch_size, action=action, kind=kind)
    check_env_specs(env, seed=0, break_when_any_done="both")
    drawn = env.rollout(2, break_when_any_done=False)["action"]
    if action == "factored":
        assert drawn.shape == (*batch_size, 2, parameters + 1)
        options = env.action_spec.nvec.reshape(-1, parameters + 1)
        assert (options == torch.tensor([ACTIONS] * parameters + [2])).all()
    else:
        assert drawn.shape == (*batch_size, 2)
        assert env.action_spec.n == 2 * parameters + 1
    seen = env.rollout(1)["windows"]
    assert seen.shape == (*batch_size, 1, 3, *[WINDOW] * 3)


def test_observations_are_of_the_transform_that_they_tell() -> None:
    env = build(batch_size=[5])
    pairs = pool()
    for record in walk(env, chance, 3):
        seen = record["next"]
        for n in range(5):
            pair = pairs[int(seen["pair"][n])]
            expected = distances(pair, seen["transform_world"][n].numpy())
            assert float(seen["distance_mm"][n]) == pytest.approx(expected, rel=1e-5)
        again = env.windows(seen["pair"], seen["transform_world"])
        torch.testing.assert_close(again, seen["windows"])


def test_windows_are_centred_on_the_points() -> None:
    pairs, middle = pool(), WINDOW // 2
    env = build(batch_size=[3])
    start = env.reset(pair=[0, 1, 2], misalignment=[0.0] * 12)
    for n, pair in enumerate(pairs):
        center = np.append(pair.points_world.mean(axis=0), 1)
        for channel, (one, to_scan) in enumerate(
            ((pair.fixed, np.eye(4)), (pair.moving, pair.truth_world))
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


# Starts -----------------------------------------------------------------------------------------


def start_changes(**options: Any) -> tuple[Matrix, NDArray[np.int64]]:
    """What is left to be done at many random starts, about the pivot, and the pairs."""
    env = build(batch_size=[400], window=1, **options)
    start, pairs = env.reset(), pool()
    changes = []
    for which, transform in zip(start["pair"], start["transform_world"].numpy(), strict=True):
        pair = pairs[int(which)]
        left = np.linalg.inv(transform) @ pair.truth_world
        changes.append(about(left, -pair.points_world.mean(axis=0)))
    return np.stack(changes), start["pair"].numpy()


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
    env = build(batch_size=[3])
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
    assert (env.reset(pair=1)["pair"] == 1).all()
    for given in ({"pair": 3}, {"pair": [0, 1]}, {"pair": 0.5}, {"misalignment": [0.0] * 6}):
        with pytest.raises(MedrlError, match=next(iter(given))):
            env.reset(**given)
    with pytest.raises(MedrlError, match="misalignment"):
        env.reset(misalignment=[math.nan] * 12)


# Steps ------------------------------------------------------------------------------------------


def test_the_right_factored_steps_bring_agents_home() -> None:
    env = build(batch_size=[3], kind="affine")
    one_step = [25, -10, 1.5, 0, -25, 0, 4, 0, -1.5, 0, 10, -4]
    env.reset(pair=[0, 1, 2], misalignment=one_step)
    signed = [*[-s for s in reversed(STEPS[1:])], *STEPS]
    action = [signed.index(size) for size in one_step] + [0]
    after = step(env, [action] * 3)
    assert after["distance_mm"].tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    np.testing.assert_allclose(after["transform_world"].numpy(), TRUTHS, atol=1e-9)


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
    env = build(batch_size=[5], reward=RewardSettings("progress", bonus=0.0))
    records = walk(env, chance, 6)
    assert bool(records[-1]["next", "done"].all())
    total = sum(record["next", "reward"][:, 0] for record in records)
    first, last = records[0]["distance_mm"], records[-1]["next", "distance_mm"]
    torch.testing.assert_close(total, first.log1p() - last.log1p())


def test_distance_rewards_are_in_millimetres_with_a_terminal_bonus() -> None:
    settings = RewardSettings("distance", bonus=10.0, threshold=2.0, penalty=3.0)
    env = build(batch_size=[3], reward=settings)
    env.reset(misalignment=[[5.5, *[0] * 11], [5.5, *[0] * 11], [40, *[0] * 11]])
    moved = step(env, [factored(p0=UP[4.0])] * 3)
    assert moved["reward"][:, 0].tolist() == pytest.approx([-1.5, -1.5, -36], abs=1e-4)
    stopped = step(env, [factored(stop=True), factored(), factored(stop=True)])
    expected = [-1.5 + 10, -1.5, -36 - 3]
    assert stopped["reward"][:, 0].tolist() == pytest.approx(expected, abs=1e-4)
    assert stopped["terminated"][:, 0].tolist() == [True, False, True]


def test_stopping_makes_no_step() -> None:
    env = build()
    start = env.reset()
    after = step(env, factored(stop=True, p0=8, p4=0))
    assert (after["transform_world"] == start["transform_world"]).all()
    assert (bool(after["terminated"]), bool(after["truncated"])) == (True, False)
    assert float(after["reward"]) == 0


def test_done_flags() -> None:
    env = build(batch_size=[3], max_steps=3, action="single")
    stop = 12
    actions = iter([[0, stop, 0], [3, 1, 1], [5, 2, stop], [6, stop, 0]])
    records = walk(env, lambda *_: torch.tensor(next(actions)), 4)

    def flags(name: str) -> list[list[bool]]:
        return [record["next", name][:, 0].tolist() for record in records]

    stopped = [[False, True, False]] * 2 + [[False, True, True]] * 2
    spent = [[False, False, False]] * 2 + [[True, False, False]] * 2
    assert flags("terminated") == stopped
    assert flags("truncated") == spent
    assert (np.array(flags("done")) == np.array(stopped) | np.array(spent)).all()
    assert env.registration_state.status.tolist() == [SPENT, STOPPED, STOPPED]
    assert env.registration_state.steps.tolist() == [3, 1, 3]


def test_episodes_end_at_the_target_if_they_should() -> None:
    near = [3.5, *[0] * 11]
    for ends in (False, True):
        env = build(stop_at_target=ends, reward=RewardSettings(bonus=5.0))
        env.reset(misalignment=near)
        away = step(env, factored(p0=8 - UP[1.5]))
        assert not bool(away["done"])
        home = step(env, factored(p0=UP[4.0]))
        assert float(home["distance_mm"]) == pytest.approx(1.0, abs=1e-4)
        assert bool(home["terminated"]) == ends
        progress = math.log(1 + 5.0) - math.log(1 + 1.0)
        assert float(home["reward"]) == pytest.approx(progress + 5.0 * ends, abs=1e-4)


def test_ended_agents_stay_as_they_are() -> None:
    env = build(batch_size=[4], reward="distance")
    walk(env, chance, 6)
    state = env.registration_state
    assert not (state.status == MOVING).any()
    again = step(env, env.action_spec.rand().tolist())
    assert bool(again["done"].all())
    assert float(again["reward"].abs().max()) == 0
    for name, old in vars(state).items():
        assert (getattr(env.registration_state, name) == old).all(), name


# Determinism, batches, resets -------------------------------------------------------------------


def test_same_seed_same_episodes() -> None:
    def episodes(seed: int) -> TensorDictBase:
        env = build(batch_size=[4], seed=None)
        env.set_seed(seed)
        torch.manual_seed(7)
        return env.rollout(12, break_when_any_done=False)

    assert (episodes(3) == episodes(3)).all()
    assert not (episodes(3)["transform_world"] == episodes(4)["transform_world"]).all()


def test_unseeded_environments_differ_but_follow_torch() -> None:
    def starts() -> torch.Tensor:
        return torch.stack([build(seed=None).reset()["transform_world"] for _ in range(3)])

    torch.manual_seed(0)
    first = starts()
    torch.manual_seed(0)
    assert (starts() == first).all()
    assert len(first.unique(dim=0)) == 3


def test_batch_equals_single_agents() -> None:
    changes = np.random.default_rng(1).uniform(-20, 20, (4, 12))
    given = {"pair": [0, 1, 2, 2], "misalignment": changes}
    torch.manual_seed(0)
    actions = [build(batch_size=[4]).action_spec.rand() for _ in range(5)]

    def replay(columns: slice | int) -> Any:
        steps = iter(actions)
        return lambda *_: next(steps)[columns]

    together = walk(build(batch_size=[4]), replay(slice(None)), 5, **given)
    for n in range(4):
        mine = {name: values[n] for name, values in given.items()}
        alone = walk(build(), replay(n), 5, **mine)
        for batched, single in zip(together, alone, strict=True):
            for name in ("transform_world", "distance_mm", "reward", "done"):
                torch.testing.assert_close(batched["next", name][n], single["next", name])
            # A voxel at the border may be in view in one and not in the other.
            apart = (batched["next", "windows"][n] - single["next", "windows"]).abs()
            assert float((apart > 1e-4).float().mean()) < 0.01


def test_partial_reset_leaves_the_others_alone() -> None:
    env = build(batch_size=[4])
    last = walk(env, lambda *_: torch.tensor([factored(p1=7)] * 4), 3)[-1]["next"]
    last = last.exclude("reward")
    before = env.registration_state
    mask = torch.tensor([[False], [True], [False], [True]])
    given = {"pair": [0, 2, 0, 1], "misalignment": [1.0] * 12}
    fresh = env.reset(last.clone().set("_reset", mask), **given)
    after = env.registration_state
    for name, old in vars(before).items():
        assert (getattr(after, name)[[0, 2]] == old[[0, 2]]).all(), name
    assert (fresh["windows"][[0, 2]] == last["windows"][[0, 2]]).all()
    assert after.steps.tolist() == [3, 0, 3, 0]
    assert fresh["pair"][[1, 3]].tolist() == [2, 1]
    # Each goes on with its own pair.
    moved = step(env, [factored(p3=6)] * 4)
    for n in (1, 3):
        twin = build()
        twin.reset(pair=given["pair"][n], misalignment=given["misalignment"])
        single = step(twin, factored(p3=6))
        torch.testing.assert_close(moved["transform_world"][n], single["transform_world"])
        torch.testing.assert_close(moved["distance_mm"][n], single["distance_mm"])


def test_only_ended_agents_are_reset_in_a_long_rollout() -> None:
    rollout = build(batch_size=[6]).rollout(30, break_when_any_done=False)
    done = rollout["next", "done"][..., 0]
    assert done.sum() > 6
    assert not bool(rollout["done"].any())
    following = rollout["next", "transform_world"][:, :-1]
    same = (following == rollout["transform_world"][:, 1:]).all(dim=-1).all(dim=-1)
    assert (same == ~done[:, :-1]).all()


def test_collector_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collector = Collector(build(batch_size=[4]), None, frames_per_batch=40, total_frames=80)
        frames = [batch.numel() for batch in collector]
        collector.shutdown()
    assert frames == [40, 40]
    assert "".join(capfd.readouterr()) == ""


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "cubed"}, "no reward"),
        ({"action": "both"}, "action must be"),
        ({"kind": "warp"}, "kind must be"),
        ({"step_sizes": (1.0, 0.0, 1.0, 1.0)}, "step_sizes"),
        ({"max_steps": 0}, "max_steps"),
        ({"turn": 200.0}, "turn"),
        ({"colour": "red"}, "unknown option colour"),
        ({"batch_size": [2, 2]}, "batch_size"),
        ({"window": 0}, "window"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MedrlError, match=message):
        build(**options)


def test_pairs_must_fit() -> None:
    first, second, _ = pool()

    def refused(pairs: list[PosedPair], message: str) -> None:
        with pytest.raises(MedrlError, match=message):
            RegistrationEnv(pairs)

    def other(one: PosedPair, **change: Any) -> PosedPair:
        return PosedPair(**(vars(one) | change))

    fine = Pyramid(first.fixed.levels, (4.0,), first.fixed.affines, UNSEEN)
    bright = Pyramid(first.fixed.levels, (SPACING,), first.fixed.affines)
    double = Pyramid((first.fixed.levels[0].repeat(2, 1, 1, 1),), (SPACING,), (np.eye(4),), UNSEEN)
    mirror = np.diag([-1.0, 1, 1, 1])
    refused([], "at least one pair")
    refused([first, other(second, moving=fine)], "voxel size")
    refused([other(first, fixed=bright)], "background")
    refused([other(first, fixed=double)], "one channel")
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
    env = make(**scans(), window=16, seed=0)
    assert env.level.spacing == 8
    start = env.reset(misalignment=[0.0] * 12)
    fixed, moving, seen = start["windows"]
    assert float(start["distance_mm"]) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(start["transform_world"].numpy(), SHIFT)
    torch.testing.assert_close(fixed, moving, atol=0.02, rtol=0)
    assert float(seen.mean()) > 0.5
    # Points are drawn in the object: off by 24 mm, one sees it elsewhere, three voxels away.
    off = env.reset(misalignment=[24.0, *[0.0] * 11])["windows"]
    torch.testing.assert_close(off[1, 3:-3, 3:-3, 3:-3], fixed[:-6, 3:-3, 3:-3], atol=0.05, rtol=0)
    finer = make(**scans(), level=1, points_world=[CENTER])
    assert (finer.level.spacing, finer.level.window) == (4, 32)
    with pytest.raises(MedrlError, match="level"):
        make(**scans(), level=2)
    with pytest.raises(MedrlError, match="1 fixed and 2 moving"):
        make(**scans() | {"moving": [scans()["moving"]] * 2})
    with pytest.raises(MedrlError, match="truth_world"):
        make(**scans() | {"truth_world": np.zeros((3, 4, 4))})


@pytest.mark.parametrize("action", ["factored", "single"])
def test_gymnasium_checker_passes(action: str) -> None:
    env = gymnasium.make(GYMNASIUM_ID, **scans(), window=8, action=action)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # TorchRL hands a tensor to Gymnasium's MultiDiscrete.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        check_env(env.unwrapped)
    env.close()


def test_gymnasium_is_the_same_environment() -> None:
    options = scans() | {"window": 8, "max_steps": 3}
    env = gymnasium.make(f"medrl.registration.env:{GYMNASIUM_ID}", **options)
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
        assert isinstance(reward, float)
        assert reward == pytest.approx(float(current["reward"]))
        assert (terminated, truncated) == (bool(current["terminated"]), bool(current["truncated"]))
    assert truncated


def test_gymnasium_takes_one_agent() -> None:
    with pytest.raises(MedrlError, match="one agent"):
        gymnasium.make(GYMNASIUM_ID, **scans(), batch_size=[2])


def test_gymnasium_vector_environments() -> None:
    env = gymnasium.make_vec(GYMNASIUM_ID, num_envs=2, **scans(), window=8)
    seen, _ = env.reset(seed=0)
    assert seen["windows"].shape == (2, 3, 8, 8, 8)
    _, rewards, *_ = env.step(env.action_space.sample())
    assert rewards.shape == (2,)
    env.close()
