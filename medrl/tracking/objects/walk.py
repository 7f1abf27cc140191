"""From a scene and a policy to tracks: the walk, and what is made of it with the film known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medrl.agents.policy import Policy
from medrl.agents.rollout import Transition, rollout
from medrl.agents.task import Task
from medrl.tracking.objects.detections import Floats, Ints
from medrl.tracking.objects.dynamics import TrackDynamics, TrackState

#: Called after every frame.
OnStep = Callable[[Transition[TrackState]], None]


class Log(NamedTuple):
    """What agents did in a scene: M rows of a track in a frame, in mm; arrays."""

    frame: Ints
    track: Ints
    box: Floats
    row: Ints
    sure: Floats
    parent: dict[int, int]


def walk(
    dynamics: TrackDynamics,
    policy: Policy,
    *,
    task: Task[TrackState] | None = None,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TrackState | None:
    """Walk all agents through their films, frame by frame.

    Args:
        dynamics: The films.
        policy: What decides.
        task: Where the truth is known.
        on_step: Called after every frame.
        cancelled: Asked before every frame; true ends the walk.

    Returns:
        The agents that the last frame had.
    """
    state: TrackState | None = None
    for frame in range(int(dynamics.length.max())):
        if cancelled is not None and cancelled():
            break
        state = dynamics.arrivals(state, frame)
        if len(state):
            state = rollout(dynamics, policy, state, task=task, max_steps=1, on_step=on_step).state
    return state


@dataclass(frozen=True)
class Finish:
    """What is made of a walk once the whole film is known.

    Attributes:
        least: Tracks with fewer detections are left out.
        interpolate: Boxes of gaps lie on the line between the detections around them; else where
            the agents had them.
        smooth: Share by which the agents' own boxes count in those of matched rows, against the
            detections.
    """

    least: int = 2
    interpolate: bool = True
    smooth: float = 0.0


class Notes:
    """Takes down where tracks are; give it to :func:`walk` as ``on_step``."""

    def __init__(
        self,
        dynamics: TrackDynamics,
        sure: Callable[[Transition[TrackState]], Tensor] | None = None,
    ) -> None:
        """Begin with nothing.

        Args:
            dynamics: The films.
            sure: From a transition to the confidence of every agent, (R,).
        """
        self._dynamics = dynamics
        self._sure = sure
        self._parts: list[tuple[Any, ...]] = []

    def __call__(self, transition: Transition[TrackState]) -> None:
        """Take down a frame."""
        after = transition.after
        chance = torch.ones(len(after)) if self._sure is None else self._sure(transition)
        ended = after.status == 1
        rows = torch.nonzero(~after.birth & ~ended & (after.hits > 0))[:, 0]
        kept = after.select(rows)
        self._parts.append(
            (
                kept.scene.numpy(),
                kept.frame.numpy() - 1,
                kept.track.numpy(),
                kept.motion.box.numpy(),
                torch.where(kept.matched, kept.row, -1).numpy(),
                chance[rows].double().numpy(),
                kept.parent.numpy(),
            )
        )

    def log(self, scene: int) -> Log:
        """What happened in one film; rows of detections count within it."""
        if not self._parts:
            none = np.zeros(0, np.int64)
            return Log(none, none, np.zeros((0, 2, 3)), none, np.zeros(0), {})
        columns = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        mine = columns[0] == scene
        _, frame, track, box, row, sure, parent = (column[mine] for column in columns)
        row = np.where(row >= 0, row - int(self._dynamics.first_row[scene]), -1)
        mothers = {int(t): int(p) for t, p in zip(track, parent, strict=True) if p >= 0}
        return Log(frame, track, box, row, sure, mothers)


def finished(log: Log, boxes: Floats, settings: Finish) -> Log:
    """Tracks without what hangs at their ends, gaps filled; sorted by track and frame.

    Args:
        log: Of a walk.
        boxes: (D, 2, 3) of the film's detections, in mm.
        settings: What is made of it.
    """
    order = np.lexsort((log.frame, log.track))
    frame, track, row = log.frame[order], log.track[order], log.row[order]
    sure = log.sure[order]
    box = log.box[order].copy()
    matched = row >= 0
    box[matched] += (1 - settings.smooth) * (boxes[row[matched]] - box[matched])
    keep = np.zeros(len(frame), bool)
    starts: list[int] = [n for n in range(len(track)) if n == 0 or track[n] != track[n - 1]]
    for first, past in zip(starts, [*starts[1:], len(track)], strict=True):
        seen = first + np.flatnonzero(matched[first:past])
        if len(seen) < settings.least:
            continue
        keep[seen[0] : seen[-1] + 1] = True
        for before, after in pairwise(seen):
            gap = np.arange(before + 1, after)
            if not len(gap):
                continue
            sure[gap] = min(sure[before], sure[after])
            if settings.interpolate:
                share = ((frame[gap] - frame[before]) / (frame[after] - frame[before]))[
                    :, None, None
                ]
                box[gap] = (1 - share) * box[before] + share * box[after]
    ids = set(track[keep].tolist())
    parent = {t: p for t, p in log.parent.items() if t in ids and p in ids}
    return Log(frame[keep], track[keep], box[keep], row[keep], sure[keep], parent)
