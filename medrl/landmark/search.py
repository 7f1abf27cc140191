"""Search without the truth: the policy of a trained model, and what whole searches come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medrl.agents import Decision, Rows, Transition, rollout
from medrl.landmark.dynamics import LEFT, MOVES, Answer, SearchDynamics, SearchState
from medrl.landmark.network import LandmarkNetwork

#: Called with the agents that have ended and their whole number.
Progress = Callable[[int, int], None]

#: Where the finest network is asked again, in steps from the answer: the corners of a cube.
_NEIGHBOURS = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])


class SearchPolicy:
    """Greedy on the networks of all levels.

    Agents of different landmarks that stand in the same place of the same scan share one window.

    Attributes:
        windows: (M,) int64, windows of each scan that went through a network so far.
    """

    def __init__(self, networks: Sequence[LandmarkNetwork], *, batch: int = 128) -> None:
        """Decide by these networks.

        Args:
            networks: One per level, finest first, in evaluation mode.
            batch: Most windows evaluated at a time.
        """
        self._networks = networks
        self._batch = batch
        self.windows = torch.zeros(0, dtype=torch.int64)

    def __call__(
        self, dynamics: SearchDynamics, state: SearchState, memory: Tensor | None
    ) -> Decision:
        """Take the moves of the highest values, and say where the networks see the landmarks."""
        values, estimate = self.evaluate(
            dynamics, state.scan, state.landmark, state.position, state.level
        )
        value, action = values.max(dim=-1)
        return Decision(action, value, extras={"estimate": estimate})

    def evaluate(
        self,
        dynamics: SearchDynamics,
        scan: Tensor,
        landmark: Tensor,
        position: Tensor,
        level: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What the networks say of R places: action values (R, 6), and estimates (R, 4)."""
        values = torch.empty((len(scan), len(MOVES)), device=scan.device)
        estimates = torch.empty((len(scan), 4), device=scan.device)
        place = torch.cat([level[:, None], scan[:, None], position], dim=1)
        unique, inverse = torch.unique(place, dim=0, return_inverse=True)
        for lv in unique[:, 0].unique().tolist():
            of_level = torch.nonzero(unique[:, 0] == lv)[:, 0]
            for chunk in of_level.split(self._batch):
                windows = dynamics.windows(unique[chunk, 1], unique[chunk, 2:], lv)
                said = self._networks[lv](windows.contiguous(memory_format=torch.channels_last_3d))
                # `unique` is sorted by level, so a chunk is a run of whole numbers.
                local = inverse - chunk[0]
                rows = torch.nonzero((local >= 0) & (local < len(chunk)))[:, 0]
                window, head = local[rows], landmark[rows]
                values[rows] = said.values[window, head].float()
                estimates[rows, :3] = said.offset[window, head].float()
                estimates[rows, 3] = said.log_scale[window, head].float()
        windows = unique[:, 1].bincount(minlength=len(dynamics.scans)).cpu()
        self.windows = windows + self.windows if len(self.windows) else windows
        return values, estimates


@dataclass(frozen=True, eq=False)
class SearchResult(Rows):
    """How N agents ended.

    Attributes:
        state: Where. The level is 0 unless an agent left the scan before.
        answer: Where they say that their landmarks are.
        value: (N,) float32, best action value at the end, in steps of the level.
        jump: (N,) float64, distance between the answers of the two last levels, in voxels of the
            finest.
    """

    state: SearchState
    answer: Answer
    value: Tensor
    jump: Tensor


@torch.inference_mode()
def search(
    dynamics: SearchDynamics,
    policy: SearchPolicy,
    state: SearchState,
    *,
    progress: Progress | None = None,
    on_step: Callable[[Transition[SearchState]], Any] | None = None,
) -> SearchResult:
    """Let agents walk until each has ended.

    On the finest level the network is asked again at the eight diagonal neighbours of an agent's
    answer, and what it says there counts as well.

    Args:
        dynamics: What they walk in.
        policy: What decides.
        state: N agents at their starts.
        progress: Called after every step.
        on_step: Called after every step; what it raises ends the search and comes out of it.
    """
    values = torch.zeros((len(state), dynamics.max_steps + 1), device=state.device)
    ended = 0

    def note(step: Transition[SearchState]) -> None:
        nonlocal ended
        assert step.decision.value is not None
        values[step.rows, step.before.steps] = step.decision.value
        if on_step is not None:
            on_step(step)
        if progress is not None:
            ended += int((~step.after.active).sum())
            progress(ended, len(state))

    end = rollout(dynamics, policy, state, on_step=note).state
    answer = dynamics.answer(end)
    fine = torch.nonzero((end.level == 0) & (end.status != LEFT))[:, 0]
    if len(fine):
        own = end.select(fine)
        around = answer.position[fine].round().long()[:, None] + _NEIGHBOURS.to(state.device)
        scan, landmark, level = (
            field.repeat_interleave(len(_NEIGHBOURS))
            for field in (own.scan, own.landmark, own.level)
        )
        _, estimates = policy.evaluate(dynamics, scan, landmark, around.view(-1, 3), level)
        further = around, estimates.view(len(fine), len(_NEIGHBOURS), 4)
        answer = answer.put(fine, dynamics.answer(own, further))
    return SearchResult(
        state=end,
        answer=answer,
        value=torch.where(end.answer_mask(), values, -torch.inf).amax(dim=1),
        jump=(answer.position - end.origin).norm(dim=1),
    )
