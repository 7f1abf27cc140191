"""The shell that makes an environment of dynamics and task, and the checker handed to users."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as check_gymnasium
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from medrl.agents import Greedy, rollout
from medrl.errors import MedrlError
from medrl.rl.check import check_env
from medrl.rl.env import AgentsEnv, register
from tests.agents.line import FindPlace, Line, LineState


def make(batch_size: Sequence[int] = (), **options: Any) -> AgentsEnv[LineState]:
    line = Line(**options)
    return AgentsEnv(line, FindPlace(line), batch_size=batch_size, seed=0)


def act(env: AgentsEnv[Any], *actions: int, **extras: Any) -> TensorDict:
    shaped = torch.tensor(actions).reshape(env.batch_size)
    given = {name: torch.tensor(value) for name, value in extras.items()}
    return env.step(TensorDict({"action": shaped, **given}, batch_size=env.batch_size))["next"]


@pytest.mark.parametrize("walls", [False, True])
def test_the_contract_holds(walls: bool) -> None:
    check_env(lambda batch_size: make(batch_size, length=6, max_steps=5, walls=walls))


def test_flags_tell_the_end_from_being_stopped() -> None:
    env = make([3], length=5, max_steps=2)
    env.reset(position=[0, 2, 4], goal=[1, 0, 0])
    after = act(env, 0, 0, 0)
    assert after["terminated"][:, 0].tolist() == [True, False, True]
    after = act(env, 0, 0, 0)
    assert after["truncated"][:, 0].tolist() == [False, True, False]
    assert after["reward"][:, 0].tolist() == [0.0, -1.0, 0.0]


def test_what_is_given_counts_for_all_or_for_each() -> None:
    env = make([3])
    current = env.reset(position=4, goal=[5, 6, 7])
    assert current["position"][:, 0].tolist() == [4, 4, 4]
    current["_reset"] = torch.tensor([[False], [True], [True]])
    assert env.reset(current, position=[1, 2, 3])["position"][:, 0].tolist() == [4, 2, 3]
    with pytest.raises(MedrlError, match=r"goal must be whole numbers in 0\.\.19"):
        env.reset(goal=20)


def test_extras_are_optional() -> None:
    env = make([2])
    env.reset(position=0, goal=9)
    assert act(env, 0, 0)["position"][:, 0].tolist() == [1, 1]
    assert act(env, 0, 0, stride=[3, 2])["position"][:, 0].tolist() == [4, 3]


def test_groups_share_reward_and_end_together() -> None:
    env = make([2, 2], length=9)
    check_env_specs(env, seed=0)
    env.reset(position=[4, 4, 4, 4], goal=[5, 8, 0, 5])
    after = act(env, 0, 0, 0, 0)
    assert after["reward"][..., 0].tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert not after["done"].any()
    for _ in range(3):
        after = act(env, 0, 0, 1, 0)
    assert after["done"][..., 0].tolist() == [[True, True], [False, False]]


def test_the_environment_records_what_a_rollout_walks() -> None:
    env = make([5], length=12)
    current = env.reset()

    def towards(seen: dict[str, torch.Tensor]) -> torch.Tensor:
        up = 6.0 - seen["position"]
        return torch.cat([up, -up], dim=1)

    walked: list[list[int]] = []
    rollout(
        env.dynamics,
        Greedy(towards),
        env.state,
        task=env.task,
        on_step=lambda t: walked.append(t.after.position.tolist()),
    )
    for positions in walked:
        active = env.state.active
        current = act(env, *towards(current).argmax(dim=1).tolist())
        assert env.state.position[active].tolist() == positions
    assert not env.state.active.any()


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("reward", "got a reward"),
        ("moves", "moved"),
        ("seed", "the same seed"),
        ("space", "specs"),
    ],
)
def test_the_checker_finds_faults(fault: str, line: str) -> None:
    class Faulty(FindPlace):
        def begin(self, count: int, generator: torch.Generator, **given: torch.Tensor) -> LineState:
            state = super().begin(count, generator, **given)
            if fault == "seed":
                return replace(state, position=torch.randint(6, (count,)))
            return state

    class Broken(Line):
        def observe(self, state: LineState) -> dict[str, torch.Tensor]:
            offset = 100 if fault == "space" else 0
            return {"position": state.position[:, None].float() + offset}

    class Env(AgentsEnv[LineState]):
        def _step(self, tensordict: Any) -> TensorDict:
            ended = ~self.state.active
            after = super()._step(tensordict)
            if fault == "reward":
                after["reward"] = after["reward"] + ended.view(after["reward"].shape)
            if fault == "moves":
                moved = self.state.position + ended.long()
                self.state = replace(self.state, position=moved)
            return after

    def build(batch_size: Sequence[int]) -> AgentsEnv[LineState]:
        dynamics = Broken(6, 5)
        return Env(dynamics, Faulty(dynamics), batch_size=batch_size, seed=0)

    with pytest.raises(MedrlError, match=line):
        check_env(build)


# Gymnasium --------------------------------------------------------------------------------------

register("medrl-tests/Line-v0", make, ("goal",))


def test_gymnasium_takes_it() -> None:
    env = gymnasium.make("medrl-tests/Line-v0", length=7, disable_env_checker=True)
    check_gymnasium(env.unwrapped, skip_render_check=True)
    seen, info = env.reset(seed=3, options={"position": 2, "goal": 3})
    assert seen["position"].tolist() == [2.0]
    assert info["goal"] == 3
    _, reward, terminated, truncated, _ = env.step(np.int64(0))
    assert (reward, terminated, truncated) == (1.0, True, False)
    with pytest.raises(MedrlError, match="one agent"):
        gymnasium.make("medrl-tests/Line-v0", batch_size=[2])
