"""Agents on a line of whole numbers, each looking for a place, to be worked out by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from medrl.agents import Dynamics, Places, Space, State, Task
from medrl.agents.task import whole_rows

CAPPED, LEFT, REACHED = 1, 2, 3


@dataclass(frozen=True, eq=False)
class LineState(State):
    """Positions on lines; what each looks for; steps made."""

    position: Tensor
    goal: Tensor
    steps: Tensor


class Line(Dynamics[LineState]):
    """One step up (0) or down (1) a line of some length, or a jump of the length decided."""

    outcomes = ("active", "capped", "left")
    truncations = (CAPPED,)
    action_space = Space.choice(2)
    extra_spaces: Mapping[str, Space] = {"stride": Space(dtype=torch.int64)}

    def __init__(self, length: int = 20, max_steps: int = 30, *, walls: bool = False) -> None:
        self.length, self.max_steps, self.masked = length, max_steps, walls
        self.observation_spaces: Mapping[str, Space] = {
            "position": Space((1,), low=-1.0, high=float(length))
        }

    def reset(self, position: Tensor, goal: Tensor) -> LineState:
        none = torch.zeros_like(position)
        return LineState(none, position, goal, none.clone())

    def observe(self, state: LineState) -> dict[str, Tensor]:
        return {"position": state.position[:, None].float()}

    def allowed(self, state: LineState) -> Tensor | None:
        if not self.masked:
            return None
        return torch.stack([state.position < self.length - 1, state.position > 0], dim=1)

    def step(
        self, state: LineState, action: Tensor, *, stride: Tensor | None = None, **_: Any
    ) -> LineState:
        far = torch.ones_like(action) if stride is None else stride
        position = state.position + torch.where(action == 0, far, -far) * state.active
        steps = state.steps + state.active.long()
        status = torch.where(steps >= self.max_steps, CAPPED, 0)
        status = torch.where((position < 0) | (position >= self.length), LEFT, status)
        status = torch.where(state.active, status, state.status)
        return replace(state, position=position, steps=steps, status=status)

    def places(self, state: LineState) -> Places:
        along = state.position.double()
        return Places(
            torch.stack([along, torch.zeros_like(along), torch.zeros_like(along)], dim=1),
            torch.ones_like(along),
        )


class FindPlace(Task[LineState]):
    """The goal is drawn; every step towards it is worth 1, and being there ends the episode."""

    outcomes = ("reached",)

    def __init__(self, line: Line) -> None:
        self.line = line
        self.info_spaces = {"goal": Space(dtype=torch.int64, options=line.length)}

    def given(self, count: int, **given: Any) -> dict[str, Tensor]:
        length = (self.line.length,)
        return {k: whole_rows(k, v, count, length, single=True) for k, v in given.items()}

    def begin(self, count: int, generator: Generator, **given: Tensor) -> LineState:
        length = self.line.length
        position = torch.randint(length, (count,), generator=generator)
        away = 1 + torch.randint(length - 1, (count,), generator=generator)
        position = given.get("position", position)
        return self.line.reset(position, given.get("goal", (position + away) % length))

    def reward(self, before: LineState, action: Tensor, after: LineState) -> Tensor:
        nearer = (before.position - before.goal).abs() - (after.position - after.goal).abs()
        return nearer.float()

    def ended(self, after: LineState) -> LineState:
        there = after.position == after.goal
        return replace(
            after, status=torch.where(there & (after.status != LEFT), REACHED, after.status)
        )

    def info(self, state: LineState) -> dict[str, Tensor]:
        return {"goal": state.goal}
