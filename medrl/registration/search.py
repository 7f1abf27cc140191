"""From many orientations to one answer: agents walk side by side, look ahead, and are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, permutations, product
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from medrl.agents import Decision, Recorder, rollout
from medrl.agents.rollout import Beam
from medrl.registration.dynamics import RegistrationDynamics, RegistrationState, step_sizes
from medrl.registration.network import RegistrationNetwork, expected_steps
from medrl.registration.similarity import similarity
from medrl.registration.transforms import directions
from medrl.trajectory import AgentPath, Watch
from medrl.volume.rotations import rotation

Scorer = Literal["similarity", "error"]

#: What scores are, by what gives them; more is better.
SCORES: dict[Scorer, str] = {
    "similarity": "normalised mutual information - 1",
    "error": "mm, negative",
}


@dataclass(frozen=True)
class SearchSettings:
    """How agents go about it. What is for each level is listed finest first.

    Attributes:
        candidate_steps: For each level and each step on it: how far an agent tries each parameter
            up and down, in mm, degrees and per cent.
        keep: Agents left at the end of each level; after every step at least half go on.
        shares: Shares of the network's step that are tried; none to leave it out.
        lookahead: Whether agents try before they go, and stay where nothing is better. Without it
            they take the network's step.
        scorer: What tells which of two transforms is better, and which agent: the similarity of
            the scans, or the error that the network predicts (Sun et al., MedIA 2021, look ahead
            with the value function).
        memory: Whether agents of each level remember their steps on it (the recurrent core).
    """

    candidate_steps: tuple[tuple[float, ...], ...] = (
        (5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.6),
        (16.0, 12.0, 10.0, 8.0, 6.0, 5.0, 4.0, 3.0),
    )
    keep: tuple[int, ...] = (1, 4)
    shares: tuple[float, ...] = (1.0, 0.5)
    lookahead: bool = True
    scorer: Scorer = "similarity"
    memory: tuple[bool, ...] = (True, True)


class LookAheadPolicy:
    """Tries the network's step and others in the dynamics, and takes what leads to the best place.

    Agents could take the network's step or a share of it; change one parameter, as the agents of
    Liao et al. (AAAI 2017) do; change all those at once that are better changed; or stay. The value
    of a decision is the score of the place where it is made.

    What agents remember, (N, M + 1) float64, is the state of the recurrent core on their level,
    and the score of the place where they are.
    """

    def __init__(
        self, networks: Sequence[RegistrationNetwork], settings: SearchSettings | None = None
    ) -> None:
        """Decide by the networks of all levels, finest first."""
        self._networks = networks
        self._settings = settings or SearchSettings()

    def blank(self, count: int) -> Tensor:
        """The memory of agents that have seen nothing."""
        widest = max((one.blank(1) for one in self._networks), key=lambda blank: blank.shape[1])
        return widest.new_zeros((count, widest.shape[1] + 1), dtype=torch.float64)

    @torch.no_grad()
    def __call__(
        self, dynamics: RegistrationDynamics, state: RegistrationState, memory: Tensor | None
    ) -> Decision:
        """Decide, see :class:`medrl.agents.Policy`."""
        if memory is None:
            memory = self.blank(len(state))
        parts = [
            (rows, self._decide(dynamics, level, state.select(rows), memory[rows]))
            for level, rows in dynamics.by_level(state)
        ]
        if len(parts) == 1:
            return parts[0][1]
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return Decision.cat([part for _, part in parts]).select(order)

    def score(
        self, dynamics: RegistrationDynamics, level: int, pair: Tensor, transform: Tensor
    ) -> Tensor:
        """Scores (N,) float64 of places on a level, see :data:`SCORES`."""
        if self._settings.scorer == "error":
            outputs = self._networks[level](dynamics.look(level, pair, transform))
            return -outputs.error.double().expm1()
        return similarity(dynamics.fixed(level, pair), dynamics.look_moving(level, pair, transform))

    def _decide(
        self, dynamics: RegistrationDynamics, level: int, state: RegistrationState, memory: Tensor
    ) -> Decision:
        """Decisions of agents on one level."""
        settings, network = self._settings, self._networks[level]
        pair, here = state.pair, state.transform
        begins = state.steps == 0
        core = memory[:, :-1].masked_fill(begins[:, None], 0.0).float()
        score = memory[:, -1]
        if bool(begins.any()):
            score = torch.where(begins, self.score(dynamics, level, pair, here), score)
        width = network.blank(1).shape[1]
        outputs = network(
            dynamics.look(level, pair, here), core[:, :width] if settings.memory[level] else None
        )
        sizes = step_sizes(dynamics.views[level].spacing).to(here.device)
        steps = expected_steps(outputs.logits, sizes)
        if settings.lookahead:
            sizes = torch.tensor(settings.candidate_steps[level]).to(here)[state.steps]
            action, ahead = self._ahead(dynamics, level, state, score, steps, sizes)
        else:
            action = steps
            ahead = self.score(dynamics, level, pair, dynamics.moved(pair, here, steps))
        memory = memory.clone()
        memory[:, :width], memory[:, -1] = outputs.memory.double(), ahead
        return Decision(action, value=score, score=ahead, memory=memory)

    def _ahead(
        self,
        dynamics: RegistrationDynamics,
        level: int,
        state: RegistrationState,
        score: Tensor,
        steps: Tensor,
        sizes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The best of what agents could do (N, 12), and the score of where it leads (N,)."""
        pair, here = state.pair, state.transform

        def scores_of(tried: Tensor) -> Tensor:
            pairs, places = pair.repeat(len(tried)), here.repeat(len(tried), 1, 1)
            there = dynamics.moved(pairs, places, tried.flatten(0, 1))
            return self.score(dynamics, level, pairs, there).view(len(tried), -1)

        along = directions(dynamics.rules.kind).to(here)
        free = len(along)
        single = torch.cat([along, -along])[:, None] * sizes[:, None]
        shares = steps.new_tensor(self._settings.shares)[:, None, None] * steps
        tried = torch.cat([shares, single])
        scores = scores_of(tried)
        up, down = scores[-2 * free : -free], scores[-free:]
        better = torch.maximum(up, down) > score
        signs = torch.where(up > down, 1.0, -1.0).double() * better
        combined = (signs.T @ along) * sizes[:, None]
        tried = torch.cat([torch.zeros_like(steps)[None], tried, combined[None]])
        scores = torch.cat([score[None], scores, scores_of(combined[None])])
        best = scores.argmax(dim=0)
        row = torch.arange(len(best), device=best.device)
        return tried[best, row], scores[best, row]


