"""From a prepared scan to boxes: proposals, and the agents' walks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.agents import Decision, Rows, Transition, rollout
from medrl.agents.policy import masked
from medrl.localization.dynamics import TRIGGER, Answer, BoxDynamics, BoxState
from medrl.localization.network import CELL, BoxNetwork, Proposer, padded

Array = NDArray[np.float64]

#: Most candidates of a target, and the least that the heatmap must say of one.
_MOST_CANDIDATES, _LEAST = 4, 0.002
#: What a candidate's heat must be of the target's highest.
_LEAST_SHARE = 0.05
#: Most objects of a kind that are found in a scan.
_MOST_OF_A_KIND = 48
#: Column of what a confidence is conditioned on that holds the log of the expected error.
LOG_ERROR = 2
#: How much larger than the answer boxes are that an agent looks at once more.
_ZOOMS = (1.0, 1.15, 0.9)


@dataclass(frozen=True, eq=False)
class Candidates(Rows):
    """C places where something may be.

    Attributes:
        target: (C,) int64, what.
        heat: (C,) float64, log odds that the heatmap gives.
        box: (C, 2, 3) float64, voxels of the finest level.
    """

    target: Tensor
    heat: Tensor
    box: Tensor


@torch.inference_mode()
def propose(
    proposer: Proposer,
    dynamics: BoxDynamics,
    *,
    scan: int,
    level: int,
    several: Collection[int] = (),
) -> Candidates:
    """Look at a whole scan once.

    Args:
        proposer: In evaluation mode.
        dynamics: Holds the scan.
        scan: Which.
        level: Pyramid level that the proposer looks at.
        several: Targets that there may be many of.

    Returns:
        The highest peaks of each target's heatmap that are inside the scan.
    """
    pyramid = dynamics.scans[scan]
    volume = pyramid.levels[level]
    heat, faces = (out[0] for out in proposer(padded(volume)[None]))
    stride = CELL * pyramid.strides[level]
    # Behind the end of the scan, nothing has its middle.
    ends = [-(-side // CELL) for side in volume.shape[1:]]
    heat = heat[:, : ends[0], : ends[1], : ends[2]].sigmoid()
    faces = faces[:, :, : ends[0], : ends[1], : ends[2]]
    peak = heat * (largest_near(heat) == heat)
    found = []
    for target in range(len(heat)):
        most = _MOST_OF_A_KIND if target in several else _MOST_CANDIDATES
        score, place = peak[target].flatten().topk(min(most, peak[target].numel()))
        enough = score >= max(_LEAST, _LEAST_SHARE * float(score[0]))
        score, place = score[enough], place[enough]
        box = _seen_near(heat[target], faces[target], place) * stride
        found.append(Candidates(torch.full_like(place, target), score.double().logit(1e-6), box))
    return Candidates.cat(found)


def largest_near(heat: Tensor) -> Tensor:
    """The largest of each cell and its 26 neighbours in maps (K, I, J, L).

    Axis by axis: a tenth of the time that ``max_pool3d`` takes on a CPU.
    """
    for axis in (1, 2, 3):
        beside, grown = heat.shape[axis] - 1, heat.clone()
        for at, other in ((0, 1), (1, 0)):
            part = grown.narrow(axis, at, beside)
            torch.maximum(part, heat.narrow(axis, other, beside), out=part)
        heat = grown
    return heat


def _seen_near(heat: Tensor, faces: Tensor, place: Tensor) -> Tensor:
    """Boxes (P, 2, 3) in cells as the cells around some of them see the faces, weighed by heat.

    Args:
        heat: (I, J, K), probabilities.
        faces: (6, I, J, K), distances to the lower and the upper faces.
        place: (P,) int64, which cells, flattened.
    """
    shape = torch.tensor(heat.shape, device=heat.device)
    middle = torch.stack(torch.unravel_index(place, tuple(heat.shape)), dim=1)
    near = torch.cartesian_prod(*[torch.arange(-1, 2, device=heat.device)] * 3)
    cell = middle[:, None] + near
    inside = ((cell >= 0) & (cell < shape)).all(dim=2)
    i, j, k = cell.clamp(min=0).minimum(shape - 1).unbind(dim=2)
    weight = torch.where(inside, heat[i, j, k], 0.0).double()
    away = faces[:, i, j, k].double().movedim(0, -1)
    boxes = torch.stack([cell - away[..., :3], cell + away[..., 3:]], dim=2)
    return (boxes * weight[..., None, None]).sum(dim=1) / weight.sum(dim=1)[:, None, None]


class Look(NamedTuple):
    """What the network says of N boxes.

    Attributes:
        values: (N, A), action values.
        estimate: (N, 2, 2, 3), where it sees the faces: offsets from the box's in voxels of the
            finest level, and the logs of their expected errors.
        features: (N, F), what its encoders make of the windows.
    """

    values: Tensor
    estimate: Tensor
    features: Tensor


class BoxPolicy:
    """Greedy on the network, which also says where it sees the faces."""

    def __init__(self, network: BoxNetwork, *, batch: int = 64) -> None:
        """Decide by a network in evaluation mode, on so many boxes at a time."""
        self._network = network
        self._batch = batch

    def __call__(self, dynamics: BoxDynamics, state: BoxState, memory: Tensor | None) -> Decision:
        """Take the actions of the highest values."""
        values, estimate, _ = self.look(dynamics, state)
        scores = masked(values, dynamics.allowed(state))
        value, action = scores.max(dim=-1)
        return Decision(action, value, score=scores[:, TRIGGER], extras={"estimate": estimate})

    def look(self, dynamics: BoxDynamics, state: BoxState) -> Look:
        """What the network says of the agents' boxes."""
        values, estimate, features = [], [], []
        for rows in torch.arange(len(state), device=state.device).split(self._batch):
            own = state.select(rows)
            said = self._network(*dynamics.observe(own).values())
            step = dynamics.window_step(own.box)[:, None].float()
            error = said.log_error + step.log()
            values.append(said.values)
            estimate.append(torch.stack([said.offset * step, error], dim=1))
            features.append(said.features)
        return Look(torch.cat(values), torch.cat(estimate), torch.cat(features))


