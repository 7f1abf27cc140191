"""What the truth says of agents that move scans: where they begin, what a step is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from medrl.agents import Space, Task
from medrl.agents.task import number_rows, whole_rows
from medrl.errors import MedrlError
from medrl.registration.dynamics import (
    UNSEEN,
    RegistrationDynamics,
    RegistrationState,
    Rules,
    View,
    windows_of,
)
from medrl.registration.transforms import about, compose, constrain, decompose, move
from medrl.volume.pyramid import Pyramid

RewardKind = Literal["distance", "progress"]
#: Status of an agent that has come as near as it should.
ARRIVED = 2


@dataclass(frozen=True)
class RewardSettings:
    """What a step is worth.

    Attributes:
        kind: ``distance``: the negative mean landmark distance D after the step, in mm, r = -D
            (Sun et al., MedIA 2021). ``progress``: how much the step shrinks log(1 + D / mm), the
            same at every scale; those of an episode add up to log((1 + D) / (1 + D')).
        bonus: Added to the step by which D falls below the threshold, if that ends the episode.
        threshold: Of D, mm.
    """

    kind: RewardKind = "progress"
    bonus: float = 1.0
    threshold: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what is not an option.

        Raises:
            MedrlError: If the kind is unknown.
        """
        if self.kind not in get_args(RewardKind):
            raise MedrlError(
                f"there is no reward {self.kind!r}: {' or '.join(get_args(RewardKind))}"
            )


@dataclass(frozen=True)
class AlignSettings:
    """Episodes of agents whose right answer is known.

    Attributes:
        reward: What a step is worth, or only its kind.
        stop_at_target: An episode also ends once the distance is below the reward's threshold, as
            in Sun et al. (MedIA 2021).
        turn: Largest angle at the start, degrees.
        shift: Largest shift along each axis at the start, mm.
        resize: Largest change of the scales and shears at the start, where the kind has them, per
            cent.
    """

    reward: RewardSettings | RewardKind = "progress"
    stop_at_target: bool = False
    turn: float = 60.0
    shift: float = 40.0
    resize: float = 15.0

    def __post_init__(self) -> None:
        """Refuse what is not an option.

        Raises:
            MedrlError: If a number is out of range.
        """
        if not (0 <= self.turn <= 180 and self.shift >= 0 and self.resize >= 0):
            raise MedrlError("turn must be in 0..180, shift and resize at least 0")
        _ = self.rewards

    @property
    def rewards(self) -> RewardSettings:
        """What a step is worth."""
        reward = self.reward
        return reward if isinstance(reward, RewardSettings) else RewardSettings(kind=reward)


class AlignTask(Task[RegistrationState]):
    """Pairs of scans whose right transforms are known.

    An episode begins with a pair drawn from the pool and a random misalignment, unless they are
    given: ``pair``, an index, and ``misalignment``, the twelve parameters
    (:mod:`medrl.registration.transforms`) of the change that would undo it, about the pivot.

    Attributes:
        dynamics: What agents live in.
        truth_world: (P, 4, 4) float64, fixed world to moving world, RAS mm.
        points_world: (P, K, 3) float64, points of the fixed scans whose distance from where they
            belong counts.
        settings: Of episodes.
    """

    outcomes = ("arrived",)

    def __init__(
        self,
        dynamics: RegistrationDynamics,
        truth_world: Tensor,
        points_world: Tensor,
        settings: AlignSettings | None = None,
    ) -> None:
        """Know the truth of the dynamics' pairs; see the attributes."""
        self.dynamics = dynamics
        self.settings = settings or AlignSettings()
        self._rewards = self.settings.rewards
        self.truth_world = truth_world
        self.points_world = points_world
        self._targets = move(truth_world, points_world)
        self.info_spaces = {
            "pair": Space.choice(dynamics.pairs),
            "transform_world": Space((4, 4), torch.float64),
            "distance_mm": Space(),
        }

    def given(self, count: int, **given: Any) -> dict[str, Tensor]:
        """A row of ``pair`` and ``misalignment`` for each agent, see the class."""
        found = {}
        for name, value in given.items():
            if name == "pair":
                found[name] = whole_rows(name, value, count, (self.dynamics.pairs,), single=True)
            elif name == "misalignment":
                found[name] = number_rows(name, value, count, (12,))
            else:
                raise MedrlError(f"{name} cannot be given: pair and misalignment can")
        return found

    def begin(self, count: int, generator: Generator, **given: Tensor) -> RegistrationState:
        """Agents that are misaligned."""
        pair = given.get("pair")
        if pair is None:
            pair = torch.randint(self.dynamics.pairs, (count,), generator=generator)
        change = given.get("misalignment")
        if change is None:
            change = self._changes(count, generator)
        pair = pair.to(self.truth_world.device)
        undo = about(compose(change.to(self.truth_world)), self.dynamics.pivot[pair])
        return self.dynamics.reset(pair, self.truth_world[pair] @ torch.linalg.inv(undo))

    def reward(self, before: RegistrationState, action: Tensor, after: RegistrationState) -> Tensor:
        """What the steps were worth, see :class:`RewardSettings`."""
        reward = self._rewards
        there = self.distance(after)
        if reward.kind == "distance":
            worth = -there
        else:
            worth = self.distance(before).log1p() - there.log1p()
        if self.settings.stop_at_target:
            worth = worth + reward.bonus * (there < reward.threshold)
        return worth.float()

    def ended(self, after: RegistrationState) -> RegistrationState:
        """Agents that have arrived stop, if they should."""
        if not self.settings.stop_at_target:
            return after
        there = self.distance(after) < self._rewards.threshold
        return replace(after, status=torch.where(there, ARRIVED, after.status))

    def info(self, state: RegistrationState) -> dict[str, Tensor]:
        """Which pair, the transform, and the mean distance of the points, in mm."""
        return {
            "pair": state.pair,
            "transform_world": state.transform,
            "distance_mm": self.distance(state).float(),
        }

    def distance(self, state: RegistrationState) -> Tensor:
        """Mean landmark distance D of Sun et al. (MedIA 2021), (N,) float64 in mm."""
        apart = move(state.transform, self.points_world[state.pair]) - self._targets[state.pair]
        return apart.norm(dim=-1).mean(dim=-1)

    def left(self, state: RegistrationState) -> Tensor:
        """Steps (N, 12) that would bring agents home, in mm, degrees and per cent."""
        change = torch.linalg.inv(state.transform) @ self.truth_world[state.pair]
        return decompose(about(change, -self.dynamics.pivot[state.pair]))

    def _changes(self, count: int, generator: Generator) -> Tensor:
        """Parameters (N, 12) of what is left to be done."""
        settings = self.settings
        changes = 2 * torch.rand((count, 12), generator=generator, dtype=torch.float64) - 1
        axis = torch.randn((count, 3), generator=generator, dtype=torch.float64)
        angle = settings.turn * changes[:, 3:4].abs()
        changes[:, :3] *= settings.shift
        changes[:, 3:6] = angle * axis / axis.norm(dim=1, keepdim=True)
        changes[:, 6:] *= settings.resize
        return constrain(changes, self.dynamics.rules.kind)


@dataclass(frozen=True, eq=False)
class PosedPair:
    """Two scans, and how they fit together.

    Attributes:
        fixed: A pyramid of one channel and one level for each resolution, finest first; 0 to 1.5,
            background UNSEEN.
        moving: The same.
        truth_world: (4, 4) fixed world to moving world, RAS mm.
        points_world: (K, 3) points of the fixed scan whose distance counts, RAS mm; their middle
            is the pivot.
    """

    fixed: Sequence[Pyramid]
    moving: Sequence[Pyramid]
    truth_world: NDArray[np.float64]
    points_world: NDArray[np.float64]


def align_pairs(
    pool: Sequence[PosedPair],
    windows: Sequence[int],
    rules: Rules | None = None,
    settings: AlignSettings | None = None,
) -> AlignTask:
    """Agents of a pool of pairs, with the truth about them.

    Args:
        pool: The pairs, same voxel sizes and number of points, on one device.
        windows: Side of the windows on each level, finest first, voxels.
        rules: What agents may do.
        settings: Of episodes.

    Returns:
        The task; its ``dynamics`` are those of the pool.

    Raises:
        MedrlError: If pairs do not fit each other or an option is not usable.
    """
    _check_pool(pool, len(windows))
    if min(windows) < 1:
        raise MedrlError(f"window must be at least 1 voxel, not {min(windows)}")
    device = pool[0].fixed[0].levels[0].device
    points = _stack([pair.points_world for pair in pool]).to(device)
    pivot = points.mean(dim=1)
    each = torch.arange(len(pool), device=device)
    views = []
    for level, window in enumerate(windows):
        fixed, moving = ([getattr(p, side)[level] for p in pool] for side in ("fixed", "moving"))
        to_fixed, to_moving = (
            torch.linalg.inv(_stack([scan.affines[0] for scan in scans])).to(device)
            for scans in (fixed, moving)
        )
        spacing = fixed[0].spacings[0]
        shown = windows_of(fixed, to_fixed, pivot, spacing, window, which=each)
        views.append(View(spacing, shown, moving, to_moving, scan=each))
    dynamics = RegistrationDynamics(views, pivot, rules)
    truth = _stack([pair.truth_world for pair in pool]).to(device)
    return AlignTask(dynamics, truth, points, settings)


def _stack(matrices: Sequence[NDArray[np.float64]]) -> Tensor:
    return torch.from_numpy(np.stack(matrices).astype(np.float64))


def _check_pool(pool: Sequence[PosedPair], levels: int) -> None:
    if not pool:
        raise MedrlError("there must be at least one pair")
    if any(len(scan) != levels for pair in pool for scan in (pair.fixed, pair.moving)):
        raise MedrlError(f"every scan needs a pyramid for each of {levels} levels")
    for level in range(levels):
        scans = [scan[level] for pair in pool for scan in (pair.fixed, pair.moving)]
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
            raise MedrlError(f"pair {number}: points_world must be (K, 3), not {points.shape}")
        if truth.shape != (4, 4) or not np.linalg.det(truth[:3, :3]) > 0:
            raise MedrlError(f"pair {number}: truth_world must be 4x4 and keep orientation")
        if not (np.isfinite(points).all() and np.isfinite(truth).all()):
            raise MedrlError(f"pair {number}: points and truth must be finite")
