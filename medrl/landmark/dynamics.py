"""How landmark agents move: six unit steps per scale, coarse to fine, each agent on its own.

Convention: positions are whole voxels of the pyramid's finest level, (i, j, k) in array order, on
the lattice of the agent's present scale. Level 0 is the finest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrl.agents import ACTIVE, Dynamics, Places, Rows, Space, State
from medrl.errors import MedrlError
from medrl.roi import crop
from medrl.volume.pyramid import Pyramid

#: Unit step of each action: +x, -x, +y, -y, +z, -z (right, left, anterior, posterior, up, down).
MOVES = torch.tensor(
    [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.int64
)

#: Why an agent has ended.
LOOPED, CAPPED, LEFT = 1, 2, 3

#: Rounding in resampling and smoothing may overshoot the declared intensities by this.
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class SearchState(State):
    """N agents.

    Attributes:
        scan: (N,) int64, which scan each walks in.
        landmark: (N,) int64, what it looks for.
        position: (N, 3) int64, voxels of the finest level.
        level: (N,) int64, pyramid level.
        steps: (N,) int64, steps taken on this level.
        visited: (N, max_steps + 1, 3) int64, positions on this level, valid up to ``steps``.
        estimates: (N, max_steps + 1, 4) float32, where the agent saw its landmark from there: the
            offset in steps, and the log of its expected error; valid before ``steps``.
        loop_start: (N,) int64, the step at which the final loop was entered, where LOOPED.
        origin: (N, 3) float64, the answer of the level before; on the first level the start.
    """

    scan: Tensor
    landmark: Tensor
    position: Tensor
    level: Tensor
    steps: Tensor
    visited: Tensor
    estimates: Tensor
    loop_start: Tensor
    origin: Tensor

    def answer_mask(self) -> Tensor:
        """(N, max_steps + 1) bool, the visited positions that an ended agent's answer comes from.

        These are the positions of the final loop; for an agent that ended without one, the last
        position from which it moved.
        """
        index = torch.arange(self.visited.shape[1], device=self.device)
        last = (self.steps - 1).clamp(min=0)[:, None]
        first = torch.where((self.status == LOOPED)[:, None], self.loop_start[:, None], last)
        return (index >= first) & (index <= last)


@dataclass(frozen=True, eq=False)
class Answer(Rows):
    """Where N agents say that their landmarks are.

    Attributes:
        position: (N, 3) float64, voxels of the finest level, sub-voxel.
        log_scale: (N,) float64, log of the expected absolute error per axis, steps of the level.
        spread: (N,) float64, root mean square distance, in the same steps, between the estimates
            that the answer was averaged from.
    """

    position: Tensor
    log_scale: Tensor
    spread: Tensor


class SearchDynamics(Dynamics[SearchState]):
    """Multi-scale search in M scans (Ghesu et al. 2019).

    An agent's level ends when it comes back to a place where it has been on that level (a loop of
    any length: under a deterministic policy it would go round for ever), or when it has used up
    its steps. It goes on to the next finer one at the mean, over the loop, of where it saw its
    landmark from there, weighted by how sure it was; without estimates, at the mean of the loop.
    On the finest level this ends the agent, ``looped`` or ``capped``. One that walks off the scan
    by more than the margin has ended as well, on whatever level.

    Attributes:
        scans: The M pyramids.
        strides: (L,) int64, step of each level in voxels of the finest.
        spacings: (L,) float64, the same in mm.
        shapes: (M, 3) int64, grids of the finest levels.
        affines: (M, 4, 4) float64, voxels of the finest levels to RAS mm.
    """

    outcomes = ("active", "looped", "capped", "left the scan")
    truncations = (LOOPED, CAPPED)
    action_space = Space.choice(len(MOVES))
    extra_spaces = {"estimate": Space((4,))}  # noqa: RUF012 - read only, as declared above

    def __init__(
        self,
        scans: Sequence[Pyramid],
        *,
        landmarks: int,
        window: int = 25,
        max_steps: int = 48,
        margin: int = 16,
        intensities: tuple[float, float] = (0.0, 1.5),
        loops: bool = True,
        descends: bool = True,
    ) -> None:
        """Walk in these scans.

        Args:
            scans: M of them, of the same spacings and number of channels, on one device.
            landmarks: How many there are to look for.
            window: Side s of the window in voxels.
            max_steps: Steps allowed on one level.
            margin: How far outside the scan an agent may go, in voxels of the finest level.
            intensities: Smallest and largest value in the scans; the default is what medrl's
                normalisation guarantees.
            loops: A loop ends a level.
            descends: An agent whose level has ended goes on to the next finer one, instead of
                having ended itself.

        Raises:
            MedrlError: If there is no scan, or they do not fit each other.
        """
        if not scans:
            raise MedrlError("agents need at least one scan to walk in")
        if len({(p.spacings, p.levels[0].shape[0], p.levels[0].device) for p in scans}) > 1:
            raise MedrlError("all scans need the same spacings, number of channels and device")
        self.scans = list(scans)
        self.device = scans[0].levels[0].device
        self.strides = torch.tensor(scans[0].strides, device=self.device)
        self.spacings = torch.tensor(scans[0].spacings, dtype=torch.float64, device=self.device)
        grids = [list(pyramid.levels[0].shape[1:]) for pyramid in scans]
        self.shapes = torch.tensor(grids, device=self.device)
        affines = np.stack([pyramid.affines[0] for pyramid in scans])
        self.affines = torch.from_numpy(affines).to(self.device)
        self.window = window
        self.max_steps = max_steps
        self.margin = margin
        self._loops = loops
        self._descends = descends
        self._moves = MOVES.to(self.device)
        low, high = intensities
        shape = (scans[0].levels[0].shape[0], window, window, window)
        self.observation_spaces = {
            "window": Space(shape, low=low - _TOLERANCE, high=high + _TOLERANCE),
            "level": Space.choice(len(self.strides)),
            "landmark": Space.choice(landmarks),
        }

    @property
    def coarsest(self) -> int:
        """Index of the level where a search begins."""
        return len(self.strides) - 1

    def replace_scan(self, index: int, scan: Pyramid) -> None:
        """Put another scan in the place of one, as training does now and then."""
        self.scans[index] = scan
        self.shapes[index] = torch.tensor(scan.levels[0].shape[1:])
        self.affines[index] = torch.from_numpy(scan.affines[0])

    def reset(
        self, scan: Tensor, landmark: Tensor, position: Tensor, level: Tensor | None = None
    ) -> SearchState:
        """Put N agents at their starts.

        Args:
            scan: (N,) int64, which scan each walks in.
            landmark: (N,) int64, what it looks for.
            position: (N, 3), voxels of the finest level; snapped to the level's lattice.
            level: (N,) int64; the coarsest if left out.
        """
        count = len(scan)
        if level is None:
            level = torch.full((count,), self.coarsest, device=self.device)
        start = self._snap(position, level)
        visited = torch.zeros((count, self.max_steps + 1, 3), dtype=torch.int64, device=self.device)
        visited[:, 0] = start
        zeros = torch.zeros(count, dtype=torch.int64, device=self.device)
        return SearchState(
            status=zeros,
            scan=scan,
            landmark=landmark,
            position=start,
            level=level,
            steps=zeros.clone(),
            visited=visited,
            estimates=torch.zeros((count, self.max_steps + 1, 4), device=self.device),
            loop_start=zeros.clone(),
            origin=start.double(),
        )

    def observe(self, state: SearchState) -> dict[str, Tensor]:
        """The window around each agent at its present scale, that scale, and its landmark."""
        window = self.windows(state.scan, state.position, state.level)
        return {"window": window, "level": state.level, "landmark": state.landmark}

    def windows(self, scan: Tensor, position: Tensor, level: Tensor | int) -> Tensor:
        """What there is to see at some places; outside a scan its background.

        Args:
            scan: (R,) int64.
            position: (R, 3) int64, voxels of the finest level.
            level: (R,) int64, or one for all.

        Returns:
            (R, C, s, s, s) float32; one voxel is one step.
        """
        centers = position // self.strides[level].reshape(-1, 1)
        return crop(self.scans, centers, self.window, level=level, scan=scan)

    def step(
        self, state: SearchState, action: Tensor, *, estimate: Tensor | None = None, **_: Any
    ) -> SearchState:
        """Let the active agents move by one voxel of their level; the others stay as they are.

        Args:
            state: N agents.
            action: (N,) int64, index into :data:`MOVES`.
            estimate: (N, 4), where they see their landmarks from where they stand: the offset in
                steps of the level, and the log of its expected absolute error per axis.
        """
        if not state.active.all():
            rows = torch.nonzero(state.active)[:, 0]
            own = None if estimate is None else estimate[rows]
            return state.put(rows, self.step(state.select(rows), action[rows], estimate=own))
        after = self._moved(state, action, estimate)
        if self._descends:
            ended = (after.status == LOOPED) | (after.status == CAPPED)
            rows = torch.nonzero(ended & (after.level > 0))[:, 0]
            if len(rows):
                onward = after.select(rows)
                after = after.put(rows, self.descend(onward, self.answer(onward).position))
        return after

    def destination(self, state: SearchState, action: Tensor) -> Tensor:
        """Where a move leads, (N, 3) int64, before anyone goes on to another level."""
        return state.position + self._moves[action] * self.strides[state.level][:, None]

    def descend(self, state: SearchState, position: Tensor) -> SearchState:
        """Send agents to the next finer level; none of them may be on level 0.

        Args:
            state: N agents.
            position: (N, 3), where they start there, voxels of the finest level (snapped).

        Returns:
            The new state, all active with a fresh count of steps.
        """
        level = state.level - 1
        start = self._snap(position, level)
        visited = state.visited.clone()
        visited[:, 0] = start
        return replace(
            state,
            status=torch.zeros_like(state.status),
            position=start,
            level=level,
            steps=torch.zeros_like(state.steps),
            visited=visited,
            origin=position.double(),
        )

    def answer(self, state: SearchState, further: tuple[Tensor, Tensor] | None = None) -> Answer:
        """Precision-weighted mean of where agents that have ended saw their landmarks.

        Args:
            state: N agents.
            further: Other places (N, P, 3) int64 that count as well, in voxels of the finest
                level, and estimates (N, P, 4) made there.
        """
        places, estimates, counts = state.visited, state.estimates, state.answer_mask()
        if further is not None:
            places = torch.cat([places, further[0]], dim=1)
            estimates = torch.cat([estimates, further[1]], dim=1)
            counts = torch.cat([counts, torch.ones_like(further[0][..., 0], dtype=torch.bool)], 1)
        stride = self.strides[state.level][:, None, None].double()
        seen = (places + estimates[..., :3] * stride) / stride
        log_scale = estimates[..., 3]
        weight = torch.where(counts, torch.exp(-2 * log_scale.double()), 0.0)
        weight = weight / weight.sum(dim=1, keepdim=True)
        mean = (seen * weight[..., None]).sum(dim=1)
        scatter = ((seen - mean[:, None]).square().sum(dim=-1) * weight).sum(dim=1)
        return Answer(mean * stride[:, 0], (log_scale * weight).sum(dim=1), scatter.sqrt())

    def places(self, state: SearchState) -> Places:
        """Where agents are."""
        return Places(self.to_world(state.scan, state.position), self.spacings[state.level])

    def to_world(self, scan: Tensor, position: Tensor) -> Tensor:
        """Positions (N, 3) in voxels of scans' finest levels as RAS mm, float64."""
        affine = self.affines[scan]
        turned = torch.einsum("nij,nj->ni", affine[:, :3, :3], position.double())
        return turned + affine[:, :3, 3]

    def to_voxel(self, scan: Tensor, position_world: Tensor) -> Tensor:
        """RAS mm (N, 3) as voxels of scans' finest levels, float64."""
        affine = self.affines[scan]
        return torch.linalg.solve(affine[:, :3, :3], position_world - affine[:, :3, 3])

    def _snap(self, position: Tensor, level: Tensor) -> Tensor:
        """Nearest lattice points (N, 3) int64 of levels (N,)."""
        stride = self.strides[level][:, None]
        return (position / stride).round().long() * stride

    def _moved(self, state: SearchState, action: Tensor, estimate: Tensor | None) -> SearchState:
        """Agents, all active, after one step, before anyone goes on to another level."""
        rows = torch.arange(len(action), device=self.device)
        estimates = state.estimates.clone()
        estimates[rows, state.steps] = 0.0 if estimate is None else estimate.to(estimates)
        position = self.destination(state, action)
        steps = state.steps + 1
        index = torch.arange(self.max_steps + 1, device=self.device)
        seen = (state.visited == position[:, None]).all(dim=2) & (index < steps[:, None])
        visited = state.visited.clone()
        visited[rows, steps] = position

        shape = self.shapes[state.scan]
        outside = ((position < -self.margin) | (position > shape - 1 + self.margin)).any(dim=1)
        status = torch.where(steps >= self.max_steps, CAPPED, ACTIVE)
        if self._loops:
            status = torch.where(seen.any(dim=1), LOOPED, status)
        return replace(
            state,
            status=torch.where(outside, LEFT, status),
            position=position,
            steps=steps,
            visited=visited,
            estimates=estimates,
            loop_start=torch.where(seen.any(dim=1), seen.long().argmax(dim=1), state.loop_start),
        )


__all__ = ["CAPPED", "LEFT", "LOOPED", "MOVES", "Answer", "SearchDynamics", "SearchState"]
