"""Cases as a user meets them: a window, one click somewhere inside the object, and corrections."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from medrl.agents import Transition, rollout
from medrl.seednet.data import LabelledGrid
from medrl.seednet.dynamics import SeedState
from medrl.seednet.model import EncodedWindows, SeedModel, SeedPolicy
from medrl.seednet.oracle import oracle_seeds
from medrl.seednet.rewards import dice
from medrl.walker.segmenter import FOREGROUND, NONE


@dataclass(frozen=True, eq=False)
class Start:
    """One window and the first click in it.

    Attributes:
        name: Of the case.
        target: Number of the target.
        image: (1, C, I, J, K) float32, normalised.
        truth: (1, I, J, K) bool.
        seeds: (1, I, J, K) int8, one foreground voxel.
    """

    name: str
    target: int
    image: Tensor
    truth: Tensor
    seeds: Tensor


def starts(
    cases: Sequence[LabelledGrid],
    *,
    half_width: int,
    seed: int,
    targets: Sequence[int] | None = None,
    device: str = "cpu",
) -> list[Start]:
    """One start for each case and target.

    Args:
        cases: Labelled patients.
        half_width: Half the side of the window around the click, voxels.
        seed: Of the clicks; each case has its own.
        targets: Which targets; all if None.
        device: Where they are wanted.

    Returns:
        The starts; targets that a case lacks are left out.
    """
    out = []
    for number, case in enumerate(cases):
        for target in range(len(case.truth)) if targets is None else targets:
            where = case.truth[target].nonzero()
            if len(where) == 0:
                continue
            generator = Generator().manual_seed(seed + 1000 * number + target)
            click = where[int(torch.randint(len(where), (), generator=generator))]
            window = case.grid.window((click - half_width).tolist(), (click + half_width).tolist())
            corner = (case.grid.voxel_of(window.to_world((0, 0, 0)))).tolist()
            # Padding may lie on the scan, but it shows nothing of it.
            truth = _cut(case.truth[target], corner, window.shape) & window.inside
            seeds = torch.full(window.shape, NONE, dtype=torch.int8)
            i, j, k = (int(c - a) for c, a in zip(click, corner, strict=True))
            seeds[i, j, k] = FOREGROUND
            parts = (part[None].to(device) for part in (window.image, truth, seeds))
            out.append(Start(case.name, target, *parts))
    return out


@dataclass(frozen=True, eq=False)
class Answer:
    """How an episode from one start went.

    Attributes:
        dice: Overlap after the click and after each seed of the agent.
        gains: What the agent expected of each next seed; one more than its seeds unless it used
            up all.
        state: The end.
    """

    dice: tuple[float, ...]
    gains: tuple[float, ...]
    state: SeedState


@torch.no_grad()
def let_agent(
    model: SeedModel,
    encoded: EncodedWindows,
    start: Start,
    prior: Tensor,
    *,
    stop_threshold: float | None = None,
) -> Answer:
    """Let the agent work from a start, and keep score.

    Args:
        model: The model.
        encoded: What it made of the start's window.
        start: Window and click.
        prior: (1, I, J, K).
        stop_threshold: Instead of the model's; minus infinity to make it use up its seeds.
    """
    dynamics = model.on(encoded, prior)
    state = dynamics.reset(start.seeds)
    overlaps, gains = [_dice(state, start)], []

    def keep_score(step: Transition[SeedState]) -> None:
        assert step.decision.value is not None
        gains.append(float(step.decision.value[0]))
        if int(step.after.steps[0]) == len(overlaps):
            overlaps.append(_dice(step.after, start))

    policy = SeedPolicy(model, encoded, stop_threshold=stop_threshold)
    walked = rollout(dynamics, policy, state, on_step=keep_score)
    return Answer(tuple(overlaps), tuple(gains), walked.state)


@torch.no_grad()
def correct(
    segment: Callable[[Tensor], Tensor],
    start: Start,
    *,
    clicks: int,
    goal: float = math.inf,
    most: int = 0,
    generator: Generator | None = None,
) -> list[float]:
    """Let a person who knows the truth correct, click by click.

    Args:
        segment: From seeds (1, I, J, K) int8 to a probability (1, I, J, K).
        start: Window and first click.
        clicks: Corrections.
        goal: Overlap up to which the person goes on after those,
        most: with at most so many corrections in all.
        generator: Draws among equally good places.

    Returns:
        Overlap before and after each click.
    """
    placed = start.seeds.clone()
    mask = segment(placed) > 0.5
    overlaps = [float(dice(mask, start.truth)[0])]
    while len(overlaps) <= clicks or (len(overlaps) <= most and overlaps[-1] < goal):
        (voxel,), (label,) = oracle_seeds(mask, start.truth, generator=generator)
        if int(label) != NONE:
            i, j, k = voxel.tolist()
            placed[0, i, j, k] = int(label)
            mask = segment(placed) > 0.5
        overlaps.append(float(dice(mask, start.truth)[0]))
    return overlaps


def _dice(state: SeedState, start: Start) -> float:
    return float(dice(state.mask, start.truth)[0])


def _cut(mask: Tensor, corner: Sequence[int], shape: Sequence[int]) -> Tensor:
    """The part of a mask (I, J, K) that a window covers; False outside the mask."""
    out = torch.zeros(tuple(shape), dtype=torch.bool)
    low = [max(0, a) for a in corner]
    high = [min(n, a + m) for n, a, m in zip(mask.shape, corner, shape, strict=True)]
    source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    target = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))
    out[target] = mask[source]
    return out
