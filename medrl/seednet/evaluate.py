"""Measure a seed model on labelled cases: from one click, next to what it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from medrl.seednet.baselines import (
    intensity_region,
    plain_segmenter,
    random_seeds,
    suv_region,
)
from medrl.seednet.data import LabelledGrid
from medrl.seednet.model import SeedModel
from medrl.seednet.rewards import dice
from medrl.seednet.simulated_user import Start, correct, let_agent, starts
from medrl.walker.geodesic import GeodesicSegmenter
from medrl.walker.segmenter import RandomWalker

AGENT = "agent"
#: Methods that give one answer from one click, in the order of tables.
ONE_CLICK = (
    AGENT,
    "network + walker",
    "network",
    "random seeds",
    "oracle, intensity walker",
    "one-click threshold",
)
#: Methods that answer to a person's corrections.
CORRECTED = (AGENT, "network", "intensity walker", "geodesic")
#: Overlap that clicks are counted to, and the most that are tried.
GOAL, MOST_CLICKS = 0.90, 15
_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Record:
    """One case and target.

    Attributes:
        name: Of the case.
        target: Name of the target.
        one_click: Dice of each method from one click.
        by_seeds: The agent's Dice with a fixed number of seeds, 0, 1, ...
        seeds: How many the agent placed before it stopped.
        corrections: Dice of each method after 0, 1, ... corrections.
        clicks: Clicks, the first one included, that each method needs to reach :data:`GOAL`;
            one more than were tried if it does not.
    """

    name: str
    target: str
    one_click: dict[str, float]
    by_seeds: tuple[float, ...]
    seeds: int
    corrections: dict[str, tuple[float, ...]]
    clicks: dict[str, int]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of a model.

    Attributes:
        records: One a case and target.
    """

    records: tuple[Record, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each case, target and method: Dice from one click."""
        return [
            {"case": r.name, "target": r.target, "method": method, "dice": value}
            for r in self.records
            for method, value in r.one_click.items()
        ]

    def summary(self) -> dict[str, Any]:
        """Figures by target, ready for JSON."""
        targets = list(dict.fromkeys(r.target for r in self.records))
        return {
            target: self._of([r for r in self.records if r.target == target]) for target in targets
        }

    @staticmethod
    def _of(records: Sequence[Record]) -> dict[str, Any]:
        names = [r.name for r in records]
        agent = np.array([r.one_click[AGENT] for r in records])
        methods = {}
        for method in records[0].one_click:
            values = np.array([r.one_click[method] for r in records])
            methods[method] = {
                "mean_dice": float(values.mean()),
                "worst_dice": float(values.min()),
                "agent_minus_this": paired_bootstrap(agent - values, names)
                if method != AGENT
                else None,
            }
        fixed = np.array([r.by_seeds for r in records]).mean(axis=0)
        summary: dict[str, Any] = {
            "cases": len(records),
            "one_click": methods,
            "agent_seeds_mean": float(np.mean([r.seeds for r in records])),
            "dice_by_fixed_seeds": [float(value) for value in fixed],
        }
        if records[0].corrections:
            summary["dice_by_corrections"] = {
                method: np.mean([r.corrections[method] for r in records], axis=0).tolist()
                for method in records[0].corrections
            }
            summary["clicks_to_goal"] = {
                "goal": GOAL,
                "not_reached_counts_as": MOST_CLICKS + 1,
                "mean": {
                    method: float(np.mean([r.clicks[method] for r in records]))
                    for method in records[0].clicks
                },
                "reached_percent": {
                    method: float(100 * np.mean([r.clicks[method] <= MOST_CLICKS for r in records]))
                    for method in records[0].clicks
                },
            }
        return summary


def evaluate(
    model: SeedModel,
    cases: Sequence[LabelledGrid],
    *,
    seed: int = 0,
    clicks: int = 5,
    targets: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a model.

    Every case gets one foreground click at a random place inside the target, and a window around
    that click.

    Args:
        model: What to measure.
        cases: Labelled cases that it has not seen.
        seed: Of the clicks.
        clicks: Corrections by a person who knows the truth; 0 leaves that part out.
        targets: Numbers of the targets; all if None.
        channels: Numbers of the channels that may be seen; all if None.
        progress: Called with what is done and all there is.

    Returns:
        The figures, in voxels of the model's grid.
    """
    begun = starts(
        cases, half_width=model.settings.half_width, seed=seed, targets=targets, channels=channels
    )
    records = []
    for number, start in enumerate(begun):
        records.append(_measure(model, start, clicks=clicks, seed=seed + number))
        if progress is not None:
            progress(number + 1, len(begun))
    return Evaluation(tuple(records))


@torch.no_grad()
def _measure(model: SeedModel, start: Start, *, clicks: int, seed: int) -> Record:
    generator = Generator().manual_seed(seed)
    encoded = model.encode(start.image, torch.tensor([start.target]))
    walker = model.dynamics.segmenter

    def network(seeds: Tensor) -> Tensor:
        return model.prior(encoded, seeds)

    prior = network(start.seeds)
    every = let_agent(model, encoded, start, prior, stop_threshold=-np.inf)
    own = let_agent(model, encoded, start, prior)
    others = random_seeds(
        start.truth, start.seeds, count=model.dynamics.max_seeds, generator=generator
    )
    intensity = plain_segmenter(RandomWalker(), start.image)
    oracle = correct(intensity, start, clicks=model.dynamics.max_seeds, generator=generator)
    one_click = {
        AGENT: own.dice[-1],
        "network + walker": own.dice[0],
        "network": _dice(prior > 0.5, start),
        "random seeds": _dice(walker.solve(encoded.system, others, prior=prior) > 0.5, start),
        "oracle, intensity walker": oracle[-1],
        "one-click threshold": _dice(_threshold(model, start), start),
    }
    corrections: dict[str, tuple[float, ...]] = {}
    needed: dict[str, int] = {}
    if clicks > 0:
        state = own.state

        def corrected(seeds: Tensor) -> Tensor:
            nonlocal state
            state = model.correct(encoded, state, seeds)
            return state.probability

        geodesic = plain_segmenter(GeodesicSegmenter(), start.image)
        segmenters = dict(zip(CORRECTED, (corrected, network, intensity, geodesic), strict=True))
        for method, segment in segmenters.items():
            path = correct(
                segment,
                start,
                clicks=clicks,
                goal=GOAL,
                most=MOST_CLICKS - 1,
                generator=generator,
            )
            corrections[method] = tuple(path[: clicks + 1])
            reached = [n + 1 for n, overlap in enumerate(path) if overlap >= GOAL]
            needed[method] = reached[0] if reached else MOST_CLICKS + 1
    # An agent that stops because nowhere is free to put a seed keeps its answer.
    padded = every.dice + (every.dice[-1],) * (model.dynamics.max_seeds + 1 - len(every.dice))
    target = model.settings.targets[start.target].name
    seeds = int(own.state.steps[0])
    return Record(start.name, target, one_click, padded, seeds, corrections, needed)


def _threshold(model: SeedModel, start: Start) -> Tensor:
    """The one-click threshold that goes with what the model looks at (1, I, J, K)."""
    click = tuple(int(c) for c in (start.seeds[0] == 1).nonzero()[0])
    image = start.image[0]
    for number, channel in enumerate(model.settings.channels):
        if channel.intensity == "suv" and bool(image[number].any()):
            suv = torch.expm1(image[number] + 0.5)
            return suv_region(suv, click)[None]  # type: ignore[arg-type]
    seen = next(n for n in range(len(image)) if bool(image[n].any()))
    return intensity_region(image[seen], click)[None]  # type: ignore[arg-type]


def _dice(mask: Tensor, start: Start) -> float:
    return float(dice(mask, start.truth)[0])


def paired_bootstrap(
    differences: NDArray[np.float64], cases: Sequence[str], *, seed: int = 0
) -> dict[str, float]:
    """Mean of paired differences with its 95 % interval over resampled cases.

    Args:
        differences: (N,).
        cases: Whom each belongs to; those of one case are averaged and resampled together.
        seed: Of the resampling.
    """
    by_case = [
        differences[[n for n, other in enumerate(cases) if other == case]].mean()
        for case in dict.fromkeys(cases)
    ]
    values = np.array(by_case)
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), (2.5, 97.5))
    return {"mean": float(differences.mean()), "low": float(low), "high": float(high)}
