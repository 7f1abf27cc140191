"""The contract of ground truth: where an episode begins, what a step is worth, when it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from medrl.agents.dynamics import S, Space
from medrl.errors import MedrlError


class Task(ABC, Generic[S]):
    """What only somebody who knows the truth can say of agents.

    Attributes:
        outcomes: Further statuses that :meth:`ended` gives, after those of the dynamics.
        truncations: Statuses among all that are truncations, besides those of the dynamics.
        info_spaces: What :meth:`info` tells, by name; no policy may look at it.
    """

    outcomes: tuple[str, ...] = ()
    truncations: tuple[int, ...] = ()
    info_spaces: Mapping[str, Space] = {}

    @abstractmethod
    def begin(self, count: int, generator: Generator, **given: Tensor) -> S:
        """Put agents at the start of an episode, all of them active.

        Args:
            count: N.
            generator: Source of all choices, on the CPU.
            **given: What is not to be drawn, a row for each agent, as :meth:`given` made it.

        Raises:
            MedrlError: If what is given does not go together.
        """

    def given(self, count: int, **given: Any) -> dict[str, Tensor]:
        """Check what a user wants of an episode, and make a row of it for each agent.

        Args:
            count: N.
            **given: By name, one for all agents or one for each.

        Raises:
            MedrlError: If it makes no sense.
        """
        if given:
            raise MedrlError(f"nothing can be given to these episodes, such as {next(iter(given))}")
        return {}

    @abstractmethod
    def reward(self, before: S, action: Tensor, after: S) -> Tensor:
        """What a step was worth, (N,) float32.

        Args:
            before: N agents, all active.
            action: (N, ...) what they did.
            after: What came of it.
        """

    def ended(self, after: S) -> S:
        """Apply the stopping rule that needs the truth, if there is one, to agents that acted."""
        return after

    def info(self, state: S) -> dict[str, Tensor]:
        """What records and replays want to know, (N, ...) each, as :attr:`info_spaces` says."""
        return {}


def whole_rows(
    what: str, value: ArrayLike, count: int, limits: tuple[int, ...], *, single: bool = False
) -> Tensor:
    """Whole numbers that were given for all agents or for each, a row for each.

    Args:
        what: What an error calls them.
        value: (D,) or (N, D).
        count: N.
        limits: D numbers: each value is at least 0 and below its limit.
        single: The values are numbers, not rows of one: () or (N,).

    Returns:
        (N, D) int64, or (N,).

    Raises:
        MedrlError: If they are not that.
    """
    given = np.asarray(value)
    shape = () if single else (len(limits),)
    usable = given.dtype.kind in "iu" and given.shape in (shape, (count, *shape))
    if not usable or (given < 0).any() or (given >= np.array(limits)).any():
        highest = ", ".join(str(limit - 1) for limit in limits)
        raise MedrlError(f"{what} must be whole numbers in 0..{highest}: one or {count}")
    return torch.from_numpy(given.astype(np.int64)).expand(count, *shape).clone()


def number_rows(what: str, value: ArrayLike, count: int, shape: tuple[int, ...]) -> Tensor:
    """Numbers that were given for all agents or for each, (N, ...) float64.

    Args:
        what: What an error calls them.
        value: (...) or (N, ...).
        count: N.
        shape: Of one agent's.

    Raises:
        MedrlError: If they are of another shape, or not finite.
    """
    given = np.asarray(value)
    usable = given.dtype.kind in "iuf" and given.shape in (shape, (count, *shape))
    if not usable or not np.isfinite(given).all():
        raise MedrlError(f"{what} must be {shape} or {(count, *shape)} finite numbers")
    return torch.from_numpy(given.astype(np.float64)).expand(count, *shape).clone()
