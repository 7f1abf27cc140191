"""How agents that look for points of an earlier scan walk in a later one, coarse to fine.

Convention: the later scan is seen through the registration that agents start from, so that a point
at world x of the earlier scan lies at ``start @ (x + d)`` of the later one, d being the agent's
*displacement*: RAS mm of the earlier scan, zero where the registration is right. Offsets are whole
steps of the present scale along the array axes of the earlier scan's pyramid. Level 0 is the
finest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.agents import ACTIVE, Dynamics, Places, Space, State
from medrl.errors import MedrlError
from medrl.roi import crop
from medrl.tracking.visits.descriptors import REACH, mind_ssc, offset_distances
from medrl.tracking.visits.neighbours import Neighbourhood, predicted
from medrl.volume.pyramid import Pyramid

#: +i, -i, +j, -j, +k, -k, and staying.
MOVES = torch.tensor(
    [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1], [0, 0, 0]]
)
STAY = len(MOVES) - 1
#: Why an agent has ended: its team settled, or ran out of steps.
SETTLED, CAPPED = 1, 2
#: Agents whose windows are cropped at a time.
_CHUNK = 96


@dataclass(frozen=True)
class View:
    """What agents see, and how far they may walk.

    Attributes:
        patch: Radius in voxels of what is compared.
        dilation: Every so many voxels of it count.
        search: Radius in steps of what an agent sees of the later scan around where it begins.
        rounds: Steps for which a team decides before it may settle.
        max_steps: Steps allowed on a level.
    """

    patch: int = 4
    dilation: int = 2
    search: int = 4
    rounds: int = 8
    max_steps: int = 24


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scans of a patient.

    Attributes:
        earlier: Pyramid of the scan in which points are marked.
        later: Pyramid of the other, of the same spacings.
        start_world: (4, 4) earlier to later world, RAS mm: where agents begin.
    """

    earlier: Pyramid
    later: Pyramid
    start_world: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VisitState(State):
    """N agents.

    Attributes:
        agent: (N,) int64, number of each, ascending: neighbours are named by it.
        pair: (N,) int64, which scans it compares.
        point: (N, 3) float64, its point, world of the earlier scan.
        level: (N,) int64.
        steps: (N,) int64, taken on this level.
        origin: (N, 3) float64, displacement in mm at which it began on this level.
        offset: (N, 3) int64, steps from there.
        sees: (N, S, S, S) float32, how unlike the two scans are at every offset within the search
            radius, 0 to 1.
        message: (N, 3) float64, the displacement that it tells its neighbours.
        heard: (N, 3) float64, the displacement that its neighbours expect of it.
        quiet: (N,) bool, it stayed, and told what it had told before.
        neighbours: (N, K) int64, agents that it hears; its own number where there are fewer.
    """

    agent: Tensor
    pair: Tensor
    point: Tensor
    level: Tensor
    steps: Tensor
    origin: Tensor
    offset: Tensor
    sees: Tensor
    message: Tensor
    heard: Tensor
    quiet: Tensor
    neighbours: Tensor


