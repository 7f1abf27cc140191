"""The seed-placing environment, for TorchRL and for Gymnasium."""

import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray
from scipy import ndimage
from stable_baselines3 import DQN
from tensordict import TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import ActionMask, EnvBase, TransformedEnv

from medrl.errors import MedrlError
from medrl.rl.check import check_env as check_contract
from medrl.rl.env import AgentsEnv
from medrl.seednet.dynamics import SPENT, STATE_CHANNELS, STOPPED
from medrl.seednet.env import GYMNASIUM_ID, make
from medrl.seednet.oracle import oracle_actions
from medrl.seednet.rewards import RewardSettings
from medrl.seednet.task import ClickSettings
from medrl.walker.edges import intensity_edges
from medrl.walker.segmenter import RandomWalker

SHAPE = (13, 12, 11)
STRIDE = 3
CELLS = 5 * 4 * 4
STOP = 2 * CELLS
IMAGE = 2

Images = list[NDArray[np.float64]]


def spheres(count: int = 3, noise: float = 0.25, channels: int = IMAGE) -> tuple[Images, Images]:
    """Bright balls of different places and sizes, in noise."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"))
    images, masks = [], []
    for _ in range(count):
        centre = np.array([6.0, 5.5, 5.0]) + rng.uniform(-1.5, 1.5, 3)
        ball = np.linalg.norm(grid - centre[:, None, None, None], axis=0) < rng.uniform(3, 4.5)
        masks.append(ball)
        images.append(ball + rng.normal(0, noise, (channels, *SHAPE)))
    return images, masks


def build(**options: Any) -> AgentsEnv[Any]:
    return make(*spheres(), **({"stride": STRIDE, "seed": 0, "max_seeds": 5} | options))


def walk(env: EnvBase, policy: Any, steps: int, **reset: Any) -> list[TensorDictBase]:
    """The tensordicts of some steps from a reset, none of them reset again."""
    current = env.reset(**reset)
    records = []
    for _ in range(steps):
        current["action"] = policy(env, current)
        records.append(env.step(current).clone())
        current = records[-1]["next"].exclude("reward").clone()
    return records


def masked_policy(seed: int, stop: float = 0.0) -> Any:
    """Any action that is allowed; STOP with a probability."""
    generator = torch.Generator().manual_seed(seed)

    def policy(env: EnvBase, observation: TensorDictBase) -> torch.Tensor:
        weights = observation["action_mask"].reshape(-1, STOP + 1).float()
        weights[:, :-1] *= (1 - stop) / weights[:, :-1].sum(dim=1, keepdim=True)
        weights[:, -1] = stop
        action = torch.multinomial(weights, 1, generator=generator)
        return action.reshape(env.batch_size)

    return policy


def oracle(env: AgentsEnv[Any], observation: TensorDictBase) -> torch.Tensor:
    truth = env.task.truth[observation["window"].reshape(-1)]
    return oracle_actions(env.dynamics, env.state, truth).reshape(env.batch_size)


def score(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


# Specs and observations -------------------------------------------------------------------------


def test_the_contract_holds() -> None:
    check_contract(lambda size: build(batch_size=size, segmenter=Steady(), max_seeds=3), steps=5)


@pytest.mark.parametrize("batch_size", [[], [5]])
@pytest.mark.parametrize("stride", [2, 3])
def test_specs(batch_size: list[int], stride: int) -> None:
    env = build(batch_size=batch_size, stride=stride)
    assert env.batch_size == torch.Size(batch_size)
    grid = [-(-side // stride) for side in SHAPE]
    # Random agents may stop at once, and then nothing is to be left out.
    cells = env.rollout(2, break_when_any_done=False)["cells"]
    assert cells.shape == (*batch_size, 2, IMAGE + len(STATE_CHANNELS), *grid)


def cell_means(volume: NDArray[Any]) -> NDArray[np.float64]:
    out = np.zeros([-(-side // STRIDE) for side in SHAPE])
    for cell in np.ndindex(out.shape):
        out[cell] = volume[tuple(slice(c * STRIDE, (c + 1) * STRIDE) for c in cell)].mean()
    return out


def test_observations_are_cell_means_of_what_is_known() -> None:
    env = build(batch_size=[4], seed_scale=3.0)
    images, masks = spheres()
    after = walk(env, masked_policy(1, stop=0.1), 4)[-1]["next"]
    state = env.state
    for n in range(4):
        case = int(after["window"][n])
        probability, seeds = state.probability[n].numpy(), state.seeds[n].numpy()
        near = []
        for label in (1, 0):
            own = seeds == label
            distance = ndimage.distance_transform_edt(~own) if own.any() else np.inf
            near.append(np.broadcast_to(np.exp(-distance / 3.0), SHAPE))
        left = np.full(SHAPE, 1 - int(state.steps[n]) / 5)
        uncertainty = 4 * probability * (1 - probability)
        volumes = [*images[case], probability, uncertainty, probability > 0.5, *near, left]
        expected = np.stack([cell_means(volume) for volume in volumes])
        np.testing.assert_allclose(after["cells"][n].numpy(), expected, atol=1e-5)
        overlap = score(probability > 0.5, masks[case])
        assert float(after["dice"][n]) == pytest.approx(overlap)
        assert (after["action_mask"][n] == env.dynamics.allowed(state)[n]).all()


def test_an_episode_begins_with_a_click_in_the_truth() -> None:
    env = build(batch_size=[300], click=ClickSettings(radius=1.0))
    start = env.reset()
    _, masks = spheres()
    for case, click in zip(start["window"].tolist(), start["click_voxel"].tolist(), strict=True):
        assert masks[case][tuple(click)]
    assert set(start["window"].tolist()) == {0, 1, 2}
    for case, mask in enumerate(masks):
        clicks = start["click_voxel"][start["window"] == case].numpy()
        # Everywhere in the object: their mean is its centre, within three standard errors.
        error = clicks.std(axis=0) / np.sqrt(len(clicks))
        assert (np.abs(clicks.mean(axis=0) - np.argwhere(mask).mean(axis=0)) < 3.5 * error).all()
        assert len(np.unique(clicks, axis=0)) > 0.6 * len(clicks)
    seeds = env.state.seeds.numpy()
    for n, click in enumerate(start["click_voxel"].tolist()):
        grid = np.stack(np.meshgrid(*[np.arange(s) for s in SHAPE], indexing="ij"))
        near = np.linalg.norm(grid - np.array(click)[:, None, None, None], axis=0) <= 1.0
        np.testing.assert_array_equal(seeds[n], np.where(near, 1, -1))
    # Nothing but foreground is known: everything is foreground.
    assert (env.state.probability == 1).all()


def test_users_slip() -> None:
    def missed(**click: Any) -> float:
        start = build(batch_size=[300], click=ClickSettings(**click)).reset()
        masks = np.stack(spheres()[1])
        clicks = start["click_voxel"].numpy()
        return float(1 - masks[start["window"].numpy(), *clicks.T].mean())

    assert missed() == 0
    never, half, always = (missed(error_share=share, error=6) for share in (0.0, 0.5, 1.0))
    assert never == 0
    assert 0.5 < always < 1
    assert half == pytest.approx(always / 2, abs=0.1)
    assert 0 < missed(error_share=1.0, error=1) < 0.4


def test_case_and_click_given() -> None:
    env = build(batch_size=[3])
    clicks = [[0, 0, 0], [12, 11, 10], [5, 5, 5]]
    start = env.reset(window=[2, 0, 1], click_voxel=clicks)
    assert start["window"].tolist() == [2, 0, 1]
    assert start["click_voxel"].tolist() == clicks
    assert (
        env.reset(window=1, click_voxel=[3, 4, 5])["click_voxel"] == torch.tensor([3, 4, 5])
    ).all()
    for given in ({"window": 3}, {"window": [0, 1]}, {"click_voxel": [0, 12, 0]}, {"window": 0.5}):
        with pytest.raises(MedrlError, match=next(iter(given))):
            env.reset(**given)


# Steps ------------------------------------------------------------------------------------------


def test_rewards_add_up_to_the_dice_gained() -> None:
    env = build(batch_size=[6])
    records = walk(env, masked_policy(2, stop=0.3), 6)
    assert bool(records[-1]["next", "done"].all())
    total = sum(record["next", "reward"][:, 0] for record in records)
    torch.testing.assert_close(total, records[-1]["next", "dice"] - records[0]["dice"])
    assert set(env.state.status.tolist()) == {STOPPED, SPENT}


def test_oracle_gains_and_stops_when_there_is_nothing_to_correct() -> None:
    env = build(batch_size=[12], max_seeds=20)
    records = walk(env, oracle, 20)
    last = records[-1]["next"]
    chance = walk(build(batch_size=[12], max_seeds=20), masked_policy(3), 20)[-1]["next", "dice"]
    assert float(last["dice"].mean()) > 0.9
    assert float(last["dice"].mean()) > float(chance.mean()) + 0.1
    for record in records:
        stopping = (record["action"] == STOP) & ~record["done"][:, 0]
        # What is left then is too near to the user's click, or painted already.
        assert (record["dice"][stopping] > 0.95).all()
        assert record["next", "terminated"][stopping].all()


def test_reward_settings_reach_the_reward() -> None:
    costly = RewardSettings(kind="dice", step_cost=0.25)
    cheap, dear = (
        walk(build(batch_size=[3], reward=reward), masked_policy(4), 3)
        for reward in ("dice", costly)
    )
    for a, b in zip(cheap, dear, strict=True):
        torch.testing.assert_close(b["next", "reward"], a["next", "reward"] - 0.25)
    regions = walk(build(batch_size=[8], reward="regions"), masked_policy(4), 3)
    rewards = torch.stack([record["next", "reward"] for record in regions])
    assert float(rewards.min()) == -1
    assert float(rewards.max()) > -1


def test_done_flags() -> None:
    env = build(batch_size=[2], max_seeds=3)
    actions = iter([[0, STOP], [5, 7], [9, 9], [9, 9]])
    records = walk(env, lambda *_: torch.tensor(next(actions)), 4, click_voxel=[6, 6, 6])
    done = torch.stack([record["next", "done"][:, 0] for record in records])
    assert done.tolist() == [[False, True], [False, True], [True, True], [True, True]]
    for record in records:
        assert (record["next", "terminated"] == record["next", "done"]).all()
        assert not record["next", "truncated"].any()
    assert env.state.status.tolist() == [SPENT, STOPPED]


def test_a_seed_that_is_not_allowed_is_lost() -> None:
    env = build(reward=RewardSettings(step_cost=0.5), exclusion_radius=4.0)
    start = env.reset(click_voxel=[0, 0, 0])
    assert not start["action_mask"][0], "background may not touch the user's foreground"
    after = env.step(start.set("action", torch.tensor(0)))["next"]
    assert float(after["reward"]) == -0.5
    assert float(after["dice"]) == float(start["dice"])
    assert float(after["cells"][-1].mean()) == pytest.approx(0.8)


def test_masked_environment_draws_allowed_actions_only() -> None:
    env = TransformedEnv(build(batch_size=[4], exclusion_radius=6.0), ActionMask())
    rollout = env.rollout(40, break_when_any_done=False)
    allowed = rollout["action_mask"].gather(-1, rollout["action"][..., None])
    assert bool(allowed.all())
    assert float(rollout["action_mask"].float().mean()) < 0.95


def test_prior_and_segmenter_are_used() -> None:
    images, masks = spheres(noise=0.1)
    priors = [
        ndimage.gaussian_filter(ndimage.shift(m.astype(np.float32), (2, 0, 0), order=0), 1.0)
        for m in masks
    ]
    solver = RandomWalker(prior_weight=0.05)
    env = make(images, masks, priors=priors, segmenter=solver, batch_size=[5], seed=0)
    start = env.reset()
    # One foreground click alone would make everything foreground.
    assert float(start["dice"].mean()) > 0.6
    state = env.state
    chosen = start["window"].tolist()
    seen = torch.from_numpy(np.stack([images[n] for n in chosen])).float()
    expected = solver.solve(
        solver.prepare(intensity_edges(seen)),
        state.seeds,
        prior=torch.from_numpy(np.stack([priors[n] for n in chosen])),
    )
    torch.testing.assert_close(state.probability, expected, atol=5e-3, rtol=0)
    after = walk(env, oracle, 6)[-1]["next"]
    assert float(after["dice"].mean()) > float(start["dice"].mean()) + 0.05


class Steady:
    """Stand-in segmenter, the same to the last bit wherever its arrays lie in memory.

    The share of the distance to background seeds, bent by the weights of the window.
    """

    def prepare(self, weights: torch.Tensor) -> "SteadySystem":
        return SteadySystem(weights.mean(dim=1).double().numpy())

    def solve(
        self, system: "SteadySystem", seeds: torch.Tensor, **_: torch.Tensor | None
    ) -> torch.Tensor:
        solved = []
        for one, bend in zip(seeds.numpy(), system.bend, strict=True):
            background, foreground = (
                ndimage.distance_transform_edt(one != label) if (one == label).any() else 9.0
                for label in (0, 1)
            )
            share = background / (background + foreground)
            solved.append(np.where(one < 0, 0.8 * share + 0.2 * bend, one))
        return torch.from_numpy(np.stack(solved)).float()


@dataclass
class SteadySystem:
    bend: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bend.shape

    def select(self, rows: torch.Tensor) -> "SteadySystem":
        return SteadySystem(self.bend[rows.numpy()])


# Determinism, batches, resets -------------------------------------------------------------------


def test_unseeded_environments_differ_but_follow_torch() -> None:
    def starts() -> torch.Tensor:
        return torch.stack([build(seed=None).reset()["click_voxel"] for _ in range(3)])

    torch.manual_seed(0)
    first = starts()
    torch.manual_seed(0)
    assert (starts() == first).all()
    assert len(first.unique(dim=0)) == 3


def test_batch_equals_single_agents() -> None:
    given = {"window": [0, 1, 2, 2], "click_voxel": [[6, 5, 5], [5, 6, 5], [7, 5, 5], [6, 6, 4]]}
    actions = torch.randint(STOP + 1, (6, 4), generator=torch.Generator().manual_seed(0))
    actions[2, 1] = STOP

    def replay(columns: slice | int) -> Any:
        steps = iter(actions[:, columns])
        return lambda *_: next(steps)

    together = walk(build(batch_size=[4], segmenter=Steady()), replay(slice(None)), 6, **given)
    for n in range(4):
        mine = {name: values[n] for name, values in given.items()}
        alone = walk(build(segmenter=Steady()), replay(n), 6, **mine)
        for batched, single in zip(together, alone, strict=True):
            assert (batched["next"][n] == single["next"]).all()


def test_partial_reset_leaves_the_others_alone() -> None:
    env = build(batch_size=[4], segmenter=Steady())
    last = walk(env, masked_policy(0), 3)[-1]["next"].exclude("reward")
    before = env.state
    mask = torch.tensor([[False], [True], [False], [True]])
    given = {"window": [0, 2, 0, 1], "click_voxel": [[0, 0, 0], [6, 5, 5], [0, 0, 0], [5, 6, 5]]}
    fresh = env.reset(last.clone().set("_reset", mask), **given)
    after = env.state
    for name, old in vars(before).items():
        assert (getattr(after, name)[[0, 2]] == old[[0, 2]]).all(), name
    assert (fresh["cells"][[0, 2]] == last["cells"][[0, 2]]).all()
    assert after.steps.tolist() == [3, 0, 3, 0]
    assert fresh["window"][[1, 3]].tolist() == [2, 1]
    # Each goes on in its own window.
    actions = torch.tensor([3, 6, 20, 70])
    moved = env.step(fresh.set("action", actions))["next"]
    for n in (1, 3):
        twin = build(segmenter=Steady())
        start = twin.reset(window=given["window"][n], click_voxel=given["click_voxel"][n])
        single = twin.step(start.set("action", actions[n]))["next"]
        assert (moved["cells"][n] == single["cells"]).all()


def test_only_ended_agents_are_reset_in_a_long_rollout() -> None:
    env = build(batch_size=[6])
    rollout = env.rollout(30, break_when_any_done=False)
    done = rollout["next", "done"][..., 0]
    assert done.sum() > 6
    assert not bool(rollout["done"].any())
    continued = ~done[:, :-1]
    following = rollout["next", "click_voxel"][:, :-1]
    assert (following[continued] == rollout["click_voxel"][:, 1:][continued]).all()
    assert not (following[~continued] == rollout["click_voxel"][:, 1:][~continued]).all()


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
        ({"reward": "cubed"}, "reward kind must be"),
        ({"stride": 0}, "stride"),
        ({"colour": "red"}, "unknown option colour"),
        ({"batch_size": [2, 2, 2]}, "batch_size"),
        ({"seed_scale": 0.0}, "seed_scale"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MedrlError, match=message):
        build(**options)


@pytest.mark.parametrize("options", [{"radius": -1.0}, {"error_share": 1.5}, {"error": -1}])
def test_bad_clicks_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(MedrlError, match="click"):
        ClickSettings(**options)


def test_windows_must_fit() -> None:
    images, masks = spheres()
    with pytest.raises(MedrlError, match=r"masks must be \(3, 13, 12, 11\)"):
        make(images, masks[:2])
    with pytest.raises(MedrlError, match="at least one"):
        make([], [])
    with pytest.raises(MedrlError, match="images must be of one shape"):
        make([images[0], images[1][:1]], masks[:2])
    with pytest.raises(MedrlError, match="masks must be of one shape"):
        make(images[:2], [masks[0], masks[1][:5]])
    with pytest.raises(MedrlError, match="a mask is empty"):
        make(images[:2], [masks[0], np.zeros(SHAPE, dtype=bool)])
    with pytest.raises(MedrlError, match="priors must be"):
        make(images, masks, priors=[mask.astype(float) for mask in masks[:2]])


def test_edges_of_ones_own_are_used() -> None:
    images, masks = spheres(noise=0.1)
    edges = [intensity_edges(torch.from_numpy(m).float()[None, None], beta=20.0)[0] for m in masks]
    plain, own = (make(images, masks, edges=e, seed=0) for e in (None, edges))
    for env in (plain, own):
        env.reset(window=0, click_voxel=np.argwhere(masks[0])[0])
        assert env.dynamics.windows.system.shape == (3, *SHAPE)
    state, action = own.state, torch.tensor([0])
    different = own.dynamics.step(state, action).probability
    assert not torch.equal(different, plain.dynamics.step(plain.state, action).probability)


# Gymnasium --------------------------------------------------------------------------------------


def gymnasium_options() -> dict[str, Any]:
    images, masks = spheres()
    return {"images": images, "masks": masks, "stride": STRIDE, "max_seeds": 5}


def test_gymnasium_checker_passes() -> None:
    env = gymnasium.make(GYMNASIUM_ID, **gymnasium_options())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()


def test_gymnasium_is_the_same_environment() -> None:
    env = gymnasium.make(
        f"medrl.seednet.env:{GYMNASIUM_ID}", **gymnasium_options(), segmenter=Steady()
    )
    given = {"window": 1, "click_voxel": [6, 5, 5]}
    seen, info = env.reset(options=given)
    twin = build(segmenter=Steady())
    current = twin.reset(**given)
    for action in (0, 82, 40, STOP):
        assert set(seen) == {"cells", "action_mask"}
        np.testing.assert_array_equal(seen["cells"], current["cells"].numpy())
        np.testing.assert_array_equal(seen["action_mask"], current["action_mask"].numpy())
        assert info["dice"] == float(current["dice"])
        seen, reward, terminated, truncated, info = env.step(action)
        current = twin.step(current.set("action", torch.tensor(action)))["next"]
        assert isinstance(reward, float)
        assert reward == pytest.approx(float(current["reward"]))
        assert (terminated, truncated) == (bool(current["terminated"]), False)
    assert terminated


def test_gymnasium_takes_one_agent() -> None:
    with pytest.raises(MedrlError, match="one agent"):
        gymnasium.make(GYMNASIUM_ID, **gymnasium_options(), batch_size=[2])


def test_gymnasium_vector_environments() -> None:
    env = gymnasium.make_vec(GYMNASIUM_ID, num_envs=2, **gymnasium_options())
    seen, _ = env.reset(seed=0)
    assert seen["cells"].shape == (2, IMAGE + 6, 5, 4, 4)
    _, rewards, *_ = env.step(env.action_space.sample())
    assert rewards.shape == (2,)
    env.close()


@pytest.mark.slow
def test_dqn_of_stable_baselines_learns() -> None:
    """Someone else's learner, some hundred steps: it must beat random seeds on the same clicks."""
    torch.set_num_threads(1)
    images, masks = spheres(count=1, noise=0.3, channels=1)
    env = gymnasium.make(
        GYMNASIUM_ID, images=images, masks=masks, stride=6, max_seeds=3, exclusion_radius=1.0
    )

    def play(policy: Any) -> NDArray[np.float64]:
        returns = []
        env.action_space.seed(0)
        for episode in range(40):
            seen, _ = env.reset(seed=1000 + episode)
            total, done = 0.0, False
            while not done:
                seen, reward, terminated, truncated, _ = env.step(policy(seen))
                total, done = total + reward, terminated or truncated
            returns.append(total)
        return np.array(returns)

    by_chance = play(lambda _: int(env.action_space.sample()))
    learner = DQN(
        "MultiInputPolicy",
        env,
        policy_kwargs={"net_arch": [64]},
        gamma=0.9,
        learning_rate=1e-3,
        buffer_size=1000,
        learning_starts=200,
        batch_size=64,
        train_freq=1,
        target_update_interval=100,
        exploration_fraction=0.7,
        seed=0,
        device="cpu",
    )
    learner.learn(900)
    learned = play(lambda seen: int(learner.predict(seen, deterministic=True)[0]))
    gain = learned - by_chance
    assert gain.mean() > 3 * gain.std(ddof=1) / np.sqrt(len(gain))
    assert gain.mean() > 0.3
