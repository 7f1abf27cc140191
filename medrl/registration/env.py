"""Moving one scan onto another as an environment: TorchRL's, and through it Gymnasium's.

Import this module to use either; ``gymnasium.make("medrl.registration.env:medrl/Registration-v0",
...)`` does so by itself. It needs the extra ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.registration.data import body_mask, body_points
from medrl.registration.dynamics import RegistrationState, Rules
from medrl.registration.model import ModelSettings, RegistrationModel
from medrl.registration.network import RegistrationNetwork
from medrl.registration.task import AlignSettings, PosedPair, align_pairs
from medrl.rl.env import AgentsEnv, register
from medrl.volume.pyramid import Pyramid
from medrl.volume.space import apply_affine

#: Name under which Gymnasium knows the environment.
GYMNASIUM_ID = "medrl/Registration-v0"


def make(
    fixed: MetaTensor | Sequence[MetaTensor],
    moving: MetaTensor | Sequence[MetaTensor],
    *,
    truth_world: ArrayLike | None = None,
    points_world: ArrayLike | None = None,
    model: RegistrationModel | None = None,
    level: int | None = None,
    window: int | None = None,
    batch_size: Sequence[int] = (),
    seed: int | None = None,
    **options: Any,
) -> AgentsEnv[RegistrationState]:
    """Make an environment from scans as they are on disk.

    Agents see ``windows`` (3, s, s, s) float32: fixed scan, moving scan as the transform puts it,
    and 1 where both are in view. What they do is in the form of
    :attr:`medrl.registration.dynamics.Rules.action`, here ``factored`` unless another is named.
    Each step is worth what :class:`medrl.registration.task.RewardSettings` says, and the episode
    is truncated after ``max_steps`` on the finest level. ``pair``, ``transform_world`` and
    ``distance_mm`` are ground truth, for records.

    Args:
        fixed: M scans, each (1, I, J, K) with its affine (:func:`medrl.volume.read`).
        moving: The scan to be moved onto each.
        truth_world: (M, 4, 4) or one (4, 4) for all: fixed to moving world, RAS mm; None where
            scans lie on each other already.
        points_world: (M, K, 3) or one (K, 3) for all: points in the fixed scans, RAS mm; drawn from
            the object in each if None.
        model: Prepares scans as it is used to, on its device; one with the default settings, on the
            CPU, if None.
        level: Of its resolutions, 0 being the finest; agents go from the coarsest to the finest if
            None.
        window: Side of the windows in voxels; that of each level if None.
        batch_size: ``[N]`` for N agents that act at the same time, or ``[]`` for one.
        seed: Fixes every episode.
        **options: Fields of :class:`medrl.registration.dynamics.Rules` and of
            :class:`medrl.registration.task.AlignSettings`.

    Raises:
        MedrlError: If a scan, a truth or an option is not usable.
    """
    listed = [[s] if isinstance(s, MetaTensor) else list(s) for s in (fixed, moving)]
    count = len(listed[0])
    if len(listed[1]) != count:
        raise MedrlError(f"there are {count} fixed and {len(listed[1])} moving scans")
    if model is None:
        settings = ModelSettings()
        model = RegistrationModel(settings, tuple(map(RegistrationNetwork, settings.levels)))
    every = model.settings.levels
    if level is not None and not 0 <= level < len(every):
        raise MedrlError(f"level must be in 0..{len(every) - 1}, not {level}")
    chosen = range(len(every)) if level is None else (level,)
    truths = _each("truth_world", np.eye(4) if truth_world is None else truth_world, count)
    points = None if points_world is None else _each("points_world", points_world, count)
    pool = []
    for number in range(count):
        scans = (model.prepare(scans[number]).levels for scans in listed)
        one, other = ([scan[n] for n in chosen] for scan in scans)
        own = _points_of(one[-1]) if points is None else points[number]
        pool.append(PosedPair(one, other, truths[number], own))
    rules, settings_of_task = (
        {f.name: options.pop(f.name) for f in fields(cls) if f.name in options}
        for cls in (Rules, AlignSettings)
    )
    if options:
        raise MedrlError(f"unknown option {', '.join(sorted(options))}")
    task = align_pairs(
        pool,
        [window or every[n].window for n in chosen],
        Rules(**({"action": "factored"} | rules)),
        AlignSettings(**settings_of_task),
    )
    return AgentsEnv(task.dynamics, task, batch_size=batch_size, seed=seed, device=model.device)


def _points_of(scan: Pyramid) -> NDArray[np.float64]:
    """Points (K, 3) of the object in a scan, the same every time, RAS mm."""
    volume = scan.levels[0].cpu()
    chosen = body_points(volume, body_mask(volume), generator=torch.Generator().manual_seed(0))
    return apply_affine(scan.affines[0], chosen.numpy())


def _each(what: str, value: ArrayLike, count: int) -> NDArray[np.float64]:
    """One matrix for each of the pairs, (M, R, C)."""
    given = np.asarray(value, dtype=np.float64)
    if given.ndim not in (2, 3) or (given.ndim == 3 and len(given) != count):
        raise MedrlError(f"{what} must be given once or for each of {count} pairs")
    return np.broadcast_to(given, (count, *given.shape[-2:]))


register(GYMNASIUM_ID, make, ("pair", "transform_world", "distance_mm"))
