"""Placing seeds as an environment: TorchRL's, and through it Gymnasium's.

Import this module to use either; ``gymnasium.make("medrl.seednet.env:medrl/SeedNet-v0", ...)``
does so by itself. It needs the extra ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from medrl.errors import MedrlError
from medrl.rl.env import AgentsEnv, register
from medrl.seednet.dynamics import SeedDynamics, SeedState, Windows
from medrl.seednet.rewards import RewardKind, RewardSettings
from medrl.seednet.task import INFO, ClickSettings, SeedTask
from medrl.walker.edges import intensity_edges
from medrl.walker.segmenter import RandomWalker, Segmenter

#: Name under which Gymnasium knows the environment.
GYMNASIUM_ID = "medrl/SeedNet-v0"


@dataclass(frozen=True, eq=False)
class LabelledWindow:
    """Something to be segmented, and how it should be.

    Attributes:
        image: (C, I, J, K) float32, what the agent sees.
        truth: (I, J, K) bool, not empty.
        weights: (3, I, J, K) float32, edges for the segmenter (:mod:`medrl.walker.edges`).
        prior: (I, J, K) float32, foreground probability for the segmenter, or None.
    """

    image: Tensor
    truth: Tensor
    weights: Tensor
    prior: Tensor | None = None


def seed_env(
    pool: Sequence[LabelledWindow],
    *,
    segmenter: Segmenter | None = None,
    batch_size: Sequence[int] = (),
    reward: RewardSettings | RewardKind = "dice",
    click: ClickSettings | None = None,
    seed: int | None = None,
    **rules: Any,
) -> AgentsEnv[SeedState]:
    """Agents that segment labelled windows by placing seeds, after one click of a user.

    They see ``cells``, and ``action_mask`` says which actions place a seed
    (:class:`medrl.seednet.dynamics.SeedDynamics`); ``window`` and ``dice`` are for records. A seed
    that the mask rules out is lost, nothing else happens;
    ``TransformedEnv(env, torchrl.envs.ActionMask())`` draws only from the others. By default, the
    rewards of an episode (:func:`medrl.seednet.rewards.seed_rewards`) add up to the Dice that the
    agent gained. It ends, terminated, when the agent has chosen STOP or used up its seeds.

    Args:
        pool: The windows, of one grid, with a prior each or none, on one device.
        segmenter: Turns seeds into probabilities; a random walker if None.
        batch_size: ``[N]`` or ``[]``, see :class:`medrl.rl.env.AgentsEnv`.
        reward: Its settings, or only its kind.
        click: The simulated user.
        seed: Fixes every episode.
        **rules: Options of :class:`medrl.seednet.dynamics.SeedDynamics`.

    Raises:
        MedrlError: If windows do not fit each other or an option is not usable.
    """
    _check_pool(pool)
    known = ("stride", "max_seeds", "seed_radius", "exclusion_radius", "seed_scale")
    if unknown := sorted(set(rules) - set(known)):
        raise MedrlError(f"unknown option {', '.join(unknown)}; there are {', '.join(known)}")
    segmenter = RandomWalker() if segmenter is None else segmenter
    priors = [window.prior for window in pool if window.prior is not None]
    windows = Windows(
        system=segmenter.prepare(torch.stack([window.weights for window in pool])),
        prior=torch.stack(priors) if priors else None,
        image=torch.stack([window.image for window in pool]).float(),
    )
    dynamics = SeedDynamics(segmenter, **rules).on(windows)
    truth = torch.stack([window.truth for window in pool]).bool()
    task = SeedTask(dynamics, truth, reward=reward, click=click)
    return AgentsEnv(dynamics, task, batch_size=batch_size, seed=seed, device=truth.device)


def make(
    images: Sequence[ArrayLike],
    masks: Sequence[ArrayLike],
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    beta: float = 130.0,
    device: str = "cpu",
    **options: Any,
) -> AgentsEnv[SeedState]:
    """Make an environment from images and masks, with edges from the intensities.

    Args:
        images: M windows of one grid, each (C, I, J, K) or (I, J, K), about -1 to 1.
        masks: (I, J, K) each, true inside the object.
        spacing: Size of a voxel along each array axis.
        beta: How much a difference of intensities parts two voxels
            (:func:`medrl.walker.edges.intensity_edges`).
        device: Where to keep and segment them.
        **options: Those of :func:`seed_env`.

    Raises:
        MedrlError: If images and masks do not fit each other or an option is not usable.
    """
    if len(images) != len(masks):
        raise MedrlError(f"there are {len(images)} images and {len(masks)} masks")
    pool = []
    for image, mask in zip(images, masks, strict=True):
        seen = torch.as_tensor(np.asarray(image), dtype=torch.float32, device=device)
        seen = seen[None] if seen.dim() == 3 else seen
        truth = torch.as_tensor(np.asarray(mask), dtype=torch.bool, device=device)
        weights = intensity_edges(seen[None], spacing=spacing, beta=beta)[0]
        pool.append(LabelledWindow(seen, truth, weights))
    return seed_env(pool, **options)


def _check_pool(pool: Sequence[LabelledWindow]) -> None:
    if not pool:
        raise MedrlError("an environment needs at least one window")
    first = pool[0]
    for number, window in enumerate(pool):
        if window.image.shape != first.image.shape or window.image.device != first.image.device:
            raise MedrlError("all windows need the same channels, grid and device")
        shape = tuple(window.image.shape[1:])
        if tuple(window.truth.shape) != shape or not window.truth.any():
            raise MedrlError(f"window {number} needs a mask of its grid {shape}, not empty")
        if (window.prior is None) != (first.prior is None):
            raise MedrlError("either all windows have a prior or none")


register(GYMNASIUM_ID, make, INFO)
