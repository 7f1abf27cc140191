"""Search for landmarks whose place is known: starts, rewards, and stopping by the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from medrl.agents import ACTIVE, Space, Task
from medrl.agents.task import number_rows, whole_rows
from medrl.errors import MedrlError
from medrl.landmark.dynamics import CAPPED, SearchDynamics, SearchState
from medrl.landmark.rewards import RewardForm, nearest_reached, potential
from medrl.volume.pyramid import Pyramid
from medrl.volume.space import world_to_voxel

StoppingRule = Literal["target", "loop"]
RewardUnit = Literal["step", "mm"]

#: Status of an agent that has found its landmark, after those of :mod:`medrl.landmark.dynamics`.
REACHED = len(SearchDynamics.outcomes)


@dataclass(frozen=True)
class TaskSettings:
    """Options of an episode.

    Attributes:
        reward: ``distance`` (Ghesu 2016) or ``squared`` (Ghesu 2019).
        unit: Rewards in steps of the scale, or in mm (``squared``: mm^2).
        stop: Stopping rule, see :class:`LandmarkTask`.
        max_steps: Steps allowed on one level.
        margin: How far outside the scan an agent may go, voxels of the finest level.
        landmark: The only landmark looked for; drawn among the scan's if None.
        start_radius: Starts are drawn within this many mm of the landmark on each axis, inside
            the scan; anywhere in the scan if None.
    """

    reward: RewardForm = "distance"
    unit: RewardUnit = "step"
    stop: StoppingRule = "target"
    max_steps: int = 48
    margin: int = 16
    landmark: int | None = None
    start_radius: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is not an option.

        Raises:
            MedrlError: If a choice is unknown or a number is out of range.
        """
        for name, allowed in (
            ("reward", ("distance", "squared")),
            ("unit", ("step", "mm")),
            ("stop", ("target", "loop")),
        ):
            if getattr(self, name) not in allowed:
                choice = getattr(self, name)
                raise MedrlError(f"{name} must be {' or '.join(allowed)}, not {choice!r}")
        if self.max_steps < 1 or self.margin < 0:
            raise MedrlError("max_steps must be at least 1 and margin at least 0")
        if self.start_radius is not None and not self.start_radius > 0:
            raise MedrlError("start_radius must be more than 0 mm")

    def dynamics(
        self, scans: Sequence[Pyramid], *, landmarks: int, **options: Any
    ) -> SearchDynamics:
        """Dynamics whose levels end as these settings say.

        Args:
            scans: Of :class:`SearchDynamics`.
            landmarks: Likewise.
            **options: Further ones of it.
        """
        by_loop = self.stop == "loop"
        return SearchDynamics(
            scans,
            landmarks=landmarks,
            max_steps=self.max_steps,
            margin=self.margin,
            loops=by_loop,
            descends=by_loop,
            **options,
        )


