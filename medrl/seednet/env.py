"""Placing seeds as an environment: TorchRL's, and through it Gymnasium's.

Import this module to use either; ``gymnasium.make("medrl.seednet.env:medrl/SeedNet-v0", ...)``
does so by itself. It needs the extra ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
_RULES = ("stride", "max_seeds", "seed_radius", "exclusion_radius", "seed_scale")


def make(
    images: Sequence[ArrayLike],
    masks: Sequence[ArrayLike],
    *,
    edges: Sequence[ArrayLike] | None = None,
    priors: Sequence[ArrayLike] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    beta: float = 130.0,
    segmenter: Segmenter | None = None,
    batch_size: Sequence[int] = (),
    reward: RewardSettings | RewardKind = "dice",
    click: ClickSettings | None = None,
    seed: int | None = None,
    device: str = "cpu",
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
        images: M windows of one grid, each (C, I, J, K) or (I, J, K), about -1 to 1.
        masks: (I, J, K) each, true inside the object, not empty.
        edges: (3, I, J, K) each, weights for the segmenter (:mod:`medrl.walker.edges`); from the
            intensities if None.
        priors: (I, J, K) each, foreground probabilities for the segmenter; none if None.
        spacing: Size of a voxel along each array axis.
        beta: How much a difference of intensities parts two voxels
            (:func:`medrl.walker.edges.intensity_edges`).
        segmenter: Turns seeds into probabilities; a random walker if None.
        batch_size: ``[N]`` or ``[]``, see :class:`medrl.rl.env.AgentsEnv`.
        reward: Its settings, or only its kind.
        click: The simulated user.
        seed: Fixes every episode.
        device: Where to keep and segment the windows.
        **rules: Options of :class:`medrl.seednet.dynamics.SeedDynamics`.

    Raises:
        MedrlError: If windows do not fit each other or an option is not usable.
    """
    if unknown := sorted(set(rules) - set(_RULES)):
        raise MedrlError(f"unknown option {', '.join(unknown)}; there are {', '.join(_RULES)}")
    image = _stacked("images", images, device).float()
    image = image[:, None] if image.dim() == 4 else image
    truth = _stacked("masks", masks, device).bool()
    shape = (len(image), *image.shape[2:])
    prior = None if priors is None else _stacked("priors", priors, device).float()
    for name, given in (("masks", truth), ("priors", prior)):
        if given is not None and tuple(given.shape) != shape:
            raise MedrlError(f"{name} must be {shape} like the images, not {tuple(given.shape)}")
    if not bool(truth.flatten(1).any(dim=1).all()):
        raise MedrlError("a mask is empty: there is nothing to segment")
    if edges is None:
        weights = intensity_edges(image, spacing=spacing, beta=beta)
    else:
        weights = _stacked("edges", edges, device).float()
    segmenter = RandomWalker() if segmenter is None else segmenter
    windows = Windows(system=segmenter.prepare(weights), prior=prior, image=image)
    dynamics = SeedDynamics(segmenter, **rules).on(windows)
    task = SeedTask(dynamics, truth, reward=reward, click=click)
    return AgentsEnv(dynamics, task, batch_size=batch_size, seed=seed, device=truth.device)


def _stacked(name: str, arrays: Sequence[ArrayLike], device: str) -> Tensor:
    """Arrays of one shape as one tensor."""
    tensors = [torch.as_tensor(array, device=device) for array in arrays]
    if not tensors or len({tensor.shape for tensor in tensors}) > 1:
        raise MedrlError(f"{name} must be of one shape, and there must be at least one")
    return torch.stack(tensors)


register(GYMNASIUM_ID, make, INFO)
