"""What seed agents were trained on, and how sure their answers are: measured on labelled cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from medrl.bundles import Guard, Training
from medrl.evaluation import LogisticRegression
from medrl.nets.familiarity import Familiarity
from medrl.seednet.confidence import RIGHT_DICE, Answers, kind_of, look_at
from medrl.seednet.data import LabelledGrid
from medrl.seednet.model import SeedModel
from medrl.seednet.simulated_user import Start, let_agent
from medrl.seednet.windows import Grid, pasted
from medrl.volume.appearance import appearance
from medrl.walker.segmenter import FOREGROUND, NONE

#: Answers on training cases, and on validation cases, that are looked at.
_MOST_TRAINING, _MOST_VALIDATION = 360, 120
#: Share of the answers that is taken for usual; of few patients the strangest one tells too much.
_USUAL, _USUAL_OF_FEW, _MANY = 0.99, 0.9, 50
#: How much stranger than what is usual in training another answer may look: heads of other scanners
#: do, and other organs many times as much.
_ROOM = 2.0
#: Every so many clicks on a validation case miss the object.
_MISSES = 5


def fit_guard(
    model: SeedModel,
    training: Sequence[LabelledGrid],
    validation: Sequence[LabelledGrid],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> SeedModel:
    """Measure the training scans and what the encoder sees in right answers; fit the confidence.

    The confidence is fitted on validation cases, as they would occur: some clicks miss the object.

    Args:
        model: The trained agent; it does not change.
        training: Training cases.
        validation: Validation cases; without them there is no confidence.
        seed: Of the clicks.
        progress: Called with the answers done and their number.

    Returns:
        The same model with its guard.
    """
    rng = np.random.default_rng(seed)
    seen = (_seen(training, channel.name) for channel in model.settings.channels)
    guard = Guard(tuple(one for one in seen if one is not None))
    first = _draws(model, training, _MOST_TRAINING, rng)
    second = _draws(model, validation, _MOST_VALIDATION, rng)
    total = len(first) + len(second)
    right, owners = [], []
    for number, (case, grid, target) in enumerate(first):
        start = _start(grid, training[case].truth[target], target, rng, half=_half(model))
        found = _answered(model, start, grid, agent=False)
        if found is not None and found[1] >= RIGHT_DICE:
            right.append(found[0])
            owners.append(case)
        if progress is not None:
            progress(number + 1, total)
    if not right:
        return replace(model, guard=guard)
    answers, scan = Answers.cat(right), np.array(owners)
    kinds = len(model.settings.targets) * (2 ** len(model.settings.channels) - 1)
    many = len(training) >= _MANY
    familiarity = Familiarity.fit(
        answers.features,
        answers.kind,
        kinds=kinds,
        whole=np.arange(len(scan)),
        scan=scan,
        usual=_USUAL if many else _USUAL_OF_FEW,
        room=_ROOM if many else 1.0,
    )
    model = replace(model, guard=guard, familiarity=familiarity)
    if familiarity is None:
        return model
    judged, good = [], []
    for number, (case, grid, target) in enumerate(second):
        miss = number % _MISSES == 0
        truth = validation[case].truth[target]
        start = _start(grid, truth, target, rng, half=_half(model), miss=miss)
        found = _answered(model, start, grid, agent=True)
        if found is not None:
            judged.append(found[0])
            good.append(found[1] >= RIGHT_DICE)
        if progress is not None:
            progress(len(first) + number + 1, total)
    if not judged:
        return model
    fitted = LogisticRegression.fit(
        Answers.cat(judged).described(familiarity), good, least_scale=0.1
    )
    return replace(model, confidence=fitted)


def _half(model: SeedModel) -> int:
    return model.settings.half_width


def _seen(cases: Sequence[LabelledGrid], channel: str) -> Training | None:
    """What the training scans of a channel are like, if it has any.

    How large things in them are tells nothing: agents look at a part of whatever there is.
    """
    looks = []
    for case in cases:
        for volume, known in zip(case.grid.volumes, case.grid.channels, strict=True):
            if known.name == channel and volume is not None:
                scan = MetaTensor(volume[None], affine=torch.from_numpy(case.grid.affine))
                looks.append(appearance(scan))
    return Training.fit(looks, channel=channel, bounded=False) if looks else None


def _draws(
    model: SeedModel, cases: Sequence[LabelledGrid], most: int, rng: np.random.Generator
) -> list[tuple[int, Grid, int]]:
    """Cases, their images or some of them, and targets, all kinds of answers as often."""
    combos = [
        chosen
        for count in range(1, len(model.settings.channels) + 1)
        for chosen in combinations(range(len(model.settings.channels)), count)
    ]
    every = [
        (number, chosen, target)
        for number, case in enumerate(cases)
        for chosen in combos
        for target in range(len(case.truth))
        if bool(case.truth[target].any())
        and all(case.grid.volumes[index] is not None for index in chosen)
    ]
    rounds = math.ceil(most / max(1, len(every)))
    drawn = [every[n] for _ in range(min(rounds, 3)) for n in rng.permutation(len(every))]
    return [
        (number, _showing(cases[number].grid, chosen), target)
        for number, chosen, target in drawn[:most]
    ]


def _showing(grid: Grid, chosen: Sequence[int]) -> Grid:
    """A grid with some of its images only."""
    shown = tuple(v if index in chosen else None for index, v in enumerate(grid.volumes))
    return replace(grid, volumes=shown)


def _start(
    grid: Grid,
    truth: Tensor,
    target: int,
    rng: np.random.Generator,
    *,
    half: int,
    miss: bool = False,
) -> Start:
    """A click somewhere in an object, or beside it."""
    where = (~truth if miss else truth).nonzero().numpy()
    click = where[rng.integers(len(where))]
    window = grid.window((click - half).tolist(), (click + half).tolist())
    nothing = torch.zeros(window.shape, dtype=torch.bool)
    own = pasted(truth, np.zeros(3, dtype=int), nothing, window.corner) & window.inside
    seeds = torch.full(window.shape, NONE, dtype=torch.int8)
    seeds[tuple(click - window.corner)] = FOREGROUND
    return Start("", target, window.image[None], own[None], seeds[None])


def _answered(
    model: SeedModel, start: Start, grid: Grid, *, agent: bool
) -> tuple[Answers, float] | None:
    """What a model answers, and how well it overlaps with the truth."""
    device = model.device
    start = replace(
        start,
        image=start.image.to(device),
        truth=start.truth.to(device),
        seeds=start.seeds.to(device),
    )
    encoded = start.encode(model)
    if agent:
        probability = let_agent(model, start).state.probability[0]
    else:
        probability = model.prior(encoded, start.seeds)[0]
    kind = kind_of(start.target, [volume is not None for volume in grid.volumes])
    spacing = model.settings.spacing
    found = look_at(encoded.features, probability, kind=kind, spacing=spacing)
    return None if found is None else (found, start.dice(probability[None] > 0.5))
