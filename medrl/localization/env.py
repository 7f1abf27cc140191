"""The search for a box as an environment: TorchRL's, and through it Gymnasium's.

Import this module to use either; ``gymnasium.make("medrl.localization.env:medrl/Box-v0", ...)``
does so by itself. It needs the extra ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike

from medrl.errors import MedrlError
from medrl.localization.dynamics import BoxDynamics, BoxState, View
from medrl.localization.task import BoxTask, Rewards
from medrl.rl.env import AgentsEnv, options_for, register
from medrl.volume.prepare import Preprocessing
from medrl.volume.pyramid import build_pyramid

#: Name under which Gymnasium knows the environment.
GYMNASIUM_ID = "medrl/Box-v0"


def make(
    scans: MetaTensor | Sequence[MetaTensor],
    boxes_world: ArrayLike,
    *,
    spacings: Sequence[float] = (2.0, 4.0, 8.0),
    view: View | None = None,
    batch_size: Sequence[int] = (),
    seed: int | None = None,
    device: str = "cpu",
    **options: Any,
) -> AgentsEnv[BoxState]:
    """Make an environment of agents that box targets in labelled scans.

    An episode begins at a box drawn around the true one, near or far. What agents see and do is
    said by :class:`medrl.localization.dynamics.BoxDynamics`, what it is worth by
    :class:`medrl.localization.task.Rewards`, everything else by
    :class:`medrl.rl.env.AgentsEnv`.

    Args:
        scans: M scans (1, I, J, K) with their affines, any orientation and spacing: they are
            resampled, oriented and normalised as those of a medrl model.
        boxes_world: (M, K, 2, 3), or (K, 2, 3) for one scan: boxes of K targets, RAS mm, along the
            world's axes; NaN of what is not there.
        spacings: Voxel sizes of the pyramid in mm, finest first.
        view: What agents see.
        batch_size: ``[N]`` for N agents that act at the same time, ``[]`` for one.
        seed: Fixes every episode.
        device: Where scans are kept and windows cropped.
        **options: Fields of :class:`medrl.localization.task.Rewards`.

    Raises:
        MedrlError: If scans and boxes do not fit each other or an option is not usable.
    """
    listed = [scans] if isinstance(scans, MetaTensor) else list(scans)
    rewards: Rewards = options_for(Rewards, options)
    boxes = np.asarray(boxes_world, dtype=np.float64)
    boxes = boxes[None] if boxes.ndim == 3 else boxes
    if boxes.ndim != 4 or boxes.shape[0] != len(listed) or boxes.shape[2:] != (2, 3):
        raise MedrlError(f"boxes_world must be of shape ({len(listed)}, K, 2, 3)")
    if np.isnan(boxes).any(axis=(2, 3)).all():
        raise MedrlError("no scan has a box to look for")
    chain = Preprocessing(spacing=spacings[0])
    pyramids = [build_pyramid(chain(scan), spacings=spacings).to(device) for scan in listed]
    dynamics = BoxDynamics(pyramids, targets=boxes.shape[1], view=view)
    count, targets = boxes.shape[:2]
    row = torch.arange(count, device=dynamics.device).repeat_interleave(targets)
    world = torch.from_numpy(boxes.reshape(-1, 2, 3)).to(dynamics.device)
    truth = dynamics.to_voxel(row, world).view(count, targets, 2, 3)
    task = BoxTask(dynamics, truth, rewards=rewards)
    return AgentsEnv(dynamics, task, batch_size=batch_size, seed=seed, device=dynamics.device)


register(GYMNASIUM_ID, make, ("overlap",))

__all__ = ["GYMNASIUM_ID", "make"]
