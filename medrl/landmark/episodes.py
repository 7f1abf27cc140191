"""Search for landmarks whose place is known: starts, rewards and stopping rules, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from medrl.errors import MedrlError
from medrl.landmark.dynamics import (
    CAPPED,
    LOOPED,
    OUTCOMES,
    WALKING,
    SearchDynamics,
    SearchState,
)
from medrl.landmark.rewards import RewardForm, nearest_reached, potential
from medrl.volume.pyramid import Pyramid
from medrl.volume.space import world_to_voxel

StoppingRule = Literal["target", "loop"]
RewardUnit = Literal["step", "mm"]

#: Status of an agent that has found its landmark, after those of :mod:`medrl.landmark.dynamics`.
REACHED = len(OUTCOMES)


@dataclass(frozen=True)
class EpisodeSettings:
    """Options of an episode.

    Attributes:
        reward: ``distance`` (Ghesu 2016) or ``squared`` (Ghesu 2019).
        unit: Rewards in steps of the scale, or in mm (``squared``: mm^2).
        stop: Stopping rule, see :class:`medrl.landmark.env.LandmarkEnv`.
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


class Episodes:
    """Begins and advances episodes of N agents in M labelled scans; keeps no state itself."""

    def __init__(
        self, pyramids: Sequence[Pyramid], points_world: ArrayLike, settings: EpisodeSettings
    ) -> None:
        """Set up the walkable space and the truth.

        Args:
            pyramids: M scans of the same spacings, on one device.
            points_world: (M, K, 3) or, for one scan, (K, 3); RAS mm, NaN where not labelled.
            settings: Options.

        Raises:
            MedrlError: If scans and landmarks do not fit each other.
        """
        self.settings = settings
        self.device = pyramids[0].levels[0].device
        points = np.asarray(points_world, dtype=np.float64)
        points = points[None] if points.ndim == 2 else points
        if points.ndim != 3 or points.shape[0] != len(pyramids) or points.shape[2] != 3:
            raise MedrlError(
                f"points_world must be ({len(pyramids)}, landmarks, 3), not {points.shape}"
            )
        affines = [pyramid.affines[0] for pyramid in pyramids]
        voxels = [world_to_voxel(p, affine) for p, affine in zip(points, affines, strict=True)]
        self.points_voxel = torch.from_numpy(np.stack(voxels)).to(self.device)
        self.labelled = ~self.points_voxel.isnan().any(dim=-1)
        if not self.labelled.any():
            raise MedrlError("no scan is labelled with any landmark")
        self.world_from_voxel = torch.from_numpy(np.stack(affines)).to(self.device)
        self.spacings = torch.tensor(pyramids[0].spacings, device=self.device)
        shapes = [list(pyramid.levels[0].shape[1:]) for pyramid in pyramids]
        self.dynamics = SearchDynamics(
            torch.tensor(shapes, device=self.device),
            strides=pyramids[0].strides,
            max_steps=settings.max_steps,
            margin=settings.margin,
        )

    def begin(
        self,
        count: int,
        generator: Generator,
        *,
        scan: int | ArrayLike | None = None,
        landmark: int | ArrayLike | None = None,
        start_world: ArrayLike | None = None,
    ) -> tuple[SearchState, Tensor]:
        """Put N agents at the start of an episode.

        Args:
            count: N.
            generator: Source of randomness, on the CPU.
            scan: One for all or (N,); drawn if None.
            landmark: One for all or (N,); drawn among the scan's if None.
            start_world: (3,) or (N, 3), RAS mm; drawn if None.

        Returns:
            The state, and what each agent looks for, (N,) int64.

        Raises:
            MedrlError: If there is no such scan or landmark, or the scan is not labelled with it.
        """
        scans, goals = self._choose(count, generator, scan, landmark)
        if start_world is None:
            start = self._random_start(scans, goals, generator)
        else:
            start = self._given_start(scans, start_world)
        state = self.dynamics.reset(scans, start)
        if self.settings.stop == "target":
            state = self._descend_by_target(state, goals)
        return state, goals

    def advance(
        self, state: SearchState, landmark: Tensor, action: Tensor
    ) -> tuple[SearchState, Tensor]:
        """Move the walking agents and apply the stopping rule.

        Args:
            state: N agents.
            landmark: (N,) int64, what they look for.
            action: (N,) int64.

        Returns:
            The new state, whose status may also be :data:`REACHED`, and the rewards, (N,) float32.
        """
        after = self.dynamics.step(state, action)
        form = self.settings.reward
        nearer = potential(self.offset(after, landmark), form)
        nearer = nearer - potential(self.offset(state, landmark), form)
        if self.settings.unit == "mm":
            nearer = nearer * self.spacings[state.level] ** (2 if form == "squared" else 1)
        if self.settings.stop == "target":
            return self._next_by_target(after, landmark), nearer.float()
        return self._next_by_loop(after), nearer.float()

    def offset(self, state: SearchState, landmark: Tensor) -> Tensor:
        """Landmarks minus positions, (N, 3) float64, in steps of the present levels."""
        stride = self.dynamics.strides[state.level][:, None]
        return (self.points_voxel[state.scan, landmark] - state.position) / stride

    def distance(self, state: SearchState, landmark: Tensor) -> Tensor:
        """From agents to their landmarks, (N,) float64, mm."""
        return self.offset(state, landmark).norm(dim=-1) * self.spacings[state.level]

    def position_world(self, state: SearchState) -> Tensor:
        """Where agents stand, (N, 3) float64, RAS mm."""
        affine = self.world_from_voxel[state.scan]
        turned = torch.einsum("nij,nj->ni", affine[:, :3, :3], state.position.double())
        return turned + affine[:, :3, 3]

    # Where agents begin --------------------------------------------------------------------------

    def _choose(
        self,
        count: int,
        generator: Generator,
        scan: int | ArrayLike | None,
        landmark: int | ArrayLike | None,
    ) -> tuple[Tensor, Tensor]:
        """Scan and landmark of every agent, drawn where not given, both (N,) int64."""
        labelled = self.labelled
        landmark = self.settings.landmark if landmark is None else landmark
        goals = None
        if landmark is not None:
            goals = self._index("landmark", landmark, count, labelled.shape[1])
        if scan is not None:
            scans = self._index("scan", scan, count, labelled.shape[0])
        else:
            usable = labelled.any(dim=1).expand(count, -1) if goals is None else labelled.T[goals]
            if not usable.any(dim=1).all():
                raise MedrlError("no scan is labelled with the landmark asked for")
            scans = self._draw(usable, generator)
        if goals is None:
            if not labelled[scans].any(dim=1).all():
                raise MedrlError("the scan asked for is not labelled with any landmark")
            goals = self._draw(labelled[scans], generator)
        elif not labelled[scans, goals].all():
            raise MedrlError("the scan asked for is not labelled with the landmark asked for")
        return scans, goals

    def _index(self, what: str, value: int | ArrayLike, count: int, choices: int) -> Tensor:
        index = torch.as_tensor(np.asarray(value, dtype=np.int64), device=self.device)
        if index.shape not in ((), (count,)) or not ((index >= 0) & (index < choices)).all():
            raise MedrlError(f"{what} must lie in 0..{choices - 1}: one for all agents or {count}")
        return index.expand(count).clone()

    def _draw(self, usable: Tensor, generator: Generator) -> Tensor:
        """One of the columns that are true in each row of a mask, uniformly."""
        drawn = torch.multinomial(usable.float().cpu(), 1, generator=generator)
        return drawn[:, 0].to(self.device)

    def _random_start(self, scan: Tensor, landmark: Tensor, generator: Generator) -> Tensor:
        share = torch.rand((len(scan), 3), generator=generator, dtype=torch.float64)
        share = share.to(self.device)
        last = (self.dynamics.shapes[scan] - 1).double()
        if self.settings.start_radius is None:
            return share * last
        radius = self.settings.start_radius / float(self.spacings[0])
        around = self.points_voxel[scan, landmark] + (2 * share - 1) * radius
        return torch.minimum(around.clamp(min=0), last)

    def _given_start(self, scan: Tensor, start_world: ArrayLike) -> Tensor:
        world = torch.as_tensor(np.asarray(start_world, dtype=np.float64), device=self.device)
        if world.shape not in ((3,), (len(scan), 3)) or not world.isfinite().all():
            raise MedrlError(f"start_world must be (3,) or ({len(scan)}, 3) finite numbers")
        affine = self.world_from_voxel[scan]
        return torch.linalg.solve(affine[:, :3, :3], world - affine[:, :3, 3])

    # Stopping rules ------------------------------------------------------------------------------

    def _next_by_target(self, state: SearchState, landmark: Tensor) -> SearchState:
        """Loops do not count; being nearest does, even on the last step allowed."""
        capped = torch.where(state.steps >= self.settings.max_steps, CAPPED, WALKING)
        status = torch.where(state.status == LOOPED, capped, state.status)
        state = self._descend_by_target(replace(state, status=status), landmark)
        found = self._nearest(state, landmark) & (state.level == 0)
        return replace(state, status=torch.where(found, REACHED, state.status))

    def _descend_by_target(self, state: SearchState, landmark: Tensor) -> SearchState:
        """Send agents down for as long as there is nothing left to do on their level."""
        for _ in range(self.dynamics.coarsest):
            onward = self._nearest(state, landmark) & (state.level > 0)
            state = self.dynamics.descend(state, onward, state.position)
        return state

    def _nearest(self, state: SearchState, landmark: Tensor) -> Tensor:
        """(N,) bool, agents still in the scan that cannot come nearer on their level."""
        inside = (state.status == WALKING) | (state.status == CAPPED)
        return inside & nearest_reached(self.offset(state, landmark))

    def _next_by_loop(self, state: SearchState) -> SearchState:
        """On to the next level from the mean of the final loop."""
        onward = ((state.status == LOOPED) | (state.status == CAPPED)) & (state.level > 0)
        mask = state.answer_mask()[..., None]
        mean = (state.visited * mask).sum(dim=1) / mask.sum(dim=1)
        return self.dynamics.descend(state, onward, mean)


__all__ = ["REACHED", "EpisodeSettings", "Episodes", "RewardUnit", "StoppingRule"]
