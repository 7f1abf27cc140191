"""Replay that remembers where agents were, not what they saw."""

from __future__ import annotations

from tensordict import TensorDict
from torch import Generator, Tensor
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer


class PositionReplay:
    """Uniform replay of transitions as (slot, version, position, action, next position).

    A transition takes some 70 bytes where the two windows it stands for would take 125 kB; the
    windows are cropped again when it is sampled. Scans in the pool are replaced now and then: an
    entry whose scan has gone is recognised by its version and left out.
    """

    def __init__(self, capacity: int, *, generator: Generator) -> None:
        """Make an empty buffer.

        Args:
            capacity: Transitions kept; the oldest give way.
            generator: Source of randomness.
        """
        self._buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(capacity), generator=generator
        )

    def __len__(self) -> int:
        """Transitions held."""
        return len(self._buffer)

    def extend(
        self, *, slot: Tensor, version: Tensor, position: Tensor, action: Tensor, after: Tensor
    ) -> None:
        """Add N transitions.

        Args:
            slot: (N,) int64, slot of the pool.
            version: (N,) int64, version of the slot's scan.
            position: (N, 3) int64, voxels of the finest level.
            action: (N,) int64.
            after: (N, 3) int64, where the action led.
        """
        fields = {"slot": slot, "version": version, "position": position, "action": action}
        entries = TensorDict({**fields, "after": after}, batch_size=[len(slot)])
        self._buffer.extend(entries.cpu())

    def sample(self, count: int, versions: Tensor) -> TensorDict:
        """Draw transitions whose scans are still in the pool.

        Args:
            count: Transitions drawn; outdated ones among them are dropped.
            versions: (slots,) int64, the pool's present versions.

        Returns:
            At most ``count`` transitions, on the device of ``versions``.
        """
        drawn: TensorDict = self._buffer.sample(count).to(versions.device)
        fresh = versions[drawn["slot"]] == drawn["version"]
        return drawn[fresh]
