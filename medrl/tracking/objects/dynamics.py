"""How the agents of tracks live: what they see, what they can do, what comes of it.

Agents of several films walk side by side, a frame a step. Besides the tracks there is an agent at
every detection of the frame at hand, which may begin a track there (:meth:`TrackDynamics.arrivals`
adds them before each step, so that the number of rows changes from frame to frame).

| action | of a track | of an agent at a detection |
| --- | --- | --- |
| 0 .. K-1 | match the k-th nearest detection | not open |
| K | coast: no detection, the box follows the image or the motion | not open |
| K + 1 | end | leave the detection alone |
| K + 2 | not open | start a track |
| K + 3 | not open | start one as a daughter of the nearest track |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medrl.agents.dynamics import ACTIVE, Dynamics, Places, Space, State
from medrl.tracking.objects import features, motion, patches
from medrl.tracking.objects.motion import Motion, Noise
from medrl.tracking.objects.scene import COASTS, FREE, GONE, Scene

ENDED, LEFT_ALONE, OVER = 1, 2, 3


@dataclass(frozen=True)
class View:
    """What agents see.

    Attributes:
        candidates: K, nearest detections of a track, and nearest tracks of a detection.
        rivals: R, other agents seen at each of them.
        reach: How far candidates may be from the predicted place, in sizes.
        widening: Added to that for every frame without a detection.
        max_gap: Frames without a detection after which a track ends.
        template: Share by which a matched patch counts in the template.
        found: Correlation above which a coasting box follows the image.
        divides: Objects may divide.
        noise: Of the motion.
    """

    candidates: int = 4
    rivals: int = 2
    reach: float = 2.0
    widening: float = 0.15
    max_gap: int = 20
    template: float = 0.3
    found: float = 0.8
    divides: bool = True
    noise: Noise = field(default_factory=Noise)

    @property
    def coast(self) -> int:
        """The action of going on without a detection."""
        return self.candidates

    @property
    def end(self) -> int:
        """The action of ending, or of leaving a detection alone."""
        return self.candidates + 1

    @property
    def start(self) -> int:
        """The action of beginning a track."""
        return self.candidates + 2

    @property
    def divide(self) -> int:
        """The action of beginning a track as a daughter."""
        return self.candidates + 3

    @property
    def actions(self) -> int:
        """How many there are."""
        return self.candidates + 4


@dataclass(frozen=True, eq=False)
class TrackState(State):
    """N agents.

    Attributes:
        scene: (N,) int64, film of each.
        frame: (N,) int64, frame that each decides on next.
        track: (N,) int64, identity; of an agent at a detection the one it would have.
        parent: (N,) int64, identity of the mother, or -1.
        birth: (N,) bool, agents at detections.
        row: (N,) int64, the detection last matched (row among those of all films).
        matched: (N,) bool, in the last frame.
        motion: After the last frame.
        template: (N, P) float32, what each looks like.
        missed: (N,) int64, frames since a detection was matched.
        hits: (N,) int64, detections matched.
    """

    scene: Tensor
    frame: Tensor
    track: Tensor
    parent: Tensor
    birth: Tensor
    row: Tensor
    matched: Tensor
    motion: Motion
    template: Tensor
    missed: Tensor
    hits: Tensor


class Sight(NamedTuple):
    """What is near whom: n tracks and m detections among N agents.

    Attributes:
        tracks: (n,) int64, rows of the agents that are tracks.
        births: (m,) int64, of those at detections.
        predicted: (n) motion at the frame at hand.
        near: (N, K) int64, of a track the nearest of the m, of a detection the nearest of the n.
        open: (N, K) bool, whether there is one.
        distance: (N, K) float32.
        pairs: (N, K, F) float32.
        rivals: (N, K, R, F) float32, of the other agents nearest to each; zeros where there are
            none.
        own: (N, O) float32.
    """

    tracks: Tensor
    births: Tensor
    predicted: Motion
    near: Tensor
    open: Tensor
    distance: Tensor
    pairs: Tensor
    rivals: Tensor
    own: Tensor


class TrackDynamics(Dynamics[TrackState]):
    """Tracks in some films; see the module."""

    outcomes = ("active", "ended", "left alone", "film over")
    masked = True

    def __init__(self, scenes: Sequence[Scene], *, view: View | None = None) -> None:
        """Put films side by side.

        Args:
            scenes: All flat, or all volumes, where they have frames.
            view: What agents see.
        """
        self.scenes = list(scenes)
        self.view = view or View()
        v = self.view
        sizes = [len(scene.frame) for scene in self.scenes]
        self.scene_of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.first_row = torch.tensor([0, *sizes]).cumsum(0)[:-1]
        self.frame_of, self.box, self.score, self.patch, self.level = (
            torch.cat([getattr(scene, name) for scene in self.scenes])
            for name in ("frame", "box", "score", "patch", "level")
        )
        self.length, self.flat, self.extent = (
            torch.tensor([scene.length for scene in self.scenes]),
            torch.stack([scene.flat for scene in self.scenes]),
            torch.stack([scene.extent for scene in self.scenes]),
        )
        self._order = self.frame_of.argsort(stable=True)
        self._starts = torch.searchsorted(
            self.frame_of[self._order], torch.arange(int(self.length.max()) + 1)
        )
        known = [int(s.pins.tracks.max()) + 1 if len(s.pins.tracks) else 0 for s in self.scenes]
        self._new = torch.tensor(known)
        self.action_space = Space.choice(v.actions)
        self.observation_spaces = {
            "own": Space((features.OWN,)),
            "pairs": Space((v.candidates, features.PAIR)),
            "rivals": Space((v.candidates, v.rivals, features.PAIR)),
        }
        self._seen: tuple[TrackState, Sight] | None = None

    def reset(self) -> TrackState:
        """Agents at the detections of the first frame."""
        return self.arrivals(None, 0)

    def rows_of(self, frame: int) -> Tensor:
        """Rows of the detections of a frame in all films."""
        if frame + 1 >= len(self._starts):
            return self._order[:0]
        return self._order[self._starts[frame] : self._starts[frame + 1]]

    def arrivals(self, state: TrackState | None, frame: int) -> TrackState:
        """The active agents, and one at every detection of a frame.

        Args:
            state: N agents after the frame before, or None.
            frame: The frame.
        """
        rows = self.rows_of(frame)
        scene, count = self.scene_of[rows], len(rows)
        track = self._new[scene] + rows - self.first_row[scene]
        for number, one in enumerate(self.scenes):
            if len(one.pins.tracks) and frame < len(one.pins.rows):
                pinned = one.pins.rows[frame]
                for identity, row in zip(one.pins.tracks, pinned, strict=True):
                    if row >= 0:
                        track[rows == row + self.first_row[number]] = identity
        born = TrackState(
            status=torch.full((count,), ACTIVE),
            scene=scene,
            frame=torch.full((count,), frame),
            track=track,
            parent=torch.full((count,), -1),
            birth=torch.ones(count, dtype=torch.bool),
            row=rows,
            matched=torch.zeros(count, dtype=torch.bool),
            motion=motion.begin(self.box[rows], self.flat[scene], self.view.noise),
            template=self.patch[rows],
            missed=torch.zeros(count, dtype=torch.int64),
            hits=torch.zeros(count, dtype=torch.int64),
        )
        if state is None:
            return born
        return TrackState.cat([state.select(state.active), born])

    def observe(self, state: TrackState) -> dict[str, Tensor]:
        """What agents see of themselves, of candidates, and of rivals there."""
        sight = self.sight(state)
        return {"own": sight.own, "pairs": sight.pairs, "rivals": sight.rivals}

    def sight(self, state: TrackState) -> Sight:
        """What is near whom; worked out once for a state."""
        if self._seen is None or self._seen[0] is not state:
            self._seen = (state, self._sight(state))
        return self._seen[1]

    def _sight(self, state: TrackState) -> Sight:
        v, noise = self.view, self.view.noise
        tracks, births = torch.nonzero(~state.birth)[:, 0], torch.nonzero(state.birth)[:, 0]
        live, scene, rows = state.select(tracks), state.scene[tracks], state.row[births]
        flat, extent = self.flat[scene], self.extent[scene]
        predicted = motion.predict(live.motion, flat, noise)
        own = features.Tracks(
            box=predicted.box,
            position=predicted.position,
            velocity=predicted.velocity,
            last=live.motion.position,
            size=predicted.size,
            scale=motion.scale_of(predicted.size, flat),
            variance=motion.spread(predicted, flat, noise),
            patch=self.patch[live.row],
            template=live.template,
            level=self.level[live.row],
            missed=live.missed,
            hits=live.hits,
            scene=scene,
        )
        where = state.scene[births]
        box = self.box[rows]
        seen = features.Seen(
            box=box,
            scale=motion.scale_of(box[:, 1] - box[:, 0], self.flat[where]),
            patch=self.patch[rows],
            level=self.level[rows],
            score=self.score[rows],
            scene=where,
        )
        numbers, distance = features.pairs(own, seen, flat)
        reach = v.reach + v.widening * live.missed.double()[:, None]
        within = (distance <= reach) & (scene[:, None] == where[None])
        within = self._pinned(state, tracks, births, within)
        near, there, apart, of_tracks, rivals = _nearest(numbers, distance, within, v)
        back = _nearest(numbers.transpose(0, 1), distance.T, within.T, v)
        crowd, nearest = within.sum(dim=1), _nearest_other(predicted.position, own.scale, scene)
        alone = _nearest_other(box.mean(dim=1), seen.scale, where)
        first = state.frame[births] == 0
        divides = torch.full_like(first, v.divides)
        selves = features.own_of_births(
            seen, self.extent[where], within.sum(dim=0), alone, first, divides
        )
        own_numbers = features.own_of_tracks(own, extent, crowd, nearest)
        order = torch.cat([tracks, births]).argsort()
        parts = zip((near, there, apart, of_tracks, rivals), back, strict=True)
        near, there, apart, of_tracks, rivals = (torch.cat(both)[order] for both in parts)
        own_all = torch.cat([own_numbers, selves])[order]
        return Sight(tracks, births, predicted, near, there, apart, of_tracks, rivals, own_all)

    def _pinned(self, state: TrackState, tracks: Tensor, births: Tensor, within: Tensor) -> Tensor:
        """Candidates (n, m) where some are decided: those alone, and for nobody else."""
        pin_t, pin_b = self._pins(state)
        if not bool((pin_t != FREE).any() | pin_b.any()):
            return within
        wanted = pin_t[tracks]
        exact = wanted[:, None] == state.row[births][None]
        free = (wanted == FREE)[:, None] & ~pin_b[births][None]
        return torch.where(free, within, exact)

    def _pins(self, state: TrackState) -> tuple[Tensor, Tensor]:
        """What is decided: (N,) rows of detections or codes, and (N,) bool, detections given."""
        pin = torch.full((len(state),), FREE)
        given = torch.zeros(len(state), dtype=torch.bool)
        for number, one in enumerate(self.scenes):
            mine = torch.nonzero(state.scene == number)[:, 0]
            if not len(one.pins.tracks) or not len(mine):
                continue
            frame = int(state.frame[mine[0]])
            if frame >= len(one.pins.rows):
                continue
            decided = one.pins.rows[frame]
            rows = torch.where(decided >= 0, decided + self.first_row[number], decided)
            same = state.track[mine][:, None] == one.pins.tracks[None]
            known = same.any(dim=1)
            pin[mine[known]] = rows[same.long().argmax(dim=1)[known]]
            given[mine] = torch.isin(state.row[mine], rows[rows >= 0]) & state.birth[mine]
            if bool((decided != FREE).all()) and known.numel():
                # A frame of an earlier run that stays as it is: nobody else begins here.
                rest = mine[~known & state.birth[mine]]
                pin[rest] = GONE
        return pin, given

    def allowed(self, state: TrackState) -> Tensor:
        """(N, A) bool, see the module."""
        v, sight = self.view, self.sight(state)
        track = ~state.birth
        columns = torch.zeros((len(state), v.actions), dtype=torch.bool)
        columns[:, : v.candidates] = sight.open & track[:, None]
        columns[:, v.coast] = track & (state.missed < v.max_gap)
        columns[:, v.end] = True
        columns[:, v.start] = state.birth
        columns[:, v.divide] = state.birth & sight.open[:, 0] & v.divides & (state.frame > 0)
        pin, given = self._pins(state)
        if bool((pin != FREE).any() | given.any()):
            only = torch.zeros_like(columns)
            # A detection that a track is to match is not left to the agent at it.
            taken = torch.isin(state.row, pin[track & (pin >= 0)]) & state.birth
            only[:, 0] = track & (pin >= 0) & sight.open[:, 0]
            only[:, v.coast] = track & ((pin == COASTS) | ((pin >= 0) & ~sight.open[:, 0]))
            begins = state.birth & ((pin >= 0) & (pin == state.row)) & ~taken
            only[:, v.start] = begins
            only[:, v.end] = ~only.any(dim=1)
            decided = (pin != FREE) | given
            columns = torch.where(decided[:, None], only, columns)
        return columns

    def step(self, state: TrackState, action: Tensor, **extras: Any) -> TrackState:
        """A frame passes; where two choose one detection, the nearer one gets it."""
        v, sight, noise = self.view, self.sight(state), self.view.noise
        action = torch.where(state.active, action, v.end)
        choice = action.clamp(max=v.candidates - 1)
        agent = torch.arange(len(state))
        matches = (action < v.candidates) & ~state.birth & sight.open[agent, choice]
        if len(sight.births):
            target = sight.births[sight.near[agent, choice].clamp(max=len(sight.births) - 1)]
        else:
            target = torch.zeros(len(state), dtype=torch.int64)
        apart = torch.where(matches, sight.distance[agent, choice], torch.inf)
        closest = torch.full((len(state),), torch.inf).scatter_reduce(
            0, target[matches], apart[matches], "amin"
        )
        matches &= apart <= closest[target]
        taken = torch.zeros(len(state), dtype=torch.bool)
        taken[target[matches]] = True
        ends = (action == v.end) & ~state.birth
        row = torch.where(matches, state.row[target], state.row)
        flat = self.flat[state.scene]
        moved = state.motion
        if len(sight.tracks):
            moved = moved.put(sight.tracks, sight.predicted)
        updated = motion.update(moved, self.box[row], flat, noise)
        moved = updated.where(matches, moved)
        coasts = ~state.birth & ~matches & ~ends
        moved = self._followed(state, moved, torch.nonzero(coasts)[:, 0])
        begins = state.birth & ((action == v.start) | (action == v.divide)) & ~taken
        template = state.template
        if template.shape[1]:
            mixed = torch.lerp(template, self.patch[row], v.template)
            mixed = mixed / mixed.norm(dim=1, keepdim=True).clamp(min=1e-6)
            template = torch.where(matches[:, None], mixed, template)
        parent = state.parent
        if len(sight.tracks):
            mother = state.track[sight.tracks][sight.near[:, 0].clamp(max=len(sight.tracks) - 1)]
            daughter = begins & (action == v.divide) & sight.open[:, 0]
            parent = torch.where(daughter, mother, parent)
        missed = torch.where(matches | begins, 0, state.missed + 1)
        status = torch.where(ends | (coasts & (missed > v.max_gap)), ENDED, ACTIVE)
        status = torch.where(state.birth & ~begins, LEFT_ALONE, status)
        over = (state.frame + 1 >= self.length[state.scene]) & (status == ACTIVE)
        after = TrackState(
            status=torch.where(over, OVER, status),
            scene=state.scene,
            frame=state.frame + 1,
            track=state.track,
            parent=parent,
            birth=state.birth & ~begins,
            row=row,
            matched=matches | begins,
            motion=moved,
            template=template,
            missed=missed,
            hits=state.hits + (matches | begins).long(),
        )
        return after.where(state.active, state)

    def _followed(self, state: TrackState, moved: Motion, rows: Tensor) -> Motion:
        """Coasting boxes, shifted to where the image looks like what they held."""
        for number, one in enumerate(self.scenes):
            mine = rows[state.scene[rows] == number]
            frames = one.frames
            if frames is None or not len(mine):
                continue
            frame = int(state.frame[mine[0]])
            box = moved.select(mine).box / one.spacing
            found, alike = patches.search(frames[frame], box, state.template[mine])
            sure = alike > self.view.found
            if bool(sure.any()):
                sure_rows = mine[sure]
                flat = self.flat[state.scene[sure_rows]]
                better = motion.update(
                    moved.select(sure_rows),
                    found[sure] * one.spacing,
                    flat,
                    self.view.noise,
                    doubt=2.0,
                )
                moved = moved.put(sure_rows, better)
        return moved

    def places(self, state: TrackState) -> Places:
        """Boxes in world coordinates, as axes of the film lie closest to the world's."""
        affine = torch.stack([scene.affine for scene in self.scenes])[state.scene]
        spacing = torch.stack([scene.spacing for scene in self.scenes])[state.scene]
        corners = state.motion.box / spacing[:, None]
        world = corners @ affine[:, :3, :3].transpose(1, 2) + affine[:, None, :3, 3]
        extras = {
            "frame": (state.frame - 1).clamp(min=0).double(),
            "matched": state.matched.double(),
            "missed": state.missed.double(),
        }
        return Places(
            position_world=world.mean(dim=1),
            scale_mm=spacing.amin(dim=1),
            box_world=world,
            extras=extras,
        )


