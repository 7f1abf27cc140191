"""The contract between agents and everything that moves, trains, records or watches them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from medrl.agents.rows import Rows

#: Status of an agent that goes on; every other one is of an agent that has ended.
ACTIVE = 0
#: Status of an agent that a beam has left out; no dynamics has it among its own.
DROPPED = -1


@dataclass(frozen=True, eq=False)
class State(Rows):
    """N agents.

    Attributes:
        status: (N,) int64, :data:`ACTIVE`, or why each has ended: an index into
            :attr:`Dynamics.outcomes`.
    """

    status: Tensor

    @property
    def active(self) -> Tensor:
        """(N,) bool, the agents that go on."""
        return self.status == ACTIVE


S = TypeVar("S", bound=State)


@dataclass(frozen=True)
class Space:
    """What an observation or action of one agent can be, in nobody's library's terms.

    Attributes:
        shape: Of one agent's, without the batch.
        dtype: Of its numbers.
        options: For choices: how many there are, or how many for each of several; None for numbers.
        low: Smallest number, one for all or a tensor of the shape; None where there is none.
        high: Largest.
    """

    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    options: int | tuple[int, ...] | None = None
    low: float | Tensor | None = None
    high: float | Tensor | None = None

    @classmethod
    def choice(cls, options: int | tuple[int, ...]) -> Space:
        """One of some options, or one of each of several."""
        shape = () if isinstance(options, int) else (len(options),)
        return cls(shape, torch.int64, options)


@dataclass(frozen=True, eq=False)
class Places(Rows):
    """Where N agents are, for whoever watches or records them. World is RAS mm.

    Attributes:
        position_world: (N, 3) float64.
        scale_mm: (N,) float64, voxel size that each looks at.
        transform_world: (N, 4, 4) float64, for agents that move a scan.
        box_world: (N, 2, 3) float64, two opposite corners, for agents that hold a box.
        extras: Further numbers by name, (N, ...).
    """

    position_world: Tensor
    scale_mm: Tensor
    transform_world: Tensor | None = None
    box_world: Tensor | None = None
    extras: Mapping[str, Tensor] | None = None


class Dynamics(ABC, Generic[S]):
    """States, actions, transition and stopping rule of a kind of agent.

    Everything is batched: one row an agent, no Python loop over agents. Nothing in here knows the
    truth, so what runs on a patient's scan is what was trained. A subclass brings a ``reset`` of
    its own that puts agents at their starts: what it needs to know differs between systems.

    Attributes:
        outcomes: Names of the statuses; the first is that of active agents.
        truncations: Statuses of agents that were stopped for a reason their observation does not
            show, so that a learner still values what would have come.
        action_space: What an agent can do.
        observation_spaces: What it sees, by name.
        extra_spaces: What :meth:`step` takes besides the action, by name; it does without.
        masked: Whether :meth:`allowed` may close choices.
    """

    outcomes: tuple[str, ...] = ("active",)
    truncations: tuple[int, ...] = ()
    action_space: Space
    observation_spaces: Mapping[str, Space]
    extra_spaces: Mapping[str, Space] = {}
    masked: bool = False

    @abstractmethod
    def observe(self, state: S) -> dict[str, Tensor]:
        """What agents see, (N, ...) each, as :attr:`observation_spaces` says."""

    def allowed(self, state: S) -> Tensor | None:
        """(N, A) bool, which choices are open; None where all are."""
        return None

    @abstractmethod
    def step(self, state: S, action: Tensor, **extras: Any) -> S:
        """Let the active agents act; the others stay as they are.

        Args:
            state: N agents.
            action: (N, ...), as :attr:`action_space` says; ignored for agents that have ended.
            **extras: What else a decision may say, such as where it sees what it looks for:
                :attr:`extra_spaces`.
        """

    @abstractmethod
    def places(self, state: S) -> Places:
        """Where agents are, in world coordinates."""
