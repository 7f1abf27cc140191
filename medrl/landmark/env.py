"""The search for a landmark as an environment: TorchRL's, and through it Gymnasium's.

Import this module to use either; ``gymnasium.make("medrl.landmark.env:medrl/Landmark-v0", ...)``
does so by itself. It needs the extra ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike

from medrl.errors import MedrlError
from medrl.landmark.dynamics import SearchDynamics, SearchState
from medrl.landmark.task import LandmarkTask, TaskSettings
from medrl.rl.env import AgentsEnv, options_for, register
from medrl.volume.prepare import Preprocessing
from medrl.volume.pyramid import Pyramid, build_pyramid

#: Name under which Gymnasium knows the environment.
GYMNASIUM_ID = "medrl/Landmark-v0"


def make(
    scans: MetaTensor | Pyramid | Sequence[MetaTensor | Pyramid],
    points_world: ArrayLike,
    *,
    spacings: Sequence[float] = (2.0, 4.0, 8.0),
    window: int = 25,
    intensities: tuple[float, float] = (0.0, 1.5),
    batch_size: Sequence[int] = (),
    seed: int | None = None,
    device: str = "cpu",
    **options: Any,
) -> AgentsEnv[SearchState]:
    """Make an environment of agents that walk through labelled scans, each to one landmark.

    An episode begins on the coarsest level. Where the search on a level ends, the agent goes on to
    the next finer one, in the same episode. Which scan, landmark and start an agent gets is drawn
    anew in every episode unless ``reset`` is given ``scan``, ``landmark`` or ``start_world``. On
    rewards and stopping rules see :class:`medrl.landmark.task.LandmarkTask`, on everything else
    :class:`medrl.rl.env.AgentsEnv`. Batch dimensions come first, written ``*`` here:

    =================== =============== ======================================================
    key                 shape and dtype what
    =================== =============== ======================================================
    ``window``          (*, C, s, s, s) float32, the voxels around the agent at its present
                                        scale, one window voxel = one step; outside the scan
                                        the pyramid's background
    ``level``           (*) int64       present scale, 0 is the finest
    ``landmark``        (*) int64       what the agent looks for, a row of ``points_world``
    ``scan``            (*) int64       where it walks
    ``position_voxel``  (*, 3) int64    where it stands, voxels of the scan's finest level
    ``position_world``  (*, 3) float64  the same in RAS mm
    ``distance``        (*) float32     from there to the landmark in mm
    =================== =============== ======================================================

    A policy may look at the first three. The others are for records and for replay that
    remembers places, not windows; in Gymnasium they are in ``info``. ``distance`` is ground truth.

    The action is categorical, 0..5 = +x, -x, +y, -y, +z, -z: one voxel of the present scale along
    an axis of the scan's array, which is the world's axis (RAS) where scans were prepared here. An
    optional ``estimate`` (*, 4) beside it says where the agent sees its landmark, see
    :meth:`medrl.landmark.dynamics.SearchDynamics.step`.

    ``terminated``: the agent has found its landmark or has left the scan by more than ``margin``.
    ``truncated``: it went round in a loop, or used up its steps.

    Args:
        scans: M scans as they are on disk, each (C, I, J, K) with its affine
            (:func:`medrl.volume.read`), any orientation and spacing: they are resampled, oriented
            and normalised as those of a medrl model. Or pyramids, which are taken as they are.
        points_world: (M, K, 3), or (K, 3) for one scan: landmarks in RAS mm, NaN where unknown.
        spacings: Scales of the search in mm, finest first.
        window: Side s of the window in voxels.
        intensities: Smallest and largest value in the scans, which bound the window's space; the
            default is what medrl's normalisation guarantees.
        batch_size: ``[N]`` for N agents that move at the same time, ``[]`` for one.
        seed: Fixes every episode.
        device: Where scans are kept and windows cropped.
        **options: Fields of :class:`medrl.landmark.task.TaskSettings`.

    Raises:
        MedrlError: If scans and landmarks do not fit each other or an option is not usable.
    """
    listed = [scans] if isinstance(scans, MetaTensor | Pyramid) else list(scans)
    settings: TaskSettings = options_for(TaskSettings, options)
    chain = Preprocessing(spacing=spacings[0]).chain()
    pyramids = [
        scan if isinstance(scan, Pyramid) else build_pyramid(chain(scan), spacings=spacings)
        for scan in listed
    ]
    points = np.asarray(points_world, dtype=np.float64)
    points = points[None] if points.ndim == 2 else points
    dynamics = settings.dynamics(
        [pyramid.to(device) for pyramid in pyramids],
        landmarks=points.shape[1] if points.ndim == 3 else 0,
        window=window,
        intensities=intensities,
    )
    _check_intensities(dynamics)
    task = LandmarkTask(dynamics, points, settings)
    return AgentsEnv(dynamics, task, batch_size=batch_size, seed=seed, device=dynamics.device)


def _check_intensities(dynamics: SearchDynamics) -> None:
    """Refuse scans whose windows would lie outside of their space."""
    space = dynamics.observation_spaces["window"]
    low, high = float(space.low or 0.0), float(space.high or 0.0)
    for number, pyramid in enumerate(dynamics.scans):
        least = min(float(level.min()) for level in pyramid.levels)
        most = max(float(level.max()) for level in pyramid.levels)
        if least < low or most > high:
            raise MedrlError(
                f"scan {number} has intensities from {least:g} to {most:g}, outside "
                f"{low:g}..{high:g}: normalise it or say which intensities to expect"
            )


register(GYMNASIUM_ID, make, ("scan", "position_voxel", "position_world", "distance"))

__all__ = ["GYMNASIUM_ID", "make"]
