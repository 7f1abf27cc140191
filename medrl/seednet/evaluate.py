"""Measure a seed model on labelled scans: from one click, next to what it has to beat.

Everything is measured on the scan's own grid, what lies outside the model's window included. The
simulated user clicks there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Generator

from medrl.evaluation import Measurements, Row, Table, compare
from medrl.seednet.baselines import intensity_region, plain_segmenter, random_seeds, suv_region
from medrl.seednet.clicked import ClickedScan, ClickedWindow, click_into
from medrl.seednet.data import Sample
from medrl.seednet.model import SeedModel
from medrl.seednet.oracle import VoxelSeed
from medrl.seednet.seeds import Seed
from medrl.seednet.segment import SeedSegmenter, Segmentation
from medrl.seednet.simulated_user import Mask, corrected
from medrl.walker.geodesic import GeodesicSegmenter
from medrl.walker.segmenter import FOREGROUND, RandomWalker, Segmenter

AGENT = "agent"
#: Overlap that clicks are counted to, and the most that are tried.
GOAL, MOST_CLICKS = 0.90, 15
#: Metrics: Dice from one click, from one on the object's border, Dice after n corrections, with n
#: seeds of the agent, clicks that were needed for :data:`GOAL`, seeds that the agent placed before
#: it stopped.
DICE, FROM_BORDER = "dice", "dice from border"
CORRECTED, WITH_SEEDS = "dice after {} corrections", "dice with {} seeds"
CLICKS, SEEDS = "clicks to goal", "seeds"

#: From all of a user's seeds so far to the mask, in the scan's grid.
Segment = Callable[[Sequence[Seed]], Mask]


# Methods ----------------------------------------------------------------------------------------


def network(window: ClickedWindow, seeds: Sequence[Seed]) -> Mask:
    """What the network alone sees from some seeds."""
    return window.mask(window.model.prior(window.encoded, window.seeds(seeds)))


def plain(window: ClickedWindow, solver: Segmenter) -> Segment:
    """A solver on the intensities in the window, without network or prior."""
    segment = plain_segmenter(solver, window.image)
    return lambda seeds: window.mask(segment(window.seeds(seeds)))


def with_random_seeds(window: ClickedWindow, generator: Generator) -> Mask:
    """Seeds at random places with the true labels instead of the agent's."""
    model, count = window.model, window.model.settings.max_seeds
    seeds = random_seeds(window.truth(), window.click, count=count, generator=generator)
    prior = model.prior(window.encoded, window.click)
    solver = model.dynamics.segmenter
    return window.mask(solver.solve(window.encoded.system, seeds, prior=prior))


def threshold(window: ClickedWindow) -> Mask:
    """The one-click threshold that goes with the model's channels."""
    image = window.image[0]
    i, j, k = (int(c) for c in (window.click[0] == FOREGROUND).nonzero()[0])
    for number, channel in enumerate(window.model.settings.channels):
        if channel.intensity == "suv" and bool(image[number].any()):
            region = suv_region(torch.expm1(image[number] + 0.5), (i, j, k))
            return window.mask(region[None].float())
    seen = next(n for n in range(len(image)) if bool(image[n].any()))
    return window.mask(intensity_region(image[seen], (i, j, k))[None].float())


class _Correcting:
    """The agent's session, to which seeds are added one by one."""

    def __init__(self, found: Segmentation) -> None:
        self._session = found.session
        self._count = 1

    def __call__(self, seeds: Sequence[Seed]) -> Mask:
        self._session.add_seeds(seeds[self._count :])
        self._count = len(seeds)
        return self._session.mask()[0].numpy() > 0


def _with_fixed_seeds(segmenter: SeedSegmenter, case: ClickedScan) -> list[float]:
    """The agent's overlap with 0, 1, ... seeds, whatever it expects of them."""
    model = segmenter.model
    endless = SeedModel(replace(model.settings, stop_threshold=-np.inf), model.network)
    session = SeedSegmenter(endless).session()
    session.set_scan(case.images)
    session.new_object(target=case.target)
    session.add_seeds([case.click])
    overlaps = [case.dice(session.mask()[0].numpy() > 0)]
    session.accept_all(watch=lambda _: overlaps.append(case.dice(session.mask()[0].numpy() > 0)))
    # An agent that stops because nowhere is free to put a seed keeps its answer.
    return overlaps + [overlaps[-1]] * (model.settings.max_seeds + 1 - len(overlaps))


