"""What the environments of all systems share: many agents at a time, Gymnasium, one generator."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Any, ClassVar

import gymnasium
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.envs import EnvBase

from medrl.rl.single_agent import SingleAgentEnv

# TorchRL reports at INFO level to standard output; whoever wants that says so.
if "RL_LOGGING_LEVEL" not in os.environ:
    logging.getLogger("torchrl").setLevel(logging.WARNING)


class AgentsEnv(EnvBase):
    """A TorchRL environment of N agents, or of one where ``batch_size`` is ``[]``.

    A subclass sets ``_generator``, from which all randomness comes: ``set_seed`` fixes every
    episode.

    Attributes:
        info_keys: What Gymnasium users get in ``info``, not in the observation.
    """

    info_keys: ClassVar[tuple[str, ...]] = ()
    _generator: torch.Generator

    @classmethod
    def register_gym(cls, id: str, **options: Any) -> None:
        """Register with Gymnasium.

        TorchRL's own registration, and on top of it what Gymnasium's checker and other people's
        learners insist on: numbers in place of arrays of one element, a seeded ``np_random``,
        ground truth in ``info`` (:class:`medrl.rl.single_agent.SingleAgentEnv`). Observations are
        dictionaries, so Stable-Baselines3 wants its ``MultiInputPolicy``; ``reset(options=...)``
        takes what the environment's ``reset`` takes.

        Args:
            id: Name for ``gymnasium.make``.
            **options: Those of ``EnvBase.register_gym``; further ones go to the environment.
        """
        options = {"info_keys": list(cls.info_keys)} | options
        super().register_gym(id, **options, backend="gymnasium", to_numpy=True)
        spec = gymnasium.registry[id]
        spec.entry_point = partial(SingleAgentEnv, spec.entry_point)

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self._generator.manual_seed(seed)

    def _pack(self, content: dict[str, Tensor]) -> TensorDict:
        """Fields of leading dimension N as a TensorDict of the environment's batch size."""
        batch = self.batch_size
        shaped = {
            name: field.reshape((*batch, *field.shape[1:])) for name, field in content.items()
        }
        return TensorDict(shaped, batch_size=batch, device=self.device)