class LandmarkTask(Task[SearchState]):
    """The truth about M labelled scans.

    **Reward.** How much nearer a move brought an agent to its landmark: ``|p - g| - |p' - g|``
    (``reward="distance"``; Ghesu 2016) or ``|p - g|^2 - |p' - g|^2`` (``"squared"``; Ghesu 2019),
    in steps of the scale the move was made on (``unit="step"``) or in mm or mm^2 (``unit="mm"``).
    In mm, and under the rule ``target``, an episode's rewards add up to the difference between its
    first and its last distance.

    **Stopping rule.**

    - ``stop="target"``, for training: a level ends where none of its lattice points is nearer to
      the landmark (at most half a step away on each axis), by which the finest level ends the
      episode, ``reached``. On an agent's start this counts for all levels but the finest: it
      begins on the first level where there is something left to do. Loops do not count.
    - ``stop="loop"``, what a trained agent does without the truth: that of the dynamics.

    Attributes:
        settings: Options.
        points_voxel: (M, K, 3) float64, landmarks in voxels of the scans' finest levels.
        labelled: (M, K) bool.
    """

    outcomes = ("reached",)

    def __init__(
        self, dynamics: SearchDynamics, points_world: ArrayLike, settings: TaskSettings
    ) -> None:
        """Know the truth.

        Args:
            dynamics: From :meth:`TaskSettings.dynamics`.
            points_world: (M, K, 3) RAS mm, NaN where not labelled.
            settings: Options.

        Raises:
            MedrlError: If scans and landmarks do not fit each other.
        """
        self.settings = settings
        self._dynamics = dynamics
        points = np.asarray(points_world, dtype=np.float64)
        scans = len(dynamics.scans)
        if points.ndim != 3 or points.shape[0] != scans or points.shape[2] != 3:
            raise MedrlError(f"points_world must be ({scans}, landmarks, 3), not {points.shape}")
        voxels = [
            world_to_voxel(p, pyramid.affines[0])
            for p, pyramid in zip(points, dynamics.scans, strict=True)
        ]
        self.points_voxel = torch.from_numpy(np.stack(voxels)).to(dynamics.device)
        self.labelled = ~self.points_voxel.isnan().any(dim=-1)
        if not self.labelled.any():
            raise MedrlError("no scan is labelled with any landmark")
        landmarks = points.shape[1]
        if settings.landmark is not None:
            whole_rows("landmark", settings.landmark, 1, (landmarks,), single=True)
        self.info_spaces = {
            "scan": Space.choice(scans),
            "position_voxel": Space((3,), torch.int64),
            "position_world": Space((3,), torch.float64),
            "distance": Space(),
        }

    def given(self, count: int, **given: Any) -> dict[str, Tensor]:
        """What may be given: ``scan`` and ``landmark`` by number, ``start_world`` in RAS mm."""
        scans, landmarks = self.labelled.shape
        wanted = {name: value for name, value in given.items() if value is not None}
        rows = {}
        for name, value in wanted.items():
            if name == "start_world":
                rows[name] = number_rows(name, value, count, (3,))
            elif name in ("scan", "landmark"):
                limit = scans if name == "scan" else landmarks
                rows[name] = whole_rows(name, value, count, (limit,), single=True)
            else:
                raise MedrlError(f"an episode has no {name}: give scan, landmark or start_world")
        return {name: value.to(self._dynamics.device) for name, value in rows.items()}

    def begin(self, count: int, generator: Generator, **given: Tensor) -> SearchState:
        """Put agents at their starts: scan, landmark and place are drawn where not given.

        Raises:
            MedrlError: If no scan is labelled with the landmark, or not the one that is given.
        """
        scan, landmark = self._choose(count, generator, given.get("scan"), given.get("landmark"))
        if "start_world" in given:
            start = self._dynamics.to_voxel(scan, given["start_world"])
        else:
            start = self._random_start(scan, landmark, generator)
        state = self._dynamics.reset(scan, landmark, start)
        return self._descended(state) if self.settings.stop == "target" else state

    def reward(self, before: SearchState, action: Tensor, after: SearchState) -> Tensor:
        """How much nearer the move came to the landmark, see the class."""
        form = self.settings.reward
        stride = self._dynamics.strides[before.level][:, None]
        moved = self._dynamics.destination(before, action)
        goal = self.points_voxel[before.scan, before.landmark]
        nearer = potential((goal - moved) / stride, form)
        nearer = nearer - potential((goal - before.position) / stride, form)
        if self.settings.unit == "mm":
            power = 2 if form == "squared" else 1
            nearer = nearer * self._dynamics.spacings[before.level] ** power
        return nearer.float()

    def ended(self, after: SearchState) -> SearchState:
        """Being nearest ends a level, even on the last step allowed."""
        if self.settings.stop == "loop":
            return after
        after = self._descended(after)
        found = self._nearest(after) & (after.level == 0)
        return replace(after, status=torch.where(found, REACHED, after.status))

    def info(self, state: SearchState) -> dict[str, Tensor]:
        """Where agents are, and how far from their landmarks in mm."""
        distance = self._offset(state).norm(dim=-1) * self._dynamics.spacings[state.level]
        return {
            "scan": state.scan,
            "position_voxel": state.position,
            "position_world": self._dynamics.to_world(state.scan, state.position),
            "distance": distance.float(),
        }

    # Where agents begin --------------------------------------------------------------------------

    def _choose(
        self, count: int, generator: Generator, scan: Tensor | None, landmark: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Scan and landmark of every agent, drawn where not given, both (N,) int64."""
        labelled = self.labelled
        if landmark is None and self.settings.landmark is not None:
            landmark = torch.full((count,), self.settings.landmark, device=labelled.device)
        if scan is None:
            usable = labelled.any(dim=1).expand(count, -1)
            usable = usable if landmark is None else labelled.T[landmark]
            if not usable.any(dim=1).all():
                raise MedrlError("no scan is labelled with the landmark asked for")
            scan = self._draw(usable, generator)
        if landmark is None:
            if not labelled[scan].any(dim=1).all():
                raise MedrlError("the scan asked for is not labelled with any landmark")
            landmark = self._draw(labelled[scan], generator)
        elif not labelled[scan, landmark].all():
            raise MedrlError("the scan asked for is not labelled with the landmark asked for")
        return scan, landmark

    def _draw(self, usable: Tensor, generator: Generator) -> Tensor:
        """One of the columns that are true in each row of a mask, uniformly."""
        drawn = torch.multinomial(usable.float().cpu(), 1, generator=generator)
        return drawn[:, 0].to(usable.device)

    def _random_start(self, scan: Tensor, landmark: Tensor, generator: Generator) -> Tensor:
        share = torch.rand((len(scan), 3), generator=generator, dtype=torch.float64)
        share = share.to(self._dynamics.device)
        last = (self._dynamics.shapes[scan] - 1).double()
        if self.settings.start_radius is None:
            return share * last
        radius = self.settings.start_radius / float(self._dynamics.spacings[0])
        around = self.points_voxel[scan, landmark] + (2 * share - 1) * radius
        return torch.minimum(around.clamp(min=0), last)

    # Stopping by the truth -----------------------------------------------------------------------

    def _offset(self, state: SearchState) -> Tensor:
        """Landmarks minus positions, (N, 3) float64, in steps of the present levels."""
        stride = self._dynamics.strides[state.level][:, None]
        return (self.points_voxel[state.scan, state.landmark] - state.position) / stride

    def _nearest(self, state: SearchState) -> Tensor:
        """(N,) bool, agents still in the scan that cannot come nearer on their level."""
        inside = (state.status == ACTIVE) | (state.status == CAPPED)
        return inside & nearest_reached(self._offset(state))

    def _descended(self, state: SearchState) -> SearchState:
        """Agents sent down for as long as there is nothing left to do on their level."""
        for _ in range(self._dynamics.coarsest):
            rows = torch.nonzero(self._nearest(state) & (state.level > 0))[:, 0]
            if len(rows):
                onward = state.select(rows)
                state = state.put(rows, self._dynamics.descend(onward, onward.position))
        return state


__all__ = ["REACHED", "LandmarkTask", "RewardUnit", "StoppingRule", "TaskSettings"]
