"""Users who know the truth: they click somewhere inside the object, and correct what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from medrl.agents import Transition, rollout
from medrl.seednet.data import LabelledGrid, dice
from medrl.seednet.dynamics import SeedState
from medrl.seednet.model import EncodedWindows, SeedModel, SeedPolicy
from medrl.seednet.oracle import VoxelSeed, oracle_seed
from medrl.seednet.windows import pasted
from medrl.walker.segmenter import FOREGROUND, NONE

Mask = NDArray[np.bool_]


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

    def encode(self, model: SeedModel) -> EncodedWindows:
        """What a model makes of the window."""
        return model.encode(self.image, self.seeds.new_tensor([self.target]).long())

    def dice(self, mask: Tensor) -> float:
        """Overlap of a mask (1, I, J, K) with the truth."""
        return dice(mask[0].cpu(), self.truth[0].cpu())


def starts(
    cases: Sequence[LabelledGrid],
    *,
    half_width: int,
    seed: int,
    targets: Sequence[int] | None = None,
    device: str = "cpu",
) -> list[Start]:
    """One start for each case and target that it has.

    Args:
        cases: Labelled patients.
        half_width: Half the side of the window around the click, voxels.
        seed: Of the clicks; each case has its own.
        targets: Which targets; all if None.
        device: Where they are wanted.
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
            nothing = torch.zeros(window.shape, dtype=torch.bool)
            truth = pasted(case.truth[target], np.zeros(3, int), nothing, window.corner)
            # Padding may lie on the scan, but it shows nothing of it.
            truth &= window.inside
            seeds = torch.full(window.shape, NONE, dtype=torch.int8)
            seeds[tuple(click - torch.from_numpy(window.corner))] = FOREGROUND
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
def let_agent(model: SeedModel, start: Start, *, stop_threshold: float | None = None) -> Answer:
    """Let the agent work from a start, and keep score.

    A stop threshold counts instead of the model's; minus infinity uses up all seeds.
    """
    encoded = start.encode(model)
    dynamics = model.on(encoded, model.prior(encoded, start.seeds))
    state = dynamics.reset(start.seeds)
    overlaps, gains = [start.dice(state.mask)], []

    def keep_score(step: Transition[SeedState]) -> None:
        assert step.decision.value is not None
        gains.append(float(step.decision.value[0]))
        if int(step.after.steps[0]) == len(overlaps):
            overlaps.append(start.dice(step.after.mask))

    policy = SeedPolicy(model, encoded, stop_threshold=stop_threshold)
    walked = rollout(dynamics, policy, state, on_step=keep_score)
    return Answer(tuple(overlaps), tuple(gains), walked.state)


def corrected(
    segment: Callable[[Sequence[VoxelSeed]], Mask],
    truth: Mask,
    *,
    clicks: int,
    goal: float = math.inf,
    most: int = 0,
    generator: Generator | None = None,
) -> list[float]:
    """Let a person who knows the truth correct, click by click, in the middle of what is wrong.

    Args:
        segment: From the corrections so far, besides the first click, to a mask (I, J, K).
        truth: (I, J, K).
        clicks: Corrections.
        goal: Overlap up to which the person goes on after those,
        most: with at most so many corrections in all.
        generator: Draws among equally good places.

    Returns:
        Overlap before and after each correction.
    """
    seeds: list[VoxelSeed] = []
    mask = segment(seeds)
    overlaps = [dice(mask, truth)]
    while len(overlaps) <= clicks or (len(overlaps) <= most and overlaps[-1] < goal):
        found = oracle_seed(mask, truth, generator=generator)
        if found is not None:
            seeds = [*seeds, found]
            mask = segment(seeds)
        overlaps.append(dice(mask, truth))
    return overlaps
