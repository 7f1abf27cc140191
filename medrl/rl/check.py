"""Does an environment keep the contract? For whoever writes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.envs.utils import check_env_specs

from medrl.errors import MedrlError
from medrl.rl.env import AgentsEnv

#: Steps that are walked; where that is known, enough for some agents to end.
_STEPS = 40


def check_env(make: Callable[[Sequence[int]], AgentsEnv[Any]], *, steps: int = _STEPS) -> None:
    """Check that an environment is one that learners can rely on.

    What comes out lies in its specs, whatever is done, and nobody has ended before the first step;
    the same seed gives the same episodes, and another seed others; agents that have ended stay as
    they are, with reward 0; a partial reset starts the agents it names and leaves the others alone;
    the state of the agents can be stored and taken up again.

    Args:
        make: Makes the environment for a batch size (``[]``, ``[N]``).
        steps: How far agents are walked.

    Raises:
        MedrlError: If it does not keep the contract; the line says which part.
    """
    for batch_size in ((), (3,)):
        try:
            check_env_specs(make(batch_size), seed=0, break_when_any_done="both")
        except (AssertionError, RuntimeError, ValueError, KeyError) as error:
            raise MedrlError(
                f"its specs do not hold for batch_size {batch_size}: {error}"
            ) from error
    _check_seeds(make, steps)
    _check_ended(make, steps)
    _check_partial_reset(make, steps)
    _check_state(make)


def _check_seeds(make: Callable[[Sequence[int]], AgentsEnv[Any]], steps: int) -> None:
    """The same seed, the same episodes."""
    first, second, other = (_walk(_seeded(make, seed), steps) for seed in (7, 7, 8))
    _require(_same(first, second), "the same seed and actions give other episodes")
    _require(not _same(first, other), "another seed gives the same episodes")


def _check_ended(make: Callable[[Sequence[int]], AgentsEnv[Any]], steps: int) -> None:
    """Agents that have ended stay where they are."""
    env = _seeded(make, 1)
    current = env.reset()
    for _ in range(steps):
        before, state = current["done"].reshape(-1), env.state
        current = _act(env, current)
        done = current["done"].reshape(-1)
        _require(bool((done | ~before).all()), "an agent that had ended is active again")
        flags = current["terminated"] | current["truncated"]
        _require(bool((flags == current["done"]).all()), "done is not terminated or truncated")
        _require(
            bool((current["reward"].reshape(-1)[before] == 0).all()),
            "an agent that had ended got a reward",
        )
        stays = [
            bool((new[before] == old[before]).all() | new[before].isnan().any())
            for new, old in zip(
                env.state.state_dict().values(), state.state_dict().values(), strict=True
            )
        ]
        _require(all(stays), "an agent that had ended moved")


def _check_partial_reset(make: Callable[[Sequence[int]], AgentsEnv[Any]], steps: int) -> None:
    """A reset of some agents leaves the others alone."""
    env = _seeded(make, 2)
    current = env.reset()
    for _ in range(min(3, steps)):
        current = _act(env, current)
    mask = torch.zeros(env.batch_size.numel(), dtype=torch.bool)
    mask[0] = True
    kept = env.state.select(~mask).state_dict()
    seen = current.clone()
    after = env.reset(current.set("_reset", mask.view(*env.batch_size, 1).to(env.device)))
    same = [
        torch.equal(value.nan_to_num(), kept[name].nan_to_num())
        for name, value in env.state.select(~mask).state_dict().items()
    ]
    _require(all(same), "a partial reset changed agents that it does not name")
    for name in env.observation_spec.keys():  # noqa: SIM118 - a spec iterates over its keys alone
        own, old = after[name][~mask], seen[name][~mask]
        _require(
            torch.equal(own.nan_to_num(), old.nan_to_num()),
            f"a partial reset changed what other agents see ({name})",
        )


def _check_state(make: Callable[[Sequence[int]], AgentsEnv[Any]]) -> None:
    """The state can be stored and taken up again."""
    env = _seeded(make, 3)
    env.reset()
    stored = env.state.state_dict()
    again = type(env.state).from_state_dict(stored).state_dict()
    same = stored.keys() == again.keys() and all(
        torch.equal(value.nan_to_num(), again[name].nan_to_num()) for name, value in stored.items()
    )
    _require(same, "its state cannot be stored: from_state_dict does not undo state_dict")


def _seeded(make: Callable[[Sequence[int]], AgentsEnv[Any]], seed: int) -> AgentsEnv[Any]:
    env = make((4,))
    env.set_seed(seed)
    return env


def _walk(env: AgentsEnv[Any], steps: int) -> list[TensorDictBase]:
    """What comes of some actions, the same in every environment of a kind."""
    current = env.reset()
    found = [current]
    torch.manual_seed(0)
    for _ in range(steps):
        current = _act(env, current)
        found.append(current)
    return found


def _act(env: AgentsEnv[Any], current: TensorDictBase) -> TensorDictBase:
    """One step by chance among what is open, without a reset."""
    action = env.action_spec.rand()
    if "action_mask" in current.keys():  # noqa: SIM118 - a TensorDict iterates over its rows
        action = torch.multinomial(current["action_mask"].float(), 1)[..., 0]
    after: TensorDictBase = env.step(current.exclude("reward").set("action", action))["next"]
    return after


def _same(one: list[TensorDictBase], other: list[TensorDictBase]) -> bool:
    return all(
        torch.equal(a[key].nan_to_num(), b[key].nan_to_num())
        for a, b in zip(one, other, strict=True)
        for key in a.keys()  # noqa: SIM118 - a TensorDict iterates over its rows
    )


def _require(holds: bool, line: str) -> None:
    if not holds:
        raise MedrlError(f"this environment does not keep the contract: {line}")
