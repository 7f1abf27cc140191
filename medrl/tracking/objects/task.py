"""What agents of tracks are worth: the truth about detections, rewards, and what was right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from medrl.agents.groups import shared_reward
from medrl.agents.task import Task
from medrl.errors import MedrlError
from medrl.tracking.objects.dynamics import ENDED, TrackDynamics, TrackState


@dataclass(frozen=True)
class Rewards:
    """What a frame is worth: the change of the numerator of MOTA, agent by agent.

    An agent gets the difference between the numerator with it and without it (difference rewards,
    Wolpert and Tumer 2001): a matched object counts as found, and is not missed, which is 2.

    Attributes:
        switch: lambda, what an identity switch costs.
        false: What a false detection costs that is taken for an object.
        idle: What a frame costs in which an agent waits for an object that does not come back.
        lineage: What a division costs that was not seen, or seen where there was none.
        shared: All agents of a film get the mean of their rewards (for comparison).
    """

    switch: float = 3.0
    false: float = 1.0
    idle: float = 0.1
    lineage: float = 1.0
    shared: bool = False


class Truth(NamedTuple):
    """The truth about the detections of a film.

    Attributes:
        track: (D,) identity of each, -1 where there is nothing.
        parent: Mothers by identity.
    """

    track: NDArray[np.int64]
    parent: Mapping[int, int]


class TrackTask(Task[TrackState]):
    """Tracks in films whose objects are known."""

    def __init__(
        self,
        dynamics: TrackDynamics,
        truths: Sequence[Truth],
        *,
        rewards: Rewards | None = None,
    ) -> None:
        """Add the truth to films.

        Args:
            dynamics: The films.
            truths: One for each, rows as those of its detections.
            rewards: What is worth how much.

        Raises:
            MedrlError: If their numbers disagree.
        """
        if [len(t.track) for t in truths] != [len(s.frame) for s in dynamics.scenes]:
            raise MedrlError("there must be the truth about every detection")
        self.dynamics, self.rewards = dynamics, rewards or Rewards()
        identity = torch.full((len(dynamics.frame_of),), -1)
        mother: list[int] = []
        for number, truth in enumerate(truths):
            first = int(dynamics.first_row[number])
            names = sorted({int(t) for t in truth.track if t >= 0})
            index = {name: len(mother) + n for n, name in enumerate(names)}
            mother += [index.get(truth.parent.get(name, -1), -1) for name in names]
            rows = [index.get(int(t), -1) for t in truth.track]
            identity[first : first + len(rows)] = torch.tensor(rows, dtype=torch.int64)
        self.identity, self.mother = identity, torch.tensor(mother, dtype=torch.int64)
        count = len(mother)
        known = identity >= 0
        frame = dynamics.frame_of
        self.last = torch.full((count,), -1).scatter_reduce(
            0, identity[known], frame[known], "amax"
        )
        self.first = torch.full((count,), 2**31).scatter_reduce(
            0, identity[known], frame[known], "amin"
        )
        self.child_last = torch.full((count,), -1)
        children = torch.nonzero(self.mother >= 0)[:, 0]
        self.child_last = self.child_last.scatter_reduce(
            0, self.mother[children], self.last[children], "amax"
        )

    def begin(self, count: int, generator: Generator, **given: Tensor) -> TrackState:
        """Agents at the detections of the first frame; how many there are is not up to anyone."""
        return self.dynamics.reset()

    def reward(self, before: TrackState, action: Tensor, after: TrackState) -> Tensor:
        """What a frame was worth to each, see :class:`Rewards`."""
        r, v = self.rewards, self.dynamics.view
        was, now = self.identity[before.row], self.identity[after.row]
        track = ~before.birth
        matched, real = after.matched, now >= 0
        found = torch.where(real, 2.0, -r.false)
        sight = self.dynamics.sight(before)
        # After a division, going on with either daughter is right.
        child = real & (was >= 0) & (self._mother(now) == was)
        switched = track & real & (now != was) & ~child
        late = ~track & real & (before.frame > self._of(self.first, now)) & matched
        reward = torch.where(matched, found - r.switch * (switched | late).float(), 0.0)
        coasts = track & ~matched & (after.status != ENDED)
        over = self._comes_back(was) < before.frame
        reward = torch.where(coasts & over, -r.idle, reward)
        if len(sight.tracks):
            nearest = sight.tracks[sight.near[:, 0].clamp(max=len(sight.tracks) - 1)]
            holder = torch.where(sight.open[:, 0], self.identity[before.row[nearest]], -1)
        else:
            holder = torch.full_like(now, -1)
        mother = self._mother(now)
        sister = (holder >= 0) & (mother >= 0) & (holder == mother)
        divides = ~track & matched & (action == v.divide)
        starts = ~track & matched & (action == v.start)
        fault = (divides & ~sister) | (starts & sister & v.divides)
        reward = reward - r.lineage * fault.float()
        if r.shared:
            reward = shared_reward(reward, before.scene)
        return reward.float()

    def expert(self, state: TrackState) -> Tensor:
        """The right actions (N,): the detection of one's object, patience while it is away, an end.

        Of several tracks of one object the one that has seen it last goes on with it.
        """
        v, sight = self.dynamics.view, self.dynamics.sight(state)
        identity = self.identity[state.row]
        allowed = self.dynamics.allowed(state)
        action = torch.full((len(state),), v.end)
        tracks, births = sight.tracks, sight.births
        mine = identity[tracks]
        owner = self._owners(state, tracks, mine)
        seen = identity[births]
        taken = torch.zeros(len(births), dtype=torch.bool)
        # A child may be taken by one track only: by that of the child, if there is one.
        if len(tracks) and len(births):
            same = (mine[:, None] == seen[None]) & (mine >= 0)[:, None]
            has_own = ((mine[:, None] == seen[None]) & owner[:, None]).any(dim=0)
            child = (self._mother(seen)[None] == mine[:, None]) & (mine >= 0)[:, None]
            child &= ~has_own[None] & ~same.any(dim=1)[:, None]
            goal = (same | child)[torch.arange(len(tracks))[:, None], sight.near[tracks]]
            goal &= sight.open[tracks] & owner[:, None]
            choice = goal.long().argmax(dim=1)
            goes = goal.any(dim=1)
            action[tracks[goes]] = choice[goes]
            taken[sight.near[tracks[goes], choice[goes]]] = True
        comes = self._comes_back(mine) > state.frame[tracks]
        here = torch.isin(mine, seen)
        waits = (action[tracks] == v.end) & owner & comes & ~here & allowed[tracks, v.coast]
        action[tracks[waits]] = v.coast
        begins = (seen >= 0) & ~taken
        mother = self._mother(seen)
        if len(tracks) and len(births):
            nearest = mine[sight.near[births, 0].clamp(max=len(tracks) - 1)]
            daughter = (nearest == mother) & (mother >= 0) & allowed[births, v.divide]
        else:
            daughter = torch.zeros_like(begins)
        chosen = torch.where(daughter, v.divide, v.start)
        action[births] = torch.where(begins, chosen, v.end)
        return action

    def _owners(self, state: TrackState, tracks: Tensor, mine: Tensor) -> Tensor:
        """(n,) bool, tracks that are those of their object."""
        if not len(tracks):
            return torch.zeros(0, dtype=torch.bool)
        rank = state.missed[tracks] * 10_000 - state.hits[tracks].clamp(max=9_999)
        rank = rank.double() + torch.arange(len(tracks)) * 1e-6
        count = len(self.mother)
        best = torch.full((count + 1,), torch.inf, dtype=torch.float64)
        best = best.scatter_reduce(0, mine.clamp(min=-1) % (count + 1), rank, "amin")
        return (rank == best[mine % (count + 1)]) & (mine >= 0)

    def _of(self, table: Tensor, identity: Tensor) -> Tensor:
        if not len(table):
            return torch.full_like(identity, -1)
        return torch.where(identity >= 0, table[identity.clamp(min=0)], -1)

    def _mother(self, identity: Tensor) -> Tensor:
        return self._of(self.mother, identity)

    def _comes_back(self, identity: Tensor) -> Tensor:
        """Last frame in which an object or a child of it is detected, -1 for none."""
        return torch.maximum(self._of(self.last, identity), self._of(self.child_last, identity))
