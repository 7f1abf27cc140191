"""Moving one scan onto another as an environment: TorchRL's, and through it Gymnasium's.

Import this module to use either; ``gymnasium.make("medrl.registration.env:medrl/Registration-v0",
...)`` does so by itself. It needs the extra ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded

from medrl.errors import MedrlError
from medrl.registration.data import body_mask, body_points
from medrl.registration.dynamics import UNSEEN, RegistrationDynamics, fixed_window
from medrl.registration.model import ModelSettings, RegistrationModel
from medrl.registration.network import ACTIONS, LevelSettings, RegistrationNetwork
from medrl.registration.rewards import RewardKind, RewardSettings, mean_distance, step_rewards
from medrl.registration.transforms import KINDS, Kind, about, compose, constrain, move
from medrl.rl.old_env import AgentsEnv
from medrl.volume.pyramid import Pyramid
from medrl.volume.space import apply_affine

#: Name under which Gymnasium knows the environment.
GYMNASIUM_ID = "medrl/Registration-v0"

ActionForm = Literal["factored", "single"]

#: One step of Liao et al. (AAAI 2017) and Sun et al. (MedIA 2021): mm, degrees, per cent, per cent.
PAPER_STEPS = (1.0, 1.0, 5.0, 5.0)

#: What agents are doing: moving, stopped, or out of steps.
MOVING, STOPPED, SPENT = 0, 1, 2


@dataclass(frozen=True, eq=False)
class PosedPair:
    """Two scans, and how they fit together.

    Attributes:
        fixed: One channel, one level, background UNSEEN.
        moving: The same.
        truth_world: (4, 4) fixed world to moving world, RAS mm.
        points_world: (P, 3) points of the fixed scan whose distance counts, RAS mm.
    """

    fixed: Pyramid
    moving: Pyramid
    truth_world: NDArray[np.float64]
    points_world: NDArray[np.float64]


@dataclass(frozen=True)
class EpisodeSettings:
    """Rules of an episode.

    Attributes:
        action: ``factored`` or ``single``, see :class:`RegistrationEnv`.
        kind: What agents may change.
        step_sizes: Of single actions: shift in mm, turn in degrees, scale and shear in per cent,
            for example :data:`PAPER_STEPS`; the smallest step of the scans' resolution if None.
        max_steps: Steps after which an agent is stopped.
        reward: Its settings, or only its kind.
        stop_at_target: An episode also ends once the distance is below the reward's threshold, as
            in Sun et al. (MedIA 2021).
        turn: Largest angle at the start, degrees.
        shift: Largest shift along each axis at the start, mm.
        resize: Largest change of the scales and shears at the start, where the kind has them, per
            cent.
    """

    action: ActionForm = "factored"
    kind: Kind = "rigid"
    step_sizes: tuple[float, float, float, float] | None = None
    max_steps: int = 20
    reward: RewardSettings | RewardKind = "progress"
    stop_at_target: bool = False
    turn: float = 60.0
    shift: float = 40.0
    resize: float = 15.0

    def __post_init__(self) -> None:
        """Refuse what is not an option.

        Raises:
            MedrlError: If a choice does not exist or a number is out of range.
        """
        _one_of("action", self.action, get_args(ActionForm))
        _one_of("kind", self.kind, KINDS)
        _one_of("reward", self.rewards.kind, get_args(RewardKind))
        if self.max_steps < 1:
            raise MedrlError(f"max_steps must be at least 1, not {self.max_steps}")
        sizes = self.step_sizes
        if sizes is not None and (len(sizes) != 4 or not all(size > 0 for size in sizes)):
            raise MedrlError(f"step_sizes must be four numbers above 0, not {sizes}")
        if not (0 <= self.turn <= 180 and self.shift >= 0 and self.resize >= 0):
            raise MedrlError("turn must be in 0..180, shift and resize at least 0")

    @property
    def rewards(self) -> RewardSettings:
        """What a step is worth."""
        reward = self.reward
        return reward if isinstance(reward, RewardSettings) else RewardSettings(kind=reward)


@dataclass(frozen=True, eq=False)
class RegistrationState:
    """N agents.

    Attributes:
        pair: (N,) int64, which scans.
        transforms: (N, 4, 4) float64, fixed world to moving world, RAS mm.
        steps: (N,) int64, steps made.
        status: (N,) int64: :data:`MOVING`, :data:`STOPPED` or :data:`SPENT`.
    """

    pair: Tensor
    transforms: Tensor
    steps: Tensor
    status: Tensor


class RegistrationEnv(AgentsEnv):
    """Agents that move one scan of a pair step by step until it lies on the other.

    **Agents and pairs.** ``batch_size`` is ``[N]`` for N agents that act at the same time, or
    ``[]`` for one. An episode begins with a pair drawn from the pool and a random misalignment,
    unless they are given to ``reset``: ``pair``, an index, and ``misalignment``, the twelve
    parameters (:mod:`medrl.registration.transforms`) of the change that would undo it, about the
    pivot; one for all agents or N. An agent that has ended stays where it is, with reward 0 and
    its done flags up, until it is reset; ``_reset`` masks (as collectors send them) start only the
    agents they name.

    **Observation.** Batch dimensions come first, written ``*`` here.

    =================== ================ =====================================================
    key                 shape and dtype  what
    =================== ================ =====================================================
    ``windows``         (*, 3, s, s, s)  fixed scan, moving scan as the transform puts it, and 1
                        float32          where both are in view, on one grid along the world's
                                         axes around the pivot: the mean of the pair's points
    ``pair``            (*) int64        which pair
    ``transform_world`` (*, 4, 4)        present transform, fixed world to moving world, RAS mm
                        float64
    ``distance_mm``     (*) float32      mean distance of the points from where they belong
    =================== ================ =====================================================

    A policy may look at the first. The others are for records and for replay that remembers
    places, not windows (``env.windows`` looks again); in Gymnasium they are in ``info``.
    ``distance_mm`` is ground truth.

    **Action.** P parameters, 6 of a rigid transform, 7 of a similarity (one scale for all axes), 12
    of an affine one; steps are made about the pivot, in fixed space.

    - ``action="factored"``: MultiCategorical, for each parameter one of the nine steps of
      :attr:`medrl.registration.network.LevelSettings.steps`, the middle one being none; last 0 to
      go on or 1 to stop, which leaves everything as it is.
    - ``action="single"``: Categorical, 0..2P = one step up of the first parameter, one down, up of
      the second, ..., and stop.

    **Reward.** :func:`medrl.registration.rewards.step_rewards`, shape (*, 1). By default, the
    rewards of an episode add up to the logarithm of how many times nearer the agent came,
    log((1 + D) / (1 + D')), and the bonus for stopping in the right place.

    **Done.** ``terminated`` when the agent has chosen to stop (or, with ``stop_at_target``, has
    arrived), ``truncated`` when it has made ``max_steps`` steps without.

    **Randomness.** All of it comes from one generator: ``set_seed`` fixes every episode. Without
    a seed it is seeded from PyTorch's global generator.
    """

    info_keys = ("pair", "transform_world", "distance_mm")

    def __init__(
        self,
        pool: PosedPair | Sequence[PosedPair],
        *,
        batch_size: Sequence[int] = (),
        window: int = 24,
        seed: int | None = None,
        **episode: Any,
    ) -> None:
        """Set up the environment; :func:`make` does it from scans.

        Args:
            pool: The pairs, same voxel size and number of points, on one device.
            batch_size: ``[N]`` or ``[]``.
            window: Side s of the windows in voxels.
            seed: Fixes every episode.
            **episode: Fields of :class:`EpisodeSettings`.

        Raises:
            MedrlError: If pairs do not fit each other or an option is not usable.
        """
        pairs = (pool,) if isinstance(pool, PosedPair) else tuple(pool)
        _check_pool(pairs)
        if len(batch_size) > 1:
            raise MedrlError(f"batch_size must be [] or [N], not {list(batch_size)}")
        if window < 1:
            raise MedrlError(f"window must be at least 1 voxel, not {window}")
        device = pairs[0].fixed.levels[0].device
        super().__init__(device=device, batch_size=torch.Size(batch_size))
        self.level = LevelSettings(spacing=pairs[0].fixed.spacings[0], window=window)
        self.settings = _settings(episode)
        self._moving = [pair.moving for pair in pairs]
        self._truth = _stack([pair.truth_world for pair in pairs])
        self._points = _stack([pair.points_world for pair in pairs])
        self._targets = move(self._truth, self._points)
        self._pivot = self._points.mean(dim=1)
        fixed = [pair.fixed for pair in pairs]
        to_fixed, self._to_moving = (
            torch.linalg.inv(_stack([scan.affines[0] for scan in scans]))
            for scans in (fixed, self._moving)
        )
        each = torch.arange(len(pairs))
        self._fixed = fixed_window(fixed, self.level, to_fixed, self._pivot, each)
        self._table = _table(self.settings, self.level)
        self._generator = torch.Generator()
        self._set_seed(seed if seed is not None else int(torch.randint(2**62, ())))
        brightest = max(float(s.levels[0].max()) for p in pairs for s in (p.fixed, p.moving))
        self._make_specs(max(1.0, brightest))
        self._state = self._begin(self.batch_size.numel())

    @property
    def registration_state(self) -> RegistrationState:
        """The N agents."""
        return self._state

    def dynamics(self, pair: Tensor) -> RegistrationDynamics:
        """What agents (R,) of some pairs look at and move."""
        return RegistrationDynamics(
            self.level,
            self._fixed[pair.to(self._fixed.device)],
            self._moving,
            self._to_moving[pair],
            self._pivot[pair],
            which=pair,
        )

    def windows(self, pair: Tensor, transform_world: Tensor) -> Tensor:
        """What agents see of pairs (R,) int64 through transforms (R, 4, 4); (R, 3, s, s, s)."""
        return self.dynamics(pair.cpu()).look(transform_world.cpu().double())

    # What TorchRL asks for -----------------------------------------------------------------------

    def _reset(
        self,
        tensordict: TensorDictBase | None = None,
        *,
        pair: int | ArrayLike | None = None,
        misalignment: ArrayLike | None = None,
    ) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        count = self.batch_size.numel()
        who = torch.ones(count, dtype=torch.bool) if mask is None else mask.reshape(count).cpu()
        rows = who.nonzero()[:, 0]
        pairs = None if pair is None else self._given_pairs(pair)[rows]
        changes = None if misalignment is None else self._given_changes(misalignment)[rows]
        started = self._begin(len(rows), pairs, changes)
        merged = {
            name: old.index_copy(0, rows, getattr(started, name))
            for name, old in vars(self._state).items()
        }
        self._state = RegistrationState(**merged)
        return self._pack(self._observe() | self._done())

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        state, settings = self._state, self.settings
        action = tensordict["action"].cpu().reshape(len(state.pair), -1)
        steps, stops = self._decode(action)
        moving = state.status == MOVING
        goes = moving & ~stops
        stepped = self.dynamics(state.pair).step(state.transforms, steps, kind=settings.kind)
        transforms = torch.where(goes[:, None, None], stepped, state.transforms)
        before = self._distance(state.pair, state.transforms)
        after = self._distance(state.pair, transforms)
        if settings.stop_at_target:
            stops = stops | (after < settings.rewards.threshold)
        reward = step_rewards(before, after, stops, settings.rewards)
        made = state.steps + moving.long()
        ending = torch.where(made >= settings.max_steps, SPENT, MOVING)
        ending = torch.where(stops, STOPPED, ending)
        status = torch.where(moving, ending, state.status)
        self._state = RegistrationState(state.pair, transforms, made, status)
        reward = torch.where(moving, reward, 0.0).float()
        return self._pack(self._observe() | self._done() | {"reward": reward[:, None]})

    # Episodes ------------------------------------------------------------------------------------

    def _decode(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Steps (N, 12) in mm, degrees and per cent, and who stops (N,), of actions."""
        if self.settings.action == "single":
            return self._table[action[:, 0]], action[:, 0] == len(self._table) - 1
        return self.level.steps[action[:, :-1]] @ self._table, action[:, -1] == 1

    def _begin(
        self, count: int, pairs: Tensor | None = None, changes: Tensor | None = None
    ) -> RegistrationState:
        """Agents that begin; pairs and misalignments drawn where not given."""
        if pairs is None:
            pairs = torch.randint(len(self._moving), (count,), generator=self._generator)
        if changes is None:
            changes = self._random_changes(count)
        undo = torch.linalg.inv(about(compose(changes), self._pivot[pairs]))
        none = torch.zeros(count, dtype=torch.int64)
        return RegistrationState(pairs, self._truth[pairs] @ undo, none, none + MOVING)

    def _random_changes(self, count: int) -> Tensor:
        """Parameters (N, 12) of what is left to be done."""
        settings, generator = self.settings, self._generator
        changes = 2 * torch.rand((count, 12), generator=generator, dtype=torch.float64) - 1
        axis = torch.randn((count, 3), generator=generator, dtype=torch.float64)
        angle = settings.turn * changes[:, 3:4].abs()
        changes[:, :3] *= settings.shift
        changes[:, 3:6] = angle * axis / axis.norm(dim=1, keepdim=True)
        changes[:, 6:] *= settings.resize
        return constrain(changes, settings.kind)

    def _given_pairs(self, pair: int | ArrayLike) -> Tensor:
        count, given, last = self.batch_size.numel(), np.asarray(pair), len(self._moving) - 1
        usable = given.dtype.kind in "iu" and given.shape in ((), (count,))
        if not usable or (given < 0).any() or (given > last).any():
            raise MedrlError(f"pair must be whole numbers in 0..{last}: one or {count}")
        return torch.from_numpy(given.astype(np.int64)).expand(count)

    def _given_changes(self, misalignment: ArrayLike) -> Tensor:
        count, given = self.batch_size.numel(), np.asarray(misalignment)
        usable = given.dtype.kind in "iuf" and given.shape in ((12,), (count, 12))
        if not usable or not np.isfinite(given).all():
            raise MedrlError(f"misalignment must be twelve finite numbers, once or {count} times")
        return torch.from_numpy(given.astype(np.float64)).expand(count, 12)

    # Observations --------------------------------------------------------------------------------

    def _distance(self, pair: Tensor, transforms: Tensor) -> Tensor:
        return mean_distance(transforms, self._points[pair], self._targets[pair])

    def _observe(self) -> dict[str, Tensor]:
        # Copies: the state's tensors live on from step to step.
        pair, transforms = self._state.pair, self._state.transforms
        return {
            "windows": self.windows(pair, transforms),
            "pair": pair.clone(),
            "transform_world": transforms.clone(),
            "distance_mm": self._distance(pair, transforms).float(),
        }

    def _done(self) -> dict[str, Tensor]:
        status = self._state.status[:, None]
        flags = {"done": status != MOVING, "terminated": status == STOPPED}
        return flags | {"truncated": status == SPENT}

    def _make_specs(self, brightest: float) -> None:
        batch, device = self.batch_size, self.device
        count = len(self._table)

        def free(*shape: int, dtype: torch.dtype) -> Unbounded:
            return Unbounded((*batch, *shape), device=device, dtype=dtype)

        def one_of(options: int) -> Categorical:
            return Categorical(options, shape=batch, device=device, dtype=torch.int64)

        if self.settings.action == "single":
            self.action_spec = one_of(count)
        else:
            options, shape = [*[ACTIONS] * count, 2], torch.Size((*batch, count + 1))
            self.action_spec = MultiCategorical(
                options, shape=shape, device=device, dtype=torch.int64
            )
        window = torch.Size((*batch, 3, *[self.level.window] * 3))
        self.observation_spec = Composite(
            {
                "windows": Bounded(0.0, brightest, window, device, torch.float32),
                "pair": one_of(len(self._moving)),
                "transform_world": free(4, 4, dtype=torch.float64),
                "distance_mm": free(dtype=torch.float32),
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
    fixed: MetaTensor | Sequence[MetaTensor],
    moving: MetaTensor | Sequence[MetaTensor],
    *,
    truth_world: ArrayLike | None = None,
    points_world: ArrayLike | None = None,
    model: RegistrationModel | None = None,
    level: int = 0,
    **options: Any,
) -> RegistrationEnv:
    """Make an environment from scans as they are on disk.

    Args:
        fixed: M scans, each (1, I, J, K) with its affine (:func:`medrl.volume.read`).
        moving: The scan to be moved onto each.
        truth_world: (M, 4, 4) or one (4, 4) for all: fixed to moving world, RAS mm; None where
            scans lie on each other already.
        points_world: (M, P, 3) or one (P, 3) for all: points in the fixed scans, RAS mm; drawn from
            the object in each if None.
        model: Prepares scans as it is used to, on its device; one with the default settings, on the
            CPU, if None.
        level: Of its resolutions, 0 being the coarsest.
        **options: Those of :class:`RegistrationEnv`; ``window`` is the level's if not given.

    Returns:
        The environment.

    Raises:
        MedrlError: If a scan, a truth or an option is not usable.
    """
    listed = [[s] if isinstance(s, MetaTensor) else list(s) for s in (fixed, moving)]
    count = len(listed[0])
    if len(listed[1]) != count:
        raise MedrlError(f"there are {count} fixed and {len(listed[1])} moving scans")
    if model is None:
        settings = ModelSettings()
        networks = tuple(RegistrationNetwork(one) for one in settings.levels)
        model = RegistrationModel(settings, networks)
    levels = model.settings.levels
    if not 0 <= level < len(levels):
        raise MedrlError(f"level must be in 0..{len(levels) - 1}, not {level}")
    truths = _each("truth_world", np.eye(4) if truth_world is None else truth_world, count)
    points = None if points_world is None else _each("points_world", points_world, count)
    pool = []
    for number in range(count):
        one, other = (model.prepare(scans[number]).levels[level] for scans in listed)
        own = _points_of(one) if points is None else points[number]
        pool.append(PosedPair(one, other, truths[number], own))
    return RegistrationEnv(pool, **({"window": levels[level].window} | options))


def _points_of(scan: Pyramid) -> NDArray[np.float64]:
    """Points (P, 3) of the object in a scan, the same every time, RAS mm."""
    volume = scan.levels[0].cpu()
    chosen = body_points(volume, body_mask(volume), generator=torch.Generator().manual_seed(0))
    return apply_affine(scan.affines[0], chosen.numpy())


def _each(what: str, value: ArrayLike, count: int) -> NDArray[np.float64]:
    """One matrix for each of the pairs, (M, R, C)."""
    given = np.asarray(value, dtype=np.float64)
    if given.ndim not in (2, 3) or (given.ndim == 3 and len(given) != count):
        raise MedrlError(f"{what} must be given once or for each of {count} pairs")
    return np.broadcast_to(given, (count, *given.shape[-2:]))


def _stack(matrices: Sequence[NDArray[np.float64]]) -> Tensor:
    return torch.from_numpy(np.stack(matrices).astype(np.float64))


def _table(settings: EpisodeSettings, level: LevelSettings) -> Tensor:
    """Which of the twelve parameters each choice changes.

    Factored: (P, 12), by how much for a step of 1. Single: (2 P + 1, 12), the steps themselves.
    """
    own = torch.eye(12, dtype=torch.float64)
    if settings.kind == "similarity":
        own[6] = own[6:9].sum(dim=0)
    own = own[: {"rigid": 6, "similarity": 7, "affine": 12}[settings.kind]]
    if settings.action == "factored":
        return own
    smallest = float(level.steps[ACTIONS // 2 + 1])
    sizes = torch.tensor(settings.step_sizes or [smallest] * 4, dtype=torch.float64)
    up = own * sizes.repeat_interleave(3)
    both = torch.stack([up, -up], dim=1).flatten(0, 1)
    return torch.cat([both, torch.zeros(1, 12, dtype=torch.float64)])


def _settings(options: dict[str, Any]) -> EpisodeSettings:
    known = {field.name for field in fields(EpisodeSettings)}
    if unknown := sorted(set(options) - known):
        raise MedrlError(f"unknown option {', '.join(unknown)}; there are {', '.join(known)}")
    return EpisodeSettings(**options)


def _one_of(what: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise MedrlError(f"{what} must be {' or '.join(options)}, not {value}")


def _check_pool(pool: Sequence[PosedPair]) -> None:
    if not pool:
        raise MedrlError("an environment needs at least one pair")
    scans = [scan for pair in pool for scan in (pair.fixed, pair.moving)]
    if len({(scan.spacings, scan.levels[0].device) for scan in scans}) > 1:
        raise MedrlError("all scans need the same voxel size and device")
    if any(len(s.levels) != 1 or s.levels[0].shape[0] != 1 for s in scans):
        raise MedrlError("every scan needs one level and one channel")
    if any(scan.background != UNSEEN for scan in scans):
        raise MedrlError(f"every scan needs the background {UNSEEN:g}, for what is out of view")
    if len({pair.points_world.shape for pair in pool}) > 1:
        raise MedrlError("all pairs need the same number of points")
    for number, pair in enumerate(pool):
        points, truth = pair.points_world, pair.truth_world
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise MedrlError(f"pair {number}: points_world must be (P, 3), not {points.shape}")
        if truth.shape != (4, 4) or not np.linalg.det(truth[:3, :3]) > 0:
            raise MedrlError(f"pair {number}: truth_world must be 4x4 and keep orientation")
        if not (np.isfinite(points).all() and np.isfinite(truth).all()):
            raise MedrlError(f"pair {number}: points and truth must be finite")


RegistrationEnv.register_gym(GYMNASIUM_ID, entry_point=make)

__all__ = [
    "GYMNASIUM_ID",
    "MOVING",
    "PAPER_STEPS",
    "SPENT",
    "STOPPED",
    "EpisodeSettings",
    "PosedPair",
    "RegistrationEnv",
    "RegistrationState",
    "make",
]