def _nearest(
    numbers: Tensor, distance: Tensor, within: Tensor, view: View
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """For each of n the nearest of m, and who else is near those; see :class:`Sight`."""
    n, m = distance.shape
    k, r, f = view.candidates, view.rivals, features.PAIR
    near = torch.zeros((n, k), dtype=torch.int64)
    there = torch.zeros((n, k), dtype=torch.bool)
    apart = torch.zeros((n, k))
    chosen, rivals = torch.zeros((n, k, f)), torch.zeros((n, k, r, f))
    if n == 0 or m == 0:
        return near, there, apart, chosen, rivals
    far = torch.where(within, distance, torch.inf)
    few = min(k, m)
    apart[:, :few], near[:, :few] = far.topk(few, dim=1, largest=False)
    there = apart.isfinite() & (torch.arange(k) < few)
    apart = torch.where(there, apart, 0.0)
    agent = torch.arange(n)[:, None]
    chosen = numbers[agent, near] * there[..., None]
    most = min(r + 1, n)
    other_far, others = far.T.topk(most, dim=1, largest=False)
    rival, rival_far = others[near], other_far[near]
    own = rival == agent[..., None]
    keep = own.long().argsort(dim=2, stable=True)[..., :r]
    rival, rival_far, own = (x.gather(2, keep) for x in (rival, rival_far, own))
    real = rival_far.isfinite() & ~own & there[..., None]
    rivals[:, :, : keep.shape[2]] = numbers[rival, near[..., None]] * real[..., None]
    return near, there, apart, chosen, rivals


def _nearest_other(position: Tensor, scale: Tensor, scene: Tensor) -> Tensor:
    """Distance (n,) to the nearest other of the same scene, in sizes; far where there is none."""
    if len(position) < 2:
        return torch.full((len(position),), 8.0, dtype=torch.float64)
    apart = torch.cdist(position, position) / scale[:, None]
    same = (scene[:, None] == scene[None]) & ~torch.eye(len(scene), dtype=torch.bool)
    return torch.where(same, apart, 8.0).amin(dim=1).clamp(max=8.0)