@dataclass(frozen=True, eq=False)
class Walked:
    """How N agents ended.

    Attributes:
        state: Where.
        answer: Where they say that the boxes are.
        features: (N, F) what a confidence is conditioned on.
        encoded: (N, E) what the network's encoders make of what is there.
    """

    state: BoxState
    answer: Answer
    features: Array
    encoded: Array


@torch.inference_mode()
def walk(
    dynamics: BoxDynamics,
    policy: BoxPolicy,
    state: BoxState,
    heat: Tensor,
    *,
    on_step: Callable[[Transition[BoxState]], Any] | None = None,
) -> Walked:
    """Let agents walk until each has ended.

    Args:
        dynamics: What they live in.
        policy: What decides.
        state: N agents at their starts.
        heat: (N,) log odds that the heatmap gave their starts.
        on_step: Called after every step.
    """
    end = rollout(dynamics, policy, state, on_step=on_step)
    answer = dynamics.answer(end.state)
    encoded = torch.zeros((0, 1))
    if len(state):
        answer, encoded = looked_again(dynamics, policy, end.state, answer)
    size = (answer.box[:, 1] - answer.box[:, 0]).log().mean(dim=1)
    start = (answer.box - end.state.visited[:, 0]).abs().mean(dim=(1, 2)).clamp(min=1e-3).log()
    columns = [
        heat.cpu(),
        end.score.cpu(),
        (answer.log_error - size).cpu(),
        (answer.spread.clamp(min=1e-3).log() - size).cpu(),
        (start - size).cpu(),
    ]
    features = torch.stack(columns, dim=1).double().numpy()
    return Walked(end.state, answer, features, encoded.double().numpy(force=True))


def looked_again(
    dynamics: BoxDynamics, policy: BoxPolicy, state: BoxState, answer: Answer, *, times: int = 2
) -> tuple[Answer, Tensor]:
    """Answers of agents that look again at boxes around what they have answered.

    Each look is at the last answer, a little wider and narrower; all of a time count alike.

    Args:
        dynamics: What they live in.
        policy: What decides.
        state: N agents that have ended.
        answer: Theirs.
        times: How often; at least once.

    Returns:
        The answers, and (N, F) what the network's encoders made of the last but one.
    """
    for _ in range(times):
        center, count = answer.box.mean(dim=1, keepdim=True), len(_ZOOMS)
        box = torch.cat([center + (answer.box - center) * scale for scale in _ZOOMS])
        again = dynamics.reset(
            state.scan.repeat(count),
            state.target.repeat(count),
            box,
            torch.zeros_like(state.share).repeat(count),
        )
        look = policy.look(dynamics, again)
        encoded = look.features[: len(state)]
        offset, log_error = look.estimate.double().unflatten(0, (count, -1)).unbind(dim=2)
        boxes = again.box.unflatten(0, (count, -1)) + offset
        weight = torch.exp(-2 * log_error)
        weight = weight / weight.sum(dim=0)
        mean = (boxes * weight).sum(dim=0)
        spread = ((boxes - mean).square() * weight).sum(dim=0).mean(dim=(1, 2)).sqrt()
        answer = Answer(mean, (log_error * weight).sum(dim=0).mean(dim=(1, 2)), spread)
    return answer, encoded
