"""One agent of a TorchRL environment for Gymnasium, as other people's learners want it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch

from medrl.errors import MedrlError


class SingleAgentEnv(gymnasium.Env[Any, Any]):
    """Wrapper around TorchRL's own: plain numbers, owned arrays, a seeded ``np_random``.

    ``reset(options=...)`` takes what the environment's ``reset`` takes as keywords.
    """

    def __init__(self, build: Callable[..., Any], **options: Any) -> None:
        """Wrap TorchRL's wrapper.

        Args:
            build: Makes it.
            **options: Passed on.

        Raises:
            MedrlError: If the environment is of more than one agent.
        """
        self._env = build(**options)
        if tuple(self._env.torchrl_env.batch_size):
            raise MedrlError("a Gymnasium environment has one agent: leave batch_size out")
        self.action_space = self._env.action_space
        self.observation_space = self._env.observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        observation, info = self._env.reset(seed=seed, options=options)
        return _owned(observation), _owned(info)

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act."""
        observation, reward, terminated, truncated, info = self._env.step(torch.as_tensor(action))
        flags = bool(terminated.item()), bool(truncated.item())
        return _owned(observation), float(reward.item()), *flags, _owned(info)


def _owned(content: dict[str, Any]) -> dict[str, Any]:
    """Copies that later steps do not change; single numbers as numbers."""
    return {name: np.array(value)[()] for name, value in content.items()}


__all__ = ["SingleAgentEnv"]
