"""How landmark agents move: six unit steps per scale, coarse to fine, each agent on its own.

Convention: positions are whole voxels of the pyramid's finest level, (i, j, k) in array order, on
the lattice of the agent's current scale. No ground truth and no network in here: whoever calls
:meth:`SearchDynamics.step` has chosen the actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

#: Unit step of each action: +x, -x, +y, -y, +z, -z (right, left, anterior, posterior, up, down).
MOVES = torch.tensor(
    [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.int64
)

#: What an agent is doing, or why it ended on its present scale.
WALKING, LOOPED, CAPPED, LEFT = range(4)
OUTCOMES = ("walking", "looped", "capped", "left the scan")


@dataclass(frozen=True, eq=False)
class SearchState:
    """A batch of N agents.

    Attributes:
        scan: (N,) int64, which scan each agent walks in.
        position: (N, 3) int64, voxels of the finest level.
        level: (N,) int64, pyramid level; 0 is the finest.
        steps: (N,) int64, steps taken on this level.
        visited: (N, max_steps + 1, 3) int64, positions on this level, valid up to ``steps``.
        status: (N,) int64, one of WALKING, LOOPED, CAPPED, LEFT.
        loop_start: (N,) int64, the step at which the final loop was entered, where LOOPED.
    """

    scan: Tensor
    position: Tensor
    level: Tensor
    steps: Tensor
    visited: Tensor
    status: Tensor
    loop_start: Tensor

    @property
    def walking(self) -> Tensor:
        """(N,) bool, the agents that still move."""
        return self.status == WALKING

    def answer_mask(self) -> Tensor:
        """(N, max_steps + 1) bool, the visited positions that make up each ended agent's answer.

        These are the positions of the final loop; for an agent that ended without one, the last
        position from which it moved.
        """
        index = torch.arange(self.visited.shape[1], device=self.visited.device)
        last = (self.steps - 1).clamp(min=0)[:, None]
        first = torch.where((self.status == LOOPED)[:, None], self.loop_start[:, None], last)
        return (index >= first) & (index <= last)


class SearchDynamics:
    """Transition and stopping rule of the multi-scale search (Ghesu et al. 2019).

    An agent ends on its scale when it comes back to a place where it has been on that scale (a
    loop of any length: under a deterministic policy it would go round for ever), when it has used
    up its steps, or when it has walked off the scan by more than the margin.
    """

    def __init__(
        self,
        shapes: Tensor,
        *,
        strides: Sequence[int],
        max_steps: int = 48,
        margin: int = 16,
    ) -> None:
        """Set up the walkable space.

        Args:
            shapes: (M, 3) int64, grids of the scans' finest levels.
            strides: Step of each level in voxels of the finest, finest first.
            max_steps: Steps allowed on one level.
            margin: How far outside the scan an agent may go, in voxels of the finest level.
        """
        self.shapes = shapes
        self.device = shapes.device
        self.strides = torch.tensor(list(strides), dtype=torch.int64, device=self.device)
        self.max_steps = max_steps
        self.margin = margin
        self._moves = MOVES.to(self.device)

    @property
    def coarsest(self) -> int:
        """Index of the level where a search begins."""
        return len(self.strides) - 1

    def snap(self, position: Tensor, level: Tensor) -> Tensor:
        """Nearest lattice point of a level.

        Args:
            position: (N, 3), float or int, voxels of the finest level.
            level: (N,) int64.

        Returns:
            (N, 3) int64.
        """
        stride = self.strides[level][:, None]
        return (position / stride).round().long() * stride

    def reset(self, scan: Tensor, position: Tensor, level: Tensor | None = None) -> SearchState:
        """Put N agents at their starts.

        Args:
            scan: (N,) int64, index into ``shapes``.
            position: (N, 3), voxels of the finest level; snapped to the level's lattice.
            level: (N,) int64; the coarsest if left out.

        Returns:
            The state, everyone walking.
        """
        count = len(scan)
        if level is None:
            level = torch.full((count,), self.coarsest, device=self.device)
        zeros = torch.zeros(count, dtype=torch.int64, device=self.device)
        visited = torch.zeros((count, self.max_steps + 1, 3), dtype=torch.int64, device=self.device)
        start = self.snap(position, level)
        visited[:, 0] = start
        return SearchState(scan, start, level, zeros, visited, zeros.clone(), zeros.clone())

    def step(self, state: SearchState, action: Tensor) -> SearchState:
        """Move the walking agents by one step; the others stay as they are.

        Args:
            state: N agents.
            action: (N,) int64 in 0..5; ignored for agents that no longer walk.

        Returns:
            The new state.
        """
        walking = state.walking
        rows = torch.arange(len(action), device=self.device)
        stride = self.strides[state.level][:, None]
        position = state.position + self._moves[action] * stride * walking[:, None]
        steps = state.steps + walking.long()

        index = torch.arange(self.max_steps + 1, device=self.device)
        seen = (state.visited == position[:, None]).all(dim=2) & (index < steps[:, None])
        looped = seen.any(dim=1)
        visited = state.visited.clone()
        visited[rows, steps] = position

        shape = self.shapes[state.scan]
        outside = ((position < -self.margin) | (position > shape - 1 + self.margin)).any(dim=1)
        status = torch.where(steps >= self.max_steps, CAPPED, WALKING)
        status = torch.where(looped, LOOPED, status)
        status = torch.where(outside, LEFT, status)
        return replace(
            state,
            position=position,
            steps=steps,
            visited=visited,
            status=torch.where(walking, status, state.status),
            loop_start=torch.where(walking & looped, seen.long().argmax(dim=1), state.loop_start),
        )

    def descend(self, state: SearchState, who: Tensor, position: Tensor) -> SearchState:
        """Send agents to the next finer level.

        Args:
            state: N agents.
            who: (N,) bool, the agents that go on; none of them on level 0.
            position: (N, 3), where they start there, voxels of the finest level (snapped).

        Returns:
            The new state, those agents walking again with a fresh count of steps.
        """
        level = state.level - who.long()
        start = torch.where(who[:, None], self.snap(position, level), state.position)
        visited = state.visited.clone()
        visited[who, 0] = start[who]
        return replace(
            state,
            position=start,
            level=level,
            steps=torch.where(who, 0, state.steps),
            visited=visited,
            status=torch.where(who, WALKING, state.status),
        )