# Measuring --------------------------------------------------------------------------------------


def evaluate(
    segmenter: SeedSegmenter,
    samples: Sequence[Sample],
    *,
    seed: int = 0,
    clicks: int = 5,
    repeats: int = 1,
    border_clicks: int = 0,
    targets: Sequence[int] | None = None,
    channels: Sequence[str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Measurements:
    """Measure a model.

    Every case gets one foreground click on any voxel of each target.

    Args:
        segmenter: What to measure.
        samples: Labelled scans that it has not seen.
        seed: Of the clicks.
        clicks: Corrections by a person who knows the truth; 0 leaves that part out.
        repeats: First clicks into each object, each a case of its own.
        border_clicks: Further clicks on the border of each object, to be reported apart, for what
            needs nothing else: the agent, the network and the threshold.
        targets: Numbers of the targets; all if None.
        channels: Names of the images that may be seen; all if None.
        progress: Called with the cases done, their number, and the name of the next.

    Returns:
        The figures; the group is the target. Targets that a case lacks are left out.

    Raises:
        MedrlError: If a file cannot be read.
    """
    settings = segmenter.model.settings
    seen = tuple(channels or (channel.name for channel in settings.channels))
    rows: list[Row] = []
    for number, sample in enumerate(samples):
        if progress is not None:
            progress(number, len(samples), sample.name)
        numbers = range(len(settings.targets)) if targets is None else targets
        for repeat, target in product(range(repeats), numbers):
            own = seed + 10_000_000 * repeat + 1000 * number + target
            case = click_into(sample, segmenter, target=target, seed=own, channels=seen)
            if case is not None:
                case = replace(case, name=f"{case.name} click {repeat + 1}") if repeat else case
                generator = Generator().manual_seed(own)
                rows += _measured(segmenter, case, clicks=clicks, generator=generator)
        for repeat, target in product(range(border_clicks), numbers):
            own = seed + 10_000_000 * repeat + 1000 * number + target
            case = click_into(
                sample, segmenter, target=target, seed=own, channels=seen, border=True
            )
            if case is not None:
                case = replace(case, name=f"{case.name} border click {repeat + 1}")
                window = ClickedWindow(segmenter.model, case)
                _, one_click = _from_click(segmenter, case, window)
                rows += [_row(case, method, FROM_BORDER, x) for method, x in one_click.items()]
    if progress is not None:
        progress(len(samples), len(samples), "")
    return Measurements(tuple(rows))


def _row(case: ClickedScan, method: str, metric: str, value: float) -> Row:
    return Row(case.name, case.target, method, metric, value, case.subject)


def _from_click(
    segmenter: SeedSegmenter, case: ClickedScan, window: ClickedWindow
) -> tuple[Segmentation, dict[str, float]]:
    """The agent's answer, and the overlap of every method that needs a click and nothing else."""
    found = segmenter.segment(case.images, [case.click], target=case.target)
    return found, {
        AGENT: case.dice(found.mask[0].numpy() > 0),
        "network": case.dice(network(window, [case.click])),
        "one-click threshold": case.dice(threshold(window)),
    }


def _measured(
    segmenter: SeedSegmenter, case: ClickedScan, *, clicks: int, generator: Generator
) -> list[Row]:
    row = partial(_row, case)

    def correct(answer: Segment, *, clicks: int, most: int = 0) -> list[float]:
        def at(corrections: Sequence[VoxelSeed]) -> Mask:
            return answer([case.click, *map(case.seed, corrections)])

        return corrected(at, case.truth, clicks=clicks, goal=GOAL, most=most, generator=generator)

    window, by_seeds = ClickedWindow(segmenter.model, case), _with_fixed_seeds(segmenter, case)
    found, answers = _from_click(segmenter, case, window)
    walker = plain(window, RandomWalker())
    most = segmenter.model.settings.max_seeds
    oracle = correct(walker, clicks=most)
    one_click = {
        **answers,
        "network + walker": by_seeds[0],
        "random seeds": case.dice(with_random_seeds(window, generator)),
        "oracle, intensity walker": oracle[-1],
    }
    rows = [row(method, DICE, value) for method, value in one_click.items()]
    rows.append(row(AGENT, SEEDS, sum(seed.who == "agent" for seed in found.seeds)))
    rows += [row(AGENT, WITH_SEEDS.format(n), value) for n, value in enumerate(by_seeds)]
    if clicks:
        segments: dict[str, Segment] = {
            AGENT: _Correcting(found),
            "network": partial(network, window),
            "intensity walker": walker,
            "geodesic": plain(window, GeodesicSegmenter()),
        }
        for method, answer in segments.items():
            path = correct(answer, clicks=clicks, most=MOST_CLICKS - 1)
            rows += [row(method, CORRECTED.format(n), x) for n, x in enumerate(path[: clicks + 1])]
            reached = [n + 1 for n, overlap in enumerate(path) if overlap >= GOAL]
            rows.append(row(method, CLICKS, reached[0] if reached else MOST_CLICKS + 1))
    return rows


# Summing up -------------------------------------------------------------------------------------


def figures(measured: Measurements) -> dict[str, Any]:
    """Figures by target, ready for JSON."""
    return {target: _figures(own) for target, own in measured.by("group").items()}


def _figures(measured: Measurements) -> dict[str, Any]:
    from_click = measured.select(metric=DICE)
    methods = {
        method: {
            **_overlap(own),
            "agent_minus_this": None
            if method == AGENT
            else asdict(compare(from_click, DICE, AGENT, method)),
        }
        for method, own in from_click.by("method").items()
    }
    summary: dict[str, Any] = {
        "cases": len(from_click.unique("case")),
        "one_click": methods,
        "agent_seeds_mean": float(measured.select(metric=SEEDS).values.mean()),
        "dice_by_fixed_seeds": _series(measured.select(method=AGENT), WITH_SEEDS),
    }
    if (on_border := measured.select(metric=FROM_BORDER)).rows:
        summary["border_clicks"] = {
            "clicks": len(on_border.unique("case")),
            "one_click": {m: _overlap(own) for m, own in on_border.by("method").items()},
        }
    counted = measured.select(metric=CLICKS).by("method")
    if counted:
        summary["dice_by_corrections"] = {
            method: _series(measured.select(method=method), CORRECTED) for method in counted
        }
        summary["clicks_to_goal"] = {
            "goal": GOAL,
            "not_reached_counts_as": MOST_CLICKS + 1,
            "mean": {method: float(own.values.mean()) for method, own in counted.items()},
            "reached_percent": {
                method: float(100 * (own.values <= MOST_CLICKS).mean())
                for method, own in counted.items()
            },
        }
    return summary


def _overlap(measured: Measurements) -> dict[str, float]:
    return {
        "mean_dice": float(measured.values.mean()),
        "worst_dice": float(measured.values.min()),
    }


def _series(measured: Measurements, metric: str) -> list[float]:
    """Means of a metric with a number in it, for 0, 1, ... as far as there are any."""
    means: list[float] = []
    while len(rows := measured.select(metric=metric.format(len(means))).rows):
        means.append(float(np.mean([row.value for row in rows])))
    return means


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """For each target: every method from one click, and how it goes on with corrections."""
    shown = []
    for target, own in summary.items():
        rows: list[list[object]] = []
        for method, values in own["one_click"].items():
            gain = values["agent_minus_this"]
            ahead = "" if gain is None else "{mean:+.3f} ({low:+.3f} to {high:+.3f})".format(**gain)
            rows.append([method, values["mean_dice"], values["worst_dice"], ahead])
        title = f"{target}: Dice from one click, {own['cases']} cases"
        header = ["method", "mean", "worst", "agent's gain on this (95 %)"]
        shown.append(Table(title, header, rows, digits=3))
        if "border_clicks" in own:
            border = own["border_clicks"]
            rows = [[m, v["mean_dice"], v["worst_dice"]] for m, v in border["one_click"].items()]
            title = f"{target}: Dice from one click on the border, {border['clicks']} clicks"
            shown.append(Table(title, ["method", "mean", "worst"], rows, digits=3))
        if "dice_by_corrections" not in own:
            continue
        curves, goal = own["dice_by_corrections"], own["clicks_to_goal"]
        numbers = [str(n) for n in range(len(next(iter(curves.values()))))]
        rows = [[m, *curve, f"{goal['mean'][m]:.1f}"] for m, curve in curves.items()]
        header = ["method", *numbers, f"clicks to {goal['goal']:.2f}"]
        shown.append(Table(f"{target}: mean Dice after corrections", header, rows, digits=3))
    return shown
