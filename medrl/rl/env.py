"""Dynamics and task as an environment: TorchRL's, and through it Gymnasium's."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic

import gymnasium
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    TensorSpec,
    Unbounded,
)
from torchrl.envs import EnvBase

from medrl.agents import ACTIVE, Dynamics, Space, Task
from medrl.agents.dynamics import S
from medrl.agents.groups import all_ended, shared_reward
from medrl.agents.rollout import advance
from medrl.errors import MedrlError
from medrl.rl.single_agent import SingleAgentEnv

# TorchRL reports at INFO level to standard output; whoever wants that says so.
if "RL_LOGGING_LEVEL" not in os.environ:
    logging.getLogger("torchrl").setLevel(logging.WARNING)


class AgentsEnv(EnvBase, Generic[S]):
    """N agents that act at the same time, for TorchRL: a thin shell over dynamics and task.

    ``batch_size`` is ``[N]``, or ``[]`` for one agent, or ``[B, G]`` for B groups of G agents that
    share their reward (its mean) and end together. Each agent's episode begins where the task draws
    it, unless ``reset`` is told: it takes what :meth:`medrl.agents.Task.given` takes, once for all
    agents or once for each. An agent that has ended stays where it is, with reward 0 and its done
    flags up, until it is reset; ``_reset`` masks (as collectors send them) start only the agents
    they name.

    Observations are those of the dynamics, and ``action_mask`` where some choices may be closed.
    What the task tells (:attr:`medrl.agents.Task.info_spaces`) is beside them for records and for
    replay; no policy may look at it, and for Gymnasium it is in ``info``. The reward has shape
    (*, 1). ``terminated`` means that there is no future to value, ``truncated`` that the agent was
    stopped for a reason that its observation does not show; ``done`` is either.

    All randomness comes from one generator: ``set_seed`` fixes every episode. Without a seed it is
    seeded from PyTorch's global generator; a learner hands over its own.

    Attributes:
        dynamics: What the agents live in.
        task: What knows the truth.
        generator: Source of all choices, on the CPU.
        state: The N agents; there are none before the first reset.
    """

    state: S

    def __init__(
        self,
        dynamics: Dynamics[S],
        task: Task[S],
        *,
        batch_size: Sequence[int] = (),
        seed: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Wrap dynamics and a task; see the class.

        Raises:
            MedrlError: If there are too many batch dimensions.
        """
        if len(batch_size) > 2:
            raise MedrlError(f"batch_size must be [], [N] or [B, G], not {list(batch_size)}")
        super().__init__(device=torch.device(device), batch_size=torch.Size(batch_size))
        self.dynamics = dynamics
        self.task = task
        self.generator = torch.Generator() if generator is None else generator
        if generator is None:
            self._set_seed(seed if seed is not None else int(torch.randint(2**62, ())))
        self._count = self.batch_size.numel()
        size = batch_size[-1] if len(batch_size) == 2 else 1
        self._group = torch.arange(self._count, device=self.device) // size
        self._make_specs()

    # What TorchRL asks for -----------------------------------------------------------------------

    def _reset(self, tensordict: TensorDictBase | None = None, **given: Any) -> TensorDict:
        wanted = self.task.given(self._count, **given)
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is None or bool(mask.all()):
            self.state = self.task.begin(self._count, self.generator, **wanted)
        else:
            rows = torch.nonzero(mask.reshape(self._count))[:, 0]
            if len(rows):
                own = {name: value[rows.to(value.device)] for name, value in wanted.items()}
                self.state = self.state.put(rows, self.task.begin(len(rows), self.generator, **own))
        return self.observe()

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        action = self._rows(tensordict["action"])
        extras = {
            name: self._rows(tensordict[name])
            for name in self.dynamics.extra_spaces
            if name in tensordict.keys()  # noqa: SIM118 - a TensorDict iterates over its rows
        }
        rows = torch.nonzero(self.state.active)[:, 0]
        reward = torch.zeros(self._count, device=self.device)
        if len(rows):
            after, own = advance(
                self.dynamics,
                self.task,
                self.state.select(rows),
                action[rows],
                {name: value[rows] for name, value in extras.items()},
            )
            self.state = self.state.put(rows, after)
            if own is not None:
                reward = reward.index_copy(0, rows, own.to(reward))
        if len(self.batch_size) == 2:
            reward = shared_reward(reward, self._group)
        return self._pack(self._observe() | self._done() | {"reward": reward[:, None]})

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.generator.manual_seed(seed)

    # ---------------------------------------------------------------------------------------------

    def observe(self) -> TensorDict:
        """What agents see now, and who has ended; as after a reset."""
        return self._pack(self._observe() | self._done())

    def _rows(self, field: Tensor) -> Tensor:
        """A field of the batch's shape with one leading dimension."""
        return field.to(self.device).reshape(self._count, *field.shape[len(self.batch_size) :])

    def _observe(self) -> dict[str, Tensor]:
        seen = self.dynamics.observe(self.state) | self.task.info(self.state)
        allowed = self.dynamics.allowed(self.state)
        return seen if allowed is None else seen | {"action_mask": allowed}

    def _done(self) -> dict[str, Tensor]:
        status = self.state.status
        truncations = (*self.dynamics.truncations, *self.task.truncations)
        cut = torch.isin(status, torch.tensor(truncations, dtype=torch.int64, device=status.device))
        done = status != ACTIVE
        if len(self.batch_size) == 2:
            done = all_ended(done, self._group)
        flags = {"done": done, "terminated": done & ~cut, "truncated": done & cut}
        return {name: flag[:, None] for name, flag in flags.items()}

    def _pack(self, content: dict[str, Tensor]) -> TensorDict:
        """Fields of leading dimension N as a TensorDict; copies, as the state lives on."""
        batch = self.batch_size
        shaped = {
            name: field.reshape((*batch, *field.shape[1:])).clone()
            for name, field in content.items()
        }
        return TensorDict(shaped, batch_size=batch, device=self.device)

    def _make_specs(self) -> None:
        spaces = {**self.dynamics.observation_spaces, **self.task.info_spaces}
        if self.dynamics.masked:
            options = self.dynamics.action_space.options
            spaces["action_mask"] = Space((int(options),), torch.bool)  # type: ignore[arg-type]
        specs = {name: self._spec(space) for name, space in spaces.items()}
        self.observation_spec = Composite(specs, shape=self.batch_size, device=self.device)
        self.action_spec = self._spec(self.dynamics.action_space)
        self.reward_spec = self._spec(Space((1,)))
        flag = Space((1,), torch.bool)
        flags = {name: self._spec(flag) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(flags, shape=self.batch_size, device=self.device)

    def _spec(self, space: Space) -> TensorSpec:
        """A space in TorchRL's terms."""
        shape = torch.Size((*self.batch_size, *space.shape))
        if space.dtype == torch.bool:
            return Binary(shape[-1], shape=shape, device=self.device, dtype=torch.bool)
        if isinstance(space.options, int):
            return Categorical(space.options, shape=shape, device=self.device, dtype=space.dtype)
        if space.options is not None:
            return MultiCategorical(
                list(space.options), shape=shape, device=self.device, dtype=space.dtype
            )
        if space.low is None or space.high is None:
            return Unbounded(shape, device=self.device, dtype=space.dtype)
        low, high = (
            torch.as_tensor(end, dtype=space.dtype, device=self.device).expand(shape).contiguous()
            for end in (space.low, space.high)
        )
        return Bounded(low, high, shape, self.device, space.dtype)


def register(id: str, make: Callable[..., AgentsEnv[Any]], info_keys: Sequence[str]) -> None:
    """Register an environment with Gymnasium.

    TorchRL's own registration, and on top of it what Gymnasium's checker and other people's
    learners insist on: numbers in place of arrays of one element, a seeded ``np_random``, ground
    truth in ``info`` (:class:`medrl.rl.single_agent.SingleAgentEnv`). Observations are
    dictionaries, so Stable-Baselines3 wants its ``MultiInputPolicy``; ``reset(options=...)`` takes
    what the environment's ``reset`` takes.

    Args:
        id: Name for ``gymnasium.make``.
        make: Makes the environment from what ``gymnasium.make`` is given.
        info_keys: Names of what the task tells, which is not for policies.
    """
    AgentsEnv.register_gym(
        id, entry_point=make, info_keys=list(info_keys), backend="gymnasium", to_numpy=True
    )
    spec = gymnasium.registry[id]
    spec.entry_point = partial(SingleAgentEnv, spec.entry_point)


def options_for(cls: type[Any], options: Mapping[str, Any]) -> Any:
    """Settings from the options of an environment.

    Args:
        cls: A dataclass.
        options: Its fields by name.

    Raises:
        MedrlError: If one is unknown.
    """
    known = list(cls.__dataclass_fields__)
    if unknown := sorted(set(options) - set(known)):
        raise MedrlError(f"unknown option {', '.join(unknown)}; there are {', '.join(known)}")
    return cls(**options)
