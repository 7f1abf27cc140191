"""What landmark agents did, in world coordinates: for whoever watches them, and for the record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medrl.landmark.dynamics import OUTCOMES
from medrl.landmark.search import SearchResult, StepRecord
from medrl.trajectory import AgentPath
from medrl.trajectory.live import Step, Watch
from medrl.volume.pyramid import Pyramid
from medrl.volume.space import voxel_to_world


def in_world(
    records: Sequence[StepRecord], pyramid: Pyramid, names: Sequence[str], attempt: int = 0
) -> Step:
    """What agents did, in world coordinates.

    Args:
        records: Steps of one search.
        pyramid: What the agents walk in.
        names: Of each agent.
        attempt: Number of the search, from 0.

    Returns:
        One step, a row for every record of an agent; positions in RAS mm, values in mm.
    """
    agent, position, level, action, value = (
        torch.cat([getattr(record, field) for record in records]).cpu().numpy()
        for field in ("agent", "position", "level", "action", "value")
    )
    scales = np.array(pyramid.spacings)[level]
    return Step(
        names=tuple(names[k] for k in agent),
        starts=np.full(len(agent), attempt),
        positions_world=voxel_to_world(position, pyramid.affines[0]),
        scales_mm=scales,
        actions=action,
        values=value.astype(np.float64) * scales,
        value_unit="mm",
    )


def only(names: Sequence[str], watch: Watch) -> Watch:
    """A watch that is told of some agents only.

    Args:
        names: Theirs.
        watch: Called with them, and not at all when none of them moved.
    """

    def selective(step: Step) -> None:
        wanted = np.array([name in names for name in step.names])
        if wanted.any():
            watch(step.select(wanted))

    return selective


def paths_of(result: SearchResult, pyramid: Pyramid, names: Sequence[str]) -> dict[str, AgentPath]:
    """Each agent's path, by name.

    Args:
        result: A whole search, one agent a name.
        pyramid: What the agents walked in.
        names: Of each agent.
    """
    steps = in_world(result.records, pyramid, names)
    who = np.array(steps.names)
    paths = {}
    for k, name in enumerate(names):
        own = steps.select(who == name)
        paths[name] = AgentPath(
            name=name,
            start=0,
            positions_world=own.positions_world,
            scales_mm=own.scales_mm,
            actions=own.actions,
            values=own.values,
            value_unit=own.value_unit,
            outcome=OUTCOMES[int(result.status[k])],
        )
    return paths
