"""The landmark environment, for TorchRL and for Gymnasium."""

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as check_gymnasium
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from tensordict import TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import EnvBase

from medrl.errors import MedrlError
from medrl.landmark.dynamics import CAPPED, LEFT, LOOPED
from medrl.landmark.env import GYMNASIUM_ID, make
from medrl.landmark.task import REACHED
from medrl.rl.check import check_env
from medrl.rl.env import AgentsEnv

SPACINGS = (2.0, 4.0, 8.0)
#: World direction of each action.
DIRECTIONS = np.array(
    [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float
)


def random_scans() -> list[MetaTensor]:
    """Three scans of different grids, stored left-right flipped."""
    generator = torch.Generator().manual_seed(0)
    scans = []
    for n in range(3):
        affine = torch.diag(torch.tensor([-2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
        affine[:3, 3] = torch.tensor([40.0 + n, -40.0, -20.0 - n])
        volume = torch.rand((1, 40 + n, 44, 48 - n), generator=generator)
        scans.append(MetaTensor(volume, affine=affine))
    return scans


def random_points() -> NDArray[np.float64]:
    """Four landmarks a scan, well inside; the first scan lacks one."""
    low, high = (-20.0, -20.0, 0.0), (20.0, 25.0, 50.0)
    points = np.random.default_rng(0).uniform(low, high, (3, 4, 3))
    points[0, 1] = np.nan
    return points


def build(**options: Any) -> AgentsEnv[Any]:
    return make(random_scans(), random_points(), **({"window": 9, "seed": 0} | options))


def towards(env: AgentsEnv[Any], observation: TensorDictBase) -> torch.Tensor:
    """Move along the world axis on which the landmark is farthest away."""
    points = random_points()[observation["scan"].numpy(), observation["landmark"].numpy()]
    gap = points - observation["position_world"].numpy()
    return torch.from_numpy((gap[..., None, :] * DIRECTIONS).sum(-1).argmax(-1))


def walk(env: EnvBase, policy: Any, steps: int, **reset: Any) -> list[TensorDictBase]:
    """The tensordicts of some steps from a reset, none of them reset again."""
    current = env.reset(**reset)
    records = []
    for _ in range(steps):
        current["action"] = policy(env, current)
        records.append(env.step(current).clone())
        current = records[-1]["next"].exclude("reward").clone()
    return records


def random_policy(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return lambda env, observation: torch.randint(6, env.batch_size, generator=generator)


@pytest.mark.parametrize("stop", ["target", "loop"])
def test_the_contract_holds(stop: str) -> None:
    check_env(lambda batch_size: build(batch_size=batch_size, stop=stop, max_steps=9))


@pytest.mark.parametrize("form", ["distance", "squared"])
@pytest.mark.parametrize("unit", ["step", "mm"])
def test_rewards_are_differences_of_distances(form: str, unit: str) -> None:
    env = build(batch_size=[16], reward=form, unit=unit, max_steps=100)
    points = random_points()
    power = {"distance": 1, "squared": 2}[form]
    for record in walk(env, random_policy(1), 30):
        goal = points[record["scan"].numpy(), record["landmark"].numpy()]
        old = np.linalg.norm(goal - record["position_world"].numpy(), axis=-1) ** power
        new = np.linalg.norm(goal - record["next", "position_world"].numpy(), axis=-1) ** power
        per_unit = np.array(SPACINGS)[record["level"].numpy()] ** power if unit == "step" else 1.0
        np.testing.assert_allclose(
            record["next", "reward"][:, 0].numpy(), (old - new) / per_unit, rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(record["distance"], old ** (1 / power), rtol=1e-5)


@pytest.mark.parametrize(("form", "power"), [("distance", 1), ("squared", 2)])
def test_rewards_of_an_episode_telescope(form: str, power: int) -> None:
    env = build(batch_size=[8], reward=form, unit="mm")
    mostly_right = random_policy(2)

    def policy(env: AgentsEnv[Any], observation: TensorDictBase) -> torch.Tensor:
        other = mostly_right(env, observation)
        return torch.where(torch.rand(8) < 0.7, towards(env, observation), other)

    torch.manual_seed(0)
    records = walk(env, policy, 120)
    assert len({int(level) for r in records for level in r["level"]}) == 3
    total = sum(record["next", "reward"][:, 0] for record in records)
    first, last = records[0]["distance"] ** power, records[-1]["next", "distance"] ** power
    torch.testing.assert_close(total, first - last, rtol=1e-4, atol=1e-2)


def test_actions_move_along_the_world_axes() -> None:
    env = build(batch_size=[6])
    before = env.reset()
    before["action"] = torch.arange(6)
    after = env.step(before)["next"]
    moved = (after["position_world"] - before["position_world"]).numpy()
    step = np.array(SPACINGS)[before["level"].numpy()][:, None]
    np.testing.assert_allclose(moved, DIRECTIONS * step, atol=1e-9)


def test_optimal_policy_reaches_the_landmark_on_every_scale() -> None:
    env = build(batch_size=[32])
    reached: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for record in walk(env, towards, 60):
        after = record["next"]
        ended = after["terminated"][:, 0] & ~record["done"][:, 0]
        for level in reached:
            passed = (record["level"] == level) & ((after["level"] < level) | ended)
            reached[level] += (after["distance"][passed] / SPACINGS[level]).tolist()
        # An agent may have nothing left to do on several levels at once.
        reached[0] += (after["distance"][ended & (record["level"] > 0)] / SPACINGS[0]).tolist()
    assert bool(after["terminated"].all())
    assert not bool(after["truncated"].any())
    assert (env.state.status == REACHED).all()
    assert len(reached[0]) == 32
    assert len(reached[2]) > 16
    for distances in reached.values():
        # Half a step on each axis.
        assert max(distances) <= np.sqrt(3) / 2 + 1e-4


def test_loop_rule_ends_at_the_landmark_without_knowing_it() -> None:
    env = build(batch_size=[32], stop="loop")
    last = walk(env, towards, 100)[-1]["next"]
    assert bool(last["done"].all())
    assert bool(last["truncated"].all())
    assert (env.state.status == LOOPED).all()
    assert (last["level"] == 0).all()
    # An agent that must move is at most one step away from the nearest lattice point.
    assert float(last["distance"].max()) <= (np.sqrt(3) / 2 + 1) * SPACINGS[0]


def test_loop_rule_goes_on_from_the_mean_of_the_loop() -> None:
    env = build(stop="loop")
    actions = iter([0, 2, 0, 2, 1, 3])
    records = walk(env, lambda *_: torch.tensor(next(actions)), 6, scan=1, start_world=[0, 0, 20])
    *_, before, last = records
    assert int(before["level"]) == 2
    assert int(last["next", "level"]) == 1
    places = np.stack([record["position_world"].numpy() for record in records[2:]])
    mean = places.mean(axis=0)
    assert np.abs(last["next", "position_world"].numpy() - mean).max() <= SPACINGS[1] / 2 + 1e-9


def test_leaving_the_scan_terminates() -> None:
    env = build(batch_size=[2], margin=8)
    records = walk(env, lambda *_: torch.tensor([0, 5]), 40)
    last = records[-1]["next"]
    assert bool(last["terminated"].all())
    assert (env.state.status == LEFT).all()
    outside = [r for r in records if not bool(r["done"][0]) and r["position_voxel"][0, 0] > 42]
    assert outside, "the agent may walk within the margin"
    assert float(outside[-1]["window"][0, 0, -1].abs().max()) == 0.0


def test_too_many_steps_truncate() -> None:
    env = build(batch_size=[3], max_steps=7)
    back_and_forth = iter([0, 1] * 20)
    records = walk(env, lambda *_: torch.full((3,), next(back_and_forth)), 7, landmark=0)
    flags = torch.stack([record["next", "truncated"][:, 0] for record in records])
    assert not bool(flags[:6].any())
    assert bool(flags[6].all())
    assert not bool(records[-1]["next", "terminated"].any())
    assert (env.state.status == CAPPED).all()


def test_windows_are_the_pyramid_around_the_agent() -> None:
    env = build(batch_size=[12], stop="loop")
    for record in walk(env, random_policy(3), 40)[::5]:
        for n in range(12):
            pyramid = env.dynamics.scans[int(record["scan"][n])]
            level = int(record["level"][n])
            volume = np.pad(pyramid.levels[level][0].numpy(), 40)
            i, j, k = (record["position_voxel"][n] // pyramid.strides[level]).numpy() + 40
            expected = volume[i - 4 : i + 5, j - 4 : j + 5, k - 4 : k + 5]
            np.testing.assert_allclose(record["window"][n, 0].numpy(), expected, atol=1e-6)


def test_unseeded_environments_differ_but_follow_torch() -> None:
    def starts() -> torch.Tensor:
        return torch.stack([build(seed=None).reset()["position_voxel"] for _ in range(3)])

    torch.manual_seed(0)
    first = starts()
    torch.manual_seed(0)
    assert (starts() == first).all()
    assert len(first.unique(dim=0)) == 3


def test_batch_equals_single_agents() -> None:
    given = {
        "scan": [0, 1, 2, 2],
        "landmark": [0, 1, 2, 3],
        "start_world": [[0.0, 0, 10], [5, -9, 22], [-11, 3, 30], [0, 20, 40]],
    }
    actions = torch.randint(6, (50, 4), generator=torch.Generator().manual_seed(0))

    def replay(columns: slice | int) -> Any:
        steps = iter(actions[:, columns])
        return lambda *_: next(steps)

    for stop in ("target", "loop"):
        together = walk(build(batch_size=[4], stop=stop), replay(slice(None)), 50, **given)
        for n in range(4):
            mine = {name: values[n] for name, values in given.items()}
            alone = walk(build(stop=stop), replay(n), 50, **mine)
            for batched, single in zip(together, alone, strict=True):
                assert (batched["next"][n] == single["next"]).all()


def test_only_ended_agents_are_reset_in_a_long_rollout() -> None:
    env = build(batch_size=[6], max_steps=9)
    rollout = env.rollout(60, break_when_any_done=False)
    done = rollout["next", "done"][..., 0]
    assert done.sum() > 6
    assert not bool(rollout["done"].any())
    continued = ~done[:, :-1]
    following = rollout["next", "position_voxel"][:, :-1]
    assert (following[continued] == rollout["position_voxel"][:, 1:][continued]).all()
    assert not (following[~continued] == rollout["position_voxel"][:, 1:][~continued]).all()


def test_starts_given_and_near() -> None:
    env = build(batch_size=[3])
    world = np.array([[1.0, 2.0, 3.0], [-8.0, 9.0, 30.0], [10.0, -10.0, 50.0]])
    start = env.reset(start_world=world, scan=0, landmark=2)
    assert np.abs(start["position_world"].numpy() - world).max() <= SPACINGS[2] / 2
    assert (start["landmark"] == 2).all()

    near = build(batch_size=[200], start_radius=12.0, landmark=3).reset()
    gap = random_points()[near["scan"].numpy(), 3] - near["position_world"].numpy()
    assert np.abs(gap).max() <= 12.0 + SPACINGS[2] / 2
    assert (near["landmark"] == 3).all()


def test_unlabelled_landmarks_are_not_looked_for() -> None:
    env = build(batch_size=[300])
    start = env.reset()
    assert set(zip(start["scan"].tolist(), start["landmark"].tolist(), strict=True)) == {
        (scan, landmark) for scan in range(3) for landmark in range(4) if (scan, landmark) != (0, 1)
    }
    assert set(build(batch_size=[50], landmark=1).reset()["scan"].tolist()) == {1, 2}
    with pytest.raises(MedrlError, match="not labelled"):
        env.reset(scan=0, landmark=1)
    with pytest.raises(MedrlError, match="an episode has no colour"):
        env.reset(colour=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "cubed"}, "reward must be distance or squared"),
        ({"stop": "never"}, "stop must be target or loop"),
        ({"unit": "cm"}, "unit must be step or mm"),
        ({"max_steps": 0}, "max_steps"),
        ({"start_radius": -1.0}, "start_radius"),
        ({"colour": "red"}, "unknown option colour"),
        ({"batch_size": [2, 2, 2]}, "batch_size"),
        ({"landmark": 4}, r"landmark must be whole numbers in 0\.\.3"),
        ({"intensities": (0.0, 0.5)}, "intensities"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MedrlError, match=message):
        build(**options)


def test_points_must_fit_the_scans() -> None:
    with pytest.raises(MedrlError, match="points_world"):
        make(random_scans(), random_points()[:2])
    with pytest.raises(MedrlError, match="labelled with any"):
        make(random_scans(), np.full((3, 1, 3), np.nan))


def test_gymnasium_checker_passes() -> None:
    env = gymnasium.make(GYMNASIUM_ID, scans=random_scans(), points_world=random_points(), window=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_gymnasium(env.unwrapped)
    env.close()


def test_gymnasium_is_the_same_environment() -> None:
    env = gymnasium.make(
        f"medrl.landmark.env:{GYMNASIUM_ID}",
        scans=random_scans(),
        points_world=random_points(),
        window=9,
    )
    given = {"scan": 1, "landmark": 2, "start_world": [0.0, 0.0, 20.0]}
    seen, info = env.reset(options=given)
    twin = build()
    current = twin.reset(**given)
    for action in (0, 2, 4, 4, 1):
        assert set(seen) == {"window", "level", "landmark"}
        np.testing.assert_array_equal(seen["window"], current["window"].numpy())
        np.testing.assert_array_equal(info["position_world"], current["position_world"].numpy())
        seen, reward, terminated, truncated, info = env.step(action)
        current = twin.step(current.set("action", torch.tensor(action)))["next"]
        assert isinstance(reward, float)
        assert reward == pytest.approx(float(current["reward"]))
        assert (terminated, truncated) == (bool(current["terminated"]), bool(current["truncated"]))


def test_gymnasium_vector_environments() -> None:
    options = {"scans": random_scans(), "points_world": random_points(), "window": 5}
    env = gymnasium.make_vec(GYMNASIUM_ID, num_envs=2, **options)
    seen, _ = env.reset(seed=0)
    assert seen["window"].shape == (2, 1, 5, 5, 5)
    _, rewards, *_ = env.step(env.action_space.sample())
    assert rewards.shape == (2,)
    env.close()


def test_gymnasium_takes_one_agent() -> None:
    with pytest.raises(MedrlError, match="one agent"):
        gymnasium.make(
            GYMNASIUM_ID, scans=random_scans(), points_world=random_points(), batch_size=[2]
        )


def test_collector_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collector = Collector(build(batch_size=[4]), None, frames_per_batch=40, total_frames=80)
        frames = [batch.numel() for batch in collector]
        collector.shutdown()
    assert frames == [40, 40]
    assert "".join(capfd.readouterr()) == ""
