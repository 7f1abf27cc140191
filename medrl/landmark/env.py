"""The search for a landmark as an environment: TorchRL's, and through it Gymnasium's.

Import this module to use either; ``gymnasium.make("medrl.landmark.env:medrl/Landmark-v0", ...)``
does so by itself. It needs the extra ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded

from medrl.errors import MedrlError
from medrl.landmark.dynamics import LEFT, MOVES, WALKING, SearchState
from medrl.landmark.episodes import REACHED, Episodes, EpisodeSettings
from medrl.rl.old_env import AgentsEnv
from medrl.roi import crop
from medrl.volume.prepare import Preprocessing
from medrl.volume.pyramid import Pyramid, build_pyramid

#: Name under which Gymnasium knows the environment.
GYMNASIUM_ID = "medrl/Landmark-v0"

#: Rounding in resampling and smoothing may overshoot the declared intensities by this.
_TOLERANCE = 1e-3


class LandmarkEnv(AgentsEnv):
    """Agents that walk through labelled scans, each looking for one landmark.

    **Agents and scans.** ``batch_size`` is ``[N]`` for N agents that move at the same time, or
    ``[]`` for one. They walk in M scans; which scan, which landmark and which start an agent gets
    is drawn anew in every episode unless it is given. Several agents may share a scan. An agent
    that has ended stays where it is, with reward 0 and its done flags up, until it is reset;
    ``_reset`` masks (as collectors send them) start only the agents they name.

    **Observation.** Batch dimensions come first, written ``*`` here.

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
    remembers places, not windows (``env.windows`` crops them again); in Gymnasium they are in
    ``info``. ``distance`` is ground truth.

    **Action.** Categorical, 0..5 = +x, -x, +y, -y, +z, -z: one voxel of the present scale along
    an axis of the scan's array, which is the world's axis (RAS) where scans were prepared by
    :func:`make`.

    **Reward.** How much nearer the move brought the agent to its landmark, shape (*, 1):
    ``|p - g| - |p' - g|`` (``reward="distance"``; Ghesu 2016) or ``|p - g|^2 - |p' - g|^2``
    (``"squared"``; Ghesu 2019), counted in steps of the scale the move was made on
    (``unit="step"``) or in mm or mm^2 (``unit="mm"``). In mm, and under the rule ``target``, an
    episode's rewards add up to the difference between its first and its last distance.

    **Scales.** An episode begins on the coarsest level. Where the search on a level ends, the
    agent goes on to the next finer one, in the same episode.

    **Done.** ``terminated`` means that there is no future to value: the agent has found its
    landmark or has left the scan by more than ``margin``. ``truncated`` means that it was stopped
    for a reason that its window does not show. ``done`` is either. By stopping rule:

    - ``stop="target"``, for training: a level ends where none of its lattice points is nearer to
      the landmark (at most half a step away on each axis), by which the finest level ends the
      episode, ``terminated``. On an agent's start this counts for all levels but the finest: it
      begins on the first level where there is something left to do. An agent that needs more than
      ``max_steps`` on any level is ``truncated``.
    - ``stop="loop"``, what a trained agent does without ground truth: a level ends when the agent
      comes back to a place where it has been on that level, or after ``max_steps``; the next one
      starts at the mean position of that loop. The finest level ends the episode, ``truncated``.

    **Randomness.** All of it comes from one generator: ``set_seed`` fixes every episode. Without
    a seed it is seeded from PyTorch's global generator.
    """

    info_keys = ("scan", "position_voxel", "position_world", "distance")

    def __init__(
        self,
        pyramids: Pyramid | Sequence[Pyramid],
        points_world: ArrayLike,
        *,
        batch_size: Sequence[int] = (),
        window: int = 25,
        intensities: tuple[float, float] = (0.0, 1.5),
        seed: int | None = None,
        **episode: Any,
    ) -> None:
        """Set up the environment; :func:`make` does it from scans.

        Args:
            pyramids: The M scans, same spacings and number of channels, on one device.
            points_world: (M, K, 3), or (K, 3) for one scan: landmarks in RAS mm, NaN where a scan
                is not labelled with one.
            batch_size: ``[N]`` or ``[]``.
            window: Side s of the window in voxels.
            intensities: Smallest and largest value in the scans, which bound the window's space;
                the default is what medrl's normalisation guarantees.
            seed: Fixes every episode.
            **episode: Fields of :class:`medrl.landmark.episodes.EpisodeSettings`: ``reward``,
                ``unit``, ``stop``, ``max_steps``, ``margin``, ``landmark``, ``start_radius``.

        Raises:
            MedrlError: If scans and landmarks do not fit each other or an option is not usable.
        """
        self.pyramids = (pyramids,) if isinstance(pyramids, Pyramid) else tuple(pyramids)
        _check_scans(self.pyramids, intensities)
        if len(batch_size) > 1:
            raise MedrlError(f"batch_size must be [] or [N], not {list(batch_size)}")
        device = self.pyramids[0].levels[0].device
        super().__init__(device=device, batch_size=torch.Size(batch_size))
        self.window = window
        self.episodes = Episodes(self.pyramids, points_world, _settings(episode))
        self._intensities = intensities
        self._generator = torch.Generator()
        self._set_seed(seed if seed is not None else int(torch.randint(2**62, ())))
        self._make_specs()
        self._state, self._landmark = self._begin()

    @property
    def search_state(self) -> SearchState:
        """The N agents as the dynamics know them.

        Their ``status`` may also be :data:`medrl.landmark.episodes.REACHED`.
        """
        return self._state

    def windows(self, scan: Tensor, position_voxel: Tensor, level: Tensor) -> Tensor:
        """What agents see at given places.

        Args:
            scan: (R,) int64.
            position_voxel: (R, 3) int64, voxels of the finest level.
            level: (R,) int64.

        Returns:
            (R, C, s, s, s) float32.
        """
        centers = position_voxel // self.episodes.dynamics.strides[level][:, None]
        windows = crop(self.pyramids, centers, self.window, level=level, scan=scan)
        return windows.clamp_(*self._intensities)

    # What TorchRL asks for -----------------------------------------------------------------------

    def _reset(self, tensordict: TensorDictBase | None = None, **given: Any) -> TensorDict:
        state, landmark = self._begin(**given)
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is not None:
            who = mask.reshape(len(landmark))
            landmark = torch.where(who, landmark, self._landmark)
            merged = {
                name: torch.where(who.view(-1, *[1] * (old.dim() - 1)), getattr(state, name), old)
                for name, old in vars(self._state).items()
            }
            state = SearchState(**merged)
        self._state, self._landmark = state, landmark
        return self._pack(self._observe() | self._done())

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        action = tensordict["action"].to(self.device).reshape(len(self._landmark))
        self._state, reward = self.episodes.advance(self._state, self._landmark, action)
        return self._pack(self._observe() | self._done() | {"reward": reward[:, None]})

    def _begin(
        self,
        *,
        scan: int | ArrayLike | None = None,
        landmark: int | ArrayLike | None = None,
        start_world: ArrayLike | None = None,
    ) -> tuple[SearchState, Tensor]:
        return self.episodes.begin(
            self.batch_size.numel(),
            self._generator,
            scan=scan,
            landmark=landmark,
            start_world=start_world,
        )

    def _observe(self) -> dict[str, Tensor]:
        # Copies: the state's tensors live on from step to step.
        state, landmark = self._state, self._landmark
        return {
            "window": self.windows(state.scan, state.position, state.level),
            "level": state.level.clone(),
            "landmark": landmark.clone(),
            "scan": state.scan.clone(),
            "position_voxel": state.position.clone(),
            "position_world": self.episodes.position_world(state),
            "distance": self.episodes.distance(state, landmark).float(),
        }

    def _done(self) -> dict[str, Tensor]:
        status = self._state.status[:, None]
        terminated = (status == REACHED) | (status == LEFT)
        done = status != WALKING
        return {"done": done, "terminated": terminated, "truncated": done & ~terminated}

    def _make_specs(self) -> None:
        batch, device = self.batch_size, self.device
        scans, landmarks = self.episodes.labelled.shape
        window = (*batch, self.pyramids[0].levels[0].shape[0], *[self.window] * 3)

        def index(count: int) -> Categorical:
            return Categorical(count, shape=batch, device=device, dtype=torch.int64)

        def free(*shape: int, dtype: torch.dtype) -> Unbounded:
            return Unbounded((*batch, *shape), device=device, dtype=dtype)

        self.action_spec = index(len(MOVES))
        self.observation_spec = Composite(
            {
                "window": Bounded(*self._intensities, window, device, torch.float32),
                "level": index(len(self.episodes.spacings)),
                "landmark": index(landmarks),
                "scan": index(scans),
                "position_voxel": free(3, dtype=torch.int64),
                "position_world": free(3, dtype=torch.float64),
                "distance": free(dtype=torch.float32),
            },
            shape=batch,
            device=device,
        )
        self.reward_spec = free(1, dtype=torch.float32)
        flag = Binary(1, shape=(*batch, 1), device=device, dtype=torch.bool)
        names = ("done", "terminated", "truncated")
        self.done_spec = Composite(
            {name: flag.clone() for name in names}, shape=batch, device=device
        )


def make(
    scans: MetaTensor | Sequence[MetaTensor],
    points_world: ArrayLike,
    *,
    spacings: Sequence[float] = (2.0, 4.0, 8.0),
    device: str = "cpu",
    **options: Any,
) -> LandmarkEnv:
    """Make an environment from scans as they are on disk.

    Args:
        scans: M scans, each (C, I, J, K) with its affine (:func:`medrl.volume.read`); any
            orientation and spacing.
        points_world: (M, K, 3), or (K, 3) for one scan: landmarks in RAS mm, NaN where unknown.
        spacings: Scales of the search in mm, finest first.
        device: Where scans are kept and windows cropped.
        **options: Those of :class:`LandmarkEnv`.

    Returns:
        The environment. Scans are resampled, oriented and normalised as those of a medrl model.

    Raises:
        MedrlError: If a scan or an option is not usable.
    """
    listed = [scans] if isinstance(scans, MetaTensor) else list(scans)
    chain = Preprocessing(spacing=spacings[0]).chain()
    pyramids = [build_pyramid(chain(scan), spacings=spacings).to(device) for scan in listed]
    return LandmarkEnv(pyramids, points_world, **options)


def _settings(options: dict[str, Any]) -> EpisodeSettings:
    known = {field.name for field in fields(EpisodeSettings)}
    if unknown := sorted(set(options) - known):
        raise MedrlError(f"unknown option {', '.join(unknown)}; there are {', '.join(known)}")
    return EpisodeSettings(**options)


def _check_scans(pyramids: Sequence[Pyramid], intensities: tuple[float, float]) -> None:
    if not pyramids:
        raise MedrlError("an environment needs at least one scan")
    if len({(p.spacings, p.levels[0].shape[0], p.levels[0].device) for p in pyramids}) > 1:
        raise MedrlError("all scans need the same spacings, number of channels and device")
    for number, pyramid in enumerate(pyramids):
        low = min(float(level.min()) for level in pyramid.levels)
        high = max(float(level.max()) for level in pyramid.levels)
        if low < intensities[0] - _TOLERANCE or high > intensities[1] + _TOLERANCE:
            raise MedrlError(
                f"scan {number} has intensities from {low:g} to {high:g}, outside {intensities}: "
                "normalise it or say which intensities to expect"
            )


LandmarkEnv.register_gym(GYMNASIUM_ID, entry_point=make)

__all__ = ["GYMNASIUM_ID", "LandmarkEnv", "make"]