class VisitDynamics(Dynamics[VisitState]):
    """Teams of agents, each of which looks for one point, in M pairs of scans.

    An agent has a window around its point in the earlier scan and one around where it stands in
    the later scan; what it sees is how unlike they are at each offset. It tells its neighbours the
    displacement that it thinks right, and hears what theirs would be at its own place. A level
    ends for a team at once: when all its agents are quiet, or out of steps; they go on to the next
    finer one from where they stand.

    Attributes:
        pairs: The M pairs.
        view: What agents see.
        spacings: (L,) float64, mm of a step of each level.
        axes: (M, 3, 3) float64, unit vectors of the earlier scans' array axes in their world.
    """

    outcomes = ("active", "settled", "capped")
    action_space = Space.choice(len(MOVES))
    masked = True

    def __init__(self, pairs: Sequence[Pair], *, view: View | None = None) -> None:
        """Walk in these pairs.

        Args:
            pairs: M of them, all pyramids of the same spacings.
            view: What agents see.

        Raises:
            MedrlError: If there is none, or spacings differ.
        """
        if not pairs:
            raise MedrlError("agents need at least one pair of scans")
        if len({p.spacings for pair in pairs for p in (pair.earlier, pair.later)}) > 1:
            raise MedrlError("all scans need pyramids of the same spacings")
        self.pairs = list(pairs)
        self.view = view or View()
        self.spacings = torch.tensor(pairs[0].earlier.spacings, dtype=torch.float64)
        affines = np.stack([pair.earlier.affines[0][:3, :3] for pair in pairs])
        self.axes = torch.from_numpy(affines) / self.spacings[0]
        side = 2 * self.view.search + 1
        self.observation_spaces: Mapping[str, Space] = {
            "sees": Space((side, side, side), low=0.0, high=1.0),
            "offset": Space((3,)),
            "heard": Space((3,)),
            "level": Space.choice(len(self.spacings)),
        }
        self.extra_spaces: Mapping[str, Space] = {"message": Space((3,), torch.float64)}
        self._moves = MOVES

    @property
    def coarsest(self) -> int:
        """Index of the level where agents begin."""
        return len(self.spacings) - 1

    def reset(
        self, pair: Tensor, point: Tensor, neighbours: Tensor, displacement: Tensor | None = None
    ) -> VisitState:
        """Put N agents at their starts.

        Args:
            pair: (N,) int64, which scans.
            point: (N, 3) float64, world of the earlier scan.
            neighbours: (N, K) int64, rows of those that each hears.
            displacement: (N, 3) float64 in mm; zero if left out.
        """
        count = len(point)
        begin = torch.zeros(count, 3, dtype=torch.float64) if displacement is None else displacement
        zeros = torch.zeros(count, dtype=torch.int64)
        side = 2 * self.view.search + 1
        state = VisitState(
            status=zeros,
            agent=torch.arange(count),
            pair=pair,
            point=point,
            level=torch.full((count,), self.coarsest),
            steps=zeros.clone(),
            origin=begin,
            offset=torch.zeros(count, 3, dtype=torch.int64),
            sees=torch.zeros(count, side, side, side),
            message=begin.clone(),
            heard=begin.clone(),
            quiet=torch.zeros(count, dtype=torch.bool),
            neighbours=neighbours,
        )
        return self._arrived(state)

    def observe(self, state: VisitState) -> dict[str, Tensor]:
        """What agents see, where they stand in it, and where their neighbours expect them.

        Offsets are in steps from the middle of what they see.
        """
        return {
            "sees": state.sees,
            "offset": state.offset.float(),
            "heard": self.to_steps(state, state.heard).float(),
            "level": state.level,
        }

    def allowed(self, state: VisitState) -> Tensor:
        """(N, 7) bool: no step leads out of what an agent sees."""
        after = state.offset[:, None] + self._moves
        return (after.abs() <= self.view.search).all(dim=2)

    def step(
        self, state: VisitState, action: Tensor, *, message: Tensor | None = None, **_: Any
    ) -> VisitState:
        """Let the active agents move by one step of their level; the others stay as they are.

        Args:
            state: N agents.
            action: (N,) int64, index into :data:`MOVES`.
            message: (N, 3) float64, the displacement in mm that each tells its neighbours; where
                it stands, if left out.
        """
        if not state.active.all():
            rows = torch.nonzero(state.active)[:, 0]
            own = None if message is None else message[rows]
            return state.put(rows, self.step(state.select(rows), action[rows], message=own))
        offset = (state.offset + self._moves[action]).clamp(-self.view.search, self.view.search)
        after = replace(state, offset=offset, steps=state.steps + 1)
        told = self.displacement(after) if message is None else message
        same = (told - state.message).norm(dim=1) < 0.1 * self.spacings[state.level]
        after = replace(after, message=told, quiet=same & (action == STAY))
        after = replace(after, heard=self.hear(after))
        return self._descended(after)

    def displacement(self, state: VisitState) -> Tensor:
        """Where agents stand, (N, 3) float64 in mm."""
        return state.origin + self.to_mm(state, state.offset.double())

    def to_mm(self, state: VisitState, steps: Tensor) -> Tensor:
        """Offsets (N, 3) in steps as displacements from nowhere, in mm."""
        world = torch.einsum("nij,nj->ni", self.axes[state.pair], steps)
        return world * self.spacings[state.level][:, None]

    def to_steps(self, state: VisitState, displacement: Tensor) -> Tensor:
        """Displacements (N, 3) in mm as steps from the middle of what agents see."""
        apart = displacement - state.origin
        array = torch.linalg.solve(self.axes[state.pair], apart)
        return array / self.spacings[state.level][:, None]

    def hear(self, state: VisitState) -> Tensor:
        """What displacement the messages of its neighbours make likely for each, (N, 3) in mm."""
        return predicted(self.neighbourhood(state), state.message, certainty(state.sees))

    def neighbourhood(self, state: VisitState) -> Neighbourhood:
        """Who hears whom among these agents."""
        row = torch.searchsorted(state.agent, state.neighbours).clamp(max=len(state) - 1)
        there = (state.agent[row] == state.neighbours) & (state.neighbours != state.agent[:, None])
        return Neighbourhood(row, there, state.point[row] - state.point[:, None])

    def later_world(self, state: VisitState, displacement: Tensor) -> Tensor:
        """Displacements (N, 3) in mm as places in the later scan, (N, 3) RAS mm."""
        starts = torch.from_numpy(np.stack([pair.start_world for pair in self.pairs]))[state.pair]
        place = state.point + displacement
        return torch.einsum("nij,nj->ni", starts[:, :3, :3], place) + starts[:, :3, 3]

    def places(self, state: VisitState) -> Places:
        """Where agents stand in the later scan."""
        where = self.later_world(state, self.displacement(state))
        return Places(where, self.spacings[state.level])

    def looks(self, state: VisitState) -> Tensor:
        """How unlike the scans are at every offset around the agents' origins, (N, S, S, S)."""
        parts = [self._looks(state.select(rows)) for rows in torch.arange(len(state)).split(_CHUNK)]
        return torch.cat(parts)

    def _looks(self, state: VisitState) -> Tensor:
        out = torch.empty_like(state.sees)
        for number in state.pair.unique().tolist():
            for level in state.level[state.pair == number].unique().tolist():
                rows = torch.nonzero((state.pair == number) & (state.level == level))[:, 0]
                out[rows] = self._look(self.pairs[number], level, state.select(rows))
        return out

    def _look(self, pair: Pair, level: int, state: VisitState) -> Tensor:
        """What agents of one pair and level see."""
        own = pair.earlier.affines[level]
        through = np.linalg.inv(pair.later.affines[level]) @ pair.start_world
        turn = torch.from_numpy((through @ own)[:3, :3].copy())
        at = _mapped(np.linalg.inv(own), state.point)
        there = _mapped(through, state.point + state.origin)
        side = 2 * (self.view.patch + REACH) + 1
        patch = crop(pair.earlier, at, side, level=level)
        around = crop(
            pair.later, there, side + 2 * self.view.search, level=level, rotation=turn.float()
        )
        return offset_distances(
            mind_ssc(patch), mind_ssc(around), dilation=self.view.dilation
        ).clamp(0.0, 1.0)

    def _arrived(self, state: VisitState) -> VisitState:
        """Agents that have just begun on a level, with what they see and hear there."""
        seen = replace(state, sees=self.looks(state))
        return replace(seen, heard=self.hear(seen))

    def _descended(self, state: VisitState) -> VisitState:
        """Teams that are quiet or out of steps go on to the next level, or end."""
        restless = torch.zeros(len(self.pairs), dtype=torch.int64)
        waits = ~state.quiet | (state.steps < self.view.rounds)
        restless = restless.index_add(0, state.pair, waits.long())[state.pair] > 0
        capped = state.steps >= self.view.max_steps
        done = capped | ~restless
        last = done & (state.level == 0)
        status = torch.where(last, torch.where(restless, CAPPED, SETTLED), ACTIVE)
        state = replace(state, status=status)
        rows = torch.nonzero(done & ~last)[:, 0]
        if not len(rows):
            return state
        onward = state.select(rows)
        onward = replace(
            onward,
            level=onward.level - 1,
            steps=torch.zeros_like(onward.steps),
            origin=onward.message,
            offset=torch.zeros_like(onward.offset),
            quiet=torch.zeros_like(onward.quiet),
        )
        return state.put(rows, self._arrived(onward))


def certainty(sees: Tensor) -> Tensor:
    """How far the best offset stands out from all that an agent sees, (N,) from (N, S, S, S)."""
    flat = sees.flatten(1)
    return (flat.median(dim=1).values - flat.amin(dim=1)).double().clamp(min=1e-3)


def _mapped(matrix: NDArray[np.floating[Any]], points: Tensor) -> Tensor:
    turn = torch.from_numpy(matrix[:3, :3].copy())
    return points @ turn.T + torch.from_numpy(matrix[:3, 3].copy())