class NetworkPolicy:
    """Takes the step of a network for the one level there is, without a look ahead."""

    def __init__(self, network: RegistrationNetwork, *, remembers: bool) -> None:
        """Decide by this network, with its recurrent core or without."""
        self._network = network
        self._remembers = remembers

    def blank(self, count: int) -> Tensor:
        """The memory of agents that have seen nothing."""
        return self._network.blank(count)

    @torch.no_grad()
    def __call__(
        self, dynamics: RegistrationDynamics, state: RegistrationState, memory: Tensor | None
    ) -> Decision:
        """Decide, see :class:`medrl.agents.Policy`."""
        windows = dynamics.observe(state)["windows"]
        outputs = self._network(windows, memory if self._remembers else None)
        sizes = step_sizes(dynamics.views[0].spacing).to(windows.device)
        return Decision(expected_steps(outputs.logits, sizes), memory=outputs.memory)


class Walk(NamedTuple):
    """What one agent did.

    Attributes:
        transform_world: (4, 4) its answer, fixed world to moving world, RAS mm.
        score: Of the answer, more is better.
        path: Where it brought the middle of the fixed scan, and the score there, at each step.
    """

    transform_world: Tensor
    score: float
    path: AgentPath


def search(
    dynamics: RegistrationDynamics,
    networks: Sequence[RegistrationNetwork],
    starts: Tensor,
    *,
    settings: SearchSettings,
    first: int = 0,
    watch: Watch | None = None,
) -> list[Walk]:
    """Let agents walk from many starts; fewer and fewer of them go on.

    Args:
        dynamics: Where they walk, with one pair.
        networks: Of each level, finest first.
        starts: (N, 4, 4) float64.
        settings: How.
        first: Number of the first start.
        watch: Told of the agents that are still there at every step, and once more at the end:
            where each brings the middle of the fixed scan, and the score. What it raises ends the
            search, and comes out of it.

    Returns:
        Walks of the agents that reached the end, the best first.
    """
    count = len(starts)
    numbers = range(first, first + count)
    recorder = Recorder(
        dynamics,
        [f"start {number}" for number in numbers],
        starts=numbers,
        value_unit=SCORES[settings.scorer],
        watch=watch,
    )
    done = rollout(
        dynamics,
        LookAheadPolicy(networks, settings),
        dynamics.reset(torch.zeros(count, dtype=torch.int64), starts),
        beam=halving(tuple(map(len, settings.candidate_steps)), settings.keep),
        on_step=recorder,
    )
    ended = torch.nonzero(done.state.status > 0)[:, 0]
    best = ended[done.score[ended].argsort(descending=True, stable=True)][: settings.keep[0]]
    recorder.end(done.state, value=done.score, rows=best)
    paths = {path.start: path for path in recorder.trajectory("registration", {}).agents}
    outcome = dynamics.outcomes
    return [
        Walk(
            done.state.transform[row].cpu(),
            float(done.score[row]),
            replace(paths[first + row], outcome=outcome[int(done.state.status[row])]),
        )
        for row in best.tolist()
    ]


def halving(schedule: Sequence[int], keep: Sequence[int]) -> Beam:
    """A beam that sends home up to half of the agents after every step.

    Args:
        schedule: Steps on each level, finest first.
        keep: Agents left at the end of each level, finest first.
    """
    ends = list(accumulate(reversed(schedule)))
    least = list(reversed(keep))

    def goes_on(index: int, count: int) -> int:
        level = next(n for n, end in enumerate(ends) if index < end)
        return least[level] if index + 1 == ends[level] else max(least[level], count // 2)

    return goes_on


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
