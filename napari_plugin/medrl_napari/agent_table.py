"""A trajectory as rows of layers in napari's world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medrl.results.picture import SCALE_COLORS
from medrl.trajectory import Trajectory
from medrl_napari.boxes import box_corners
from medrl_napari.space import Floats, Frame


class AgentTable:
    """A trajectory as rows of tracks and points in napari's world."""

    def __init__(self, trajectory: Trajectory, frame: Frame) -> None:
        agents = [agent for agent in trajectory.agents if len(agent)]
        self.length = max((len(agent) for agent in agents), default=0)
        self.names = [agent.name for agent in agents]
        places = [frame.to_napari(agent.positions_world) for agent in agents]
        self._own = np.array([len(agent) for agent in agents], dtype=np.int64)
        self.rows = np.concatenate(
            [
                np.column_stack([np.full(len(place), number), np.arange(len(place)), place])
                for number, place in enumerate(places)
            ]
            or [np.empty((0, 5))]
        )
        scales = _joined([agent.scales_mm for agent in agents])
        self.scales = np.unique(scales)
        self.features = {
            "scale_mm": scales,
            "value": _joined([agent.values for agent in agents]),
            "level": self._level(scales),
        }
        # Extras that all agents tell of, a number a step, are there to colour the tracks by.
        told = set.intersection(*(set(agent.extras) for agent in agents)) if agents else set()
        for name in sorted(told - set(self.features)):
            columns = [agent.extras[name] for agent in agents]
            if all(column.ndim == 1 for column in columns):
                self.features[name] = _joined(columns)
        # An agent that has ended stays where it is.
        steps = np.arange(self.length)
        last = [np.minimum(steps, len(place) - 1) for place in places]
        self._places = np.array([p[rows] for p, rows in zip(places, last, strict=True)])
        self._scales = np.array([a.scales_mm[r] for a, r in zip(agents, last, strict=True)])
        self._boxes = {
            number: box_corners(agent.boxes_world[rows], frame)
            for number, (agent, rows) in enumerate(zip(agents, last, strict=True))
            if agent.boxes_world is not None
        }

    @property
    def rows_now(self) -> Floats:
        """Where every agent is at every moment, (N * T, 4)."""
        time = np.tile(np.arange(self.length), len(self.names))[:, None]
        return np.hstack([time, self._places.reshape(-1, 3)])

    @property
    def names_now(self) -> list[str]:
        """Whose row it is."""
        return [name for name in self.names for _ in range(self.length)]

    @property
    def colors_now(self) -> Floats:
        """RGBA of each row."""
        return self._colors(self._scales.ravel())

    def at(self, moment: int, name: str | None) -> tuple[Floats, Floats, Floats]:
        """Places (R, 3), scales (R,) and colours (R, 4) of agents that walk at a moment.

        Args:
            moment: Which.
            name: Whose, walking or not; None for all that walk.
        """
        moment = min(max(moment, 0), self.length - 1)
        wanted = self._own > moment
        if name is not None:
            wanted = np.array([own == name for own in self.names])
        scales = self._scales[wanted, moment]
        return self._places[wanted, moment], scales, self._colors(scales)

    def boxes_at(self, moment: int, name: str | None) -> tuple[Floats, Floats]:
        """What agents have boxed at a moment: corners (R, 2, 2, 2, 3) and colours (R, 4).

        Args:
            moment: Which.
            name: Whose; None for all.
        """
        moment = min(max(moment, 0), self.length - 1)
        wanted = [n for n in self._boxes if name is None or self.names[n] == name]
        boxes = [self._boxes[number][moment] for number in wanted]
        colors = self._colors(self._scales[wanted, moment])
        return np.array(boxes).reshape(-1, 2, 2, 2, 3), colors

    def _level(self, scales: Floats) -> Floats:
        """0 for the coarsest scale to 1 for the finest."""
        rank = len(self.scales) - 1 - np.searchsorted(self.scales, scales)
        return np.asarray(rank / max(len(self.scales) - 1, 1), dtype=np.float64)

    def _colors(self, scales: Floats) -> Floats:
        colors = scale_colormap(self.scales).map(self._level(scales))
        return np.asarray(colors, dtype=np.float64).reshape(-1, 4)


def _joined(columns: Sequence[Floats]) -> Floats:
    """A column of all agents. Tracks take no NaN: what is unknown counts as the lowest."""
    values = np.concatenate([*columns, np.empty(0)])
    known = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, known.min() if known.size else 0.0)


def scale_colormap(scales: Floats) -> Any:
    """A colour for each scale, from 0, the coarsest, to 1, the finest."""
    from napari.utils import Colormap
    from napari.utils.colormaps.standardize_color import transform_color

    names = [SCALE_COLORS[n % len(SCALE_COLORS)] for n in range(len(scales))]
    return Colormap(transform_color(names * 2 if len(names) == 1 else names), name="scale")
