"""From many orientations to one answer: agents walk side by side, look ahead, and are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.registration.dynamics import RegistrationDynamics
from medrl.registration.network import RegistrationNetwork, expected_steps
from medrl.registration.similarity import similarity
from medrl.registration.transforms import Kind, constrain, move, rotation
from medrl.trajectory import Step, Watch

Judge = Literal["similarity", "error"]

#: Parameters that agents of each kind change.
_FREE: dict[Kind, int] = {"rigid": 6, "similarity": 7, "affine": 12}


@dataclass(frozen=True)
class SearchSettings:
    """How agents go about it.

    Attributes:
        probes: For each step on each level, coarsest first: how far an agent tries each parameter
            up and down, in mm, degrees and per cent.
        keep: Agents left at the end of each level; every step sends home up to half.
        lengths: Shares of the network's step that are tried; none to leave it out.
        lookahead: Whether agents try before they go, and stay where nothing is better. Without it
            they take the network's step.
        judge: What tells which of two transforms is better, and which agent: the similarity of
            the scans, or the error that the network predicts (Sun et al., MedIA 2021, look ahead
            with the value function).
        memory: Whether agents of each level remember their walk (the recurrent core).
    """

    probes: tuple[tuple[float, ...], ...] = (
        (16.0, 12.0, 10.0, 8.0, 6.0, 5.0, 4.0, 3.0),
        (5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.6),
    )
    keep: tuple[int, ...] = (4, 1)
    lengths: tuple[float, ...] = (1.0, 0.5)
    lookahead: bool = True
    judge: Judge = "similarity"
    memory: tuple[bool, ...] = (True, True)


class Walk(NamedTuple):
    """What one agent did.

    Attributes:
        start: Number of its starting point.
        transforms: (T, 4, 4), the last being its answer.
        errors: (T,) mean error of each that the network predicts, mm.
        spacings: (T,) voxel size it looked at, mm.
        merit: How the judge likes the answer, more is better.
    """

    start: int
    transforms: Tensor
    errors: Tensor
    spacings: Tensor
    merit: float


Level = tuple[RegistrationNetwork, RegistrationDynamics]


@torch.no_grad()
def search(
    levels: Sequence[Level],
    starts: Tensor,
    *,
    kind: Kind,
    settings: SearchSettings,
    first: int = 0,
    watch: Watch | None = None,
) -> list[Walk]:
    """Let agents walk from many starts; fewer and fewer of them go on.

    Args:
        levels: Network and dynamics of each, coarsest first.
        starts: (N, 4, 4) float64.
        kind: What agents may change.
        settings: How.
        first: Number of the first start.
        watch: Told of the agents that are still there before each step, and once more at the end
            of each level: where each brings the middle of the fixed scan, and what the judge says
            of it. What it raises ends the search, and comes out of it.

    Returns:
        Walks of the agents that reached the end, the best first.
    """
    crowd = _Crowd(starts, first)
    for index, level in enumerate(levels):
        _walk(level, crowd, index, kind, settings, watch)
    return crowd.walks()


def _walk(
    level: Level,
    crowd: _Crowd,
    index: int,
    kind: Kind,
    settings: SearchSettings,
    watch: Watch | None,
) -> None:
    """All steps on one level."""
    network, dynamics = level
    sizes = dynamics.level.steps
    memory = network.blank(crowd.count)
    merit = crowd.merit = _judge(level, crowd.transforms, settings.judge)
    for probe in settings.probes[index]:
        now = crowd.transforms
        if watch is not None:
            watch(crowd.step(dynamics))
        decision = network(dynamics.look(now), memory if settings.memory[index] else None)
        memory = decision.memory
        crowd.note(decision.error, dynamics.level.spacing)
        steps = constrain(expected_steps(decision.logits, sizes), kind)
        if settings.lookahead:
            options, merits = _try(level, now, merit, steps, probe, kind, settings)
            best = merits.argmax(dim=0)
            row = torch.arange(len(now))
            crowd.go(options[best, row], merits[best, row])
        else:
            there = dynamics.step(now, steps, kind=kind)
            crowd.go(there, _judge(level, there, settings.judge))
        kept = crowd.keep(max(settings.keep[index], crowd.count // 2))
        memory, merit = memory[kept], crowd.merit
    crowd.keep(settings.keep[index])
    crowd.note(network(dynamics.look(crowd.transforms)).error, dynamics.level.spacing)
    if watch is not None:
        watch(crowd.step(dynamics))


def _try(
    level: Level,
    now: Tensor,
    merit: Tensor,
    steps: Tensor,
    probe: float,
    kind: Kind,
    settings: SearchSettings,
) -> tuple[Tensor, Tensor]:
    """Where agents could go (O, N, 4, 4), staying included, and what the judge says (O, N).

    They could take the network's step or a part of it; change one parameter, as the papers'
    agents do; or change all those at once that are better changed.
    """
    dynamics = level[1]
    free = _FREE[kind]
    options = [dynamics.step(now, length * steps, kind=kind) for length in settings.lengths]
    single = torch.zeros((2 * free, 12), dtype=now.dtype, device=now.device)
    row = torch.arange(free)
    single[row, row], single[free + row, row] = probe, -probe
    if kind == "similarity":
        single[:, 6:9] = single[:, 6:7]
    moves = single[:, None].expand(-1, len(now), -1)
    options += [dynamics.step(now, move, kind=kind) for move in moves]
    tried = torch.stack(options)
    merits = _judge(level, tried.flatten(0, 1), settings.judge).view(len(tried), -1)
    up, down = merits[-2 * free : -free], merits[-free:]
    better = (torch.maximum(up, down) > merit).to(now.dtype)
    move = torch.zeros_like(steps)
    move[:, :free] = (better * torch.where(up > down, probe, -probe)).T
    if kind == "similarity":
        move[:, 6:9] = move[:, 6:7]
    together = dynamics.step(now, move, kind=kind)
    last = _judge(level, together, settings.judge)
    return torch.cat([now[None], tried, together[None]]), torch.cat(
        [merit[None], merits, last[None]]
    )


def _judge(level: Level, transforms: Tensor, judge: Judge) -> Tensor:
    """Merit (N,) of transforms, more is better."""
    network, dynamics = level
    if judge == "error":
        return -network(dynamics.look(transforms)).error.double()
    return similarity(dynamics.fixed, dynamics.look_moving(transforms))


class _Crowd:
    """Agents side by side, and where each of them has been."""

    def __init__(self, starts: Tensor, first: int) -> None:
        self.transforms = starts
        self.merit = starts.new_zeros(len(starts))
        self._numbers = torch.arange(first, first + len(starts))
        self._been: list[tuple[Tensor, Tensor, float]] = []

    @property
    def count(self) -> int:
        return len(self.transforms)

    def note(self, error: Tensor, spacing: float) -> None:
        """Remember where agents are, and what the network says of it (log(1 + mm))."""
        predicted = error.double().clamp(0, 6).expm1()
        self._been.append((self.transforms, predicted, spacing))

    def go(self, transforms: Tensor, merit: Tensor) -> None:
        self.transforms, self.merit = transforms, merit

    def keep(self, count: int) -> Tensor:
        """Send home all but the best agents; the rows of those who stay, the best first."""
        rows = self.merit.argsort(descending=True)[:count]
        self._numbers = self._numbers[rows.cpu()]
        self.transforms, self.merit = self.transforms[rows], self.merit[rows]
        self._been = [(t[rows], e[rows], s) for t, e, s in self._been]
        return rows

    def step(self, dynamics: RegistrationDynamics) -> Step:
        """Where those who are still there have got to."""
        numbers = self._numbers.tolist()
        return Step(
            names=tuple(f"start {number}" for number in numbers),
            starts=np.array(numbers),
            positions_world=_numpy(move(self.transforms, dynamics.pivot)[:, 0]),
            scales_mm=np.full(len(numbers), dynamics.level.spacing),
            actions=np.full(len(numbers), -1),
            values=_numpy(self.merit),
            transforms=_numpy(self.transforms),
        )

    def walks(self) -> list[Walk]:
        transforms = torch.stack([t for t, _, _ in self._been], dim=1).cpu()
        errors = torch.stack([e for _, e, _ in self._been], dim=1).cpu()
        spacings = torch.tensor([s for _, _, s in self._been])
        return [
            Walk(int(n), transforms[row], errors[row], spacings, float(self.merit[row]))
            for row, n in enumerate(self._numbers)
        ]


def _numpy(values: Tensor) -> NDArray[np.float64]:
    """A copy, which a watcher may keep or change."""
    return np.array(values.numpy(force=True), dtype=np.float64)


def orientations() -> Tensor:
    """The 24 rotations that bring a cube's axes onto its axes, the identity first, (24, 3, 3).

    No rotation is further than 63 degrees from one of them.
    """
    found = []
    for axes in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = torch.zeros((3, 3), dtype=torch.float64)
            matrix[torch.arange(3), list(axes)] = torch.tensor(signs, dtype=torch.float64)
            if torch.linalg.det(matrix) > 0:
                found.append(matrix)
    found.sort(key=lambda m: -float(m.trace()))
    return torch.stack(found)


def starting_points(
    fixed_center: Tensor, moving_center: Tensor, *, between: bool = False
) -> Tensor:
    """Transforms (24, 4, 4) that bring the centers (3,) together in every orientation.

    Args:
        fixed_center: Fixed world.
        moving_center: Moving world.
        between: Turn all orientations by 60 degrees about a cube's diagonal, which brings each half
            way to another one.
    """
    turns = orientations()
    if between:
        turns = turns @ rotation(torch.full((3,), 60 / 3**0.5, dtype=torch.float64))
    starts = torch.eye(4, dtype=torch.float64).repeat(len(turns), 1, 1)
    starts[:, :3, :3] = turns
    starts[:, :3, 3] = moving_center - turns @ fixed_center
    return starts
