"""Set, on validation cases, what training leaves open: the prior's weight and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medrl.seednet.model import SeedModel
from medrl.seednet.oracle import VoxelSeed
from medrl.seednet.simulated_user import Mask, Start, corrected, let_agent

#: Candidates for the prior's weight next to edges of at most 1.
PRIOR_WEIGHTS = (0.1, 0.3, 1.0, 3.0)
#: Candidates for the gain in Dice below which an agent stops.
STOP_THRESHOLDS = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01)
#: Corrections that the prior's weight must serve as well as the first answer.
_CLICKS = 3


def tune_prior_weight(model: SeedModel, cases: Sequence[Start]) -> SeedModel:
    """Choose the prior's weight with the best mean overlap over a click and three corrections.

    The agent is not asked. Without validation cases the model stays as it is.
    """
    if not cases:
        return model
    candidates = [_with(model, prior_weight=weight) for weight in PRIOR_WEIGHTS]
    scores = [float(np.mean([_corrected(c, case) for case in cases])) for c in candidates]
    return candidates[int(np.argmax(scores))]


def _with(model: SeedModel, **settings: float) -> SeedModel:
    return SeedModel(replace(model.settings, **settings), model.network)  # type: ignore[arg-type]


def _corrected(model: SeedModel, case: Start) -> list[float]:
    encoded = case.encode(model)

    def segment(corrections: Sequence[VoxelSeed]) -> Mask:
        seeds = case.seeds.clone()
        for voxel, label in corrections:
            seeds[(0, *voxel)] = label
        prior = model.prior(encoded, seeds)
        probability = model.dynamics.segmenter.solve(encoded.system, seeds, prior=prior)
        return (probability[0] > 0.5).cpu().numpy()

    return corrected(segment, case.truth[0].cpu().numpy(), clicks=_CLICKS)


def tune_stop_threshold(model: SeedModel, cases: Sequence[Start]) -> SeedModel:
    """Choose the expected gain below which the agent stops.

    It is the one of the best mean overlap, of equals the highest. Every case is run once until all
    seeds are used up; what a limit would have given can be read off that run, because an agent
    that goes on longer does the same until then.
    """
    if not cases:
        return model
    answers = [let_agent(model, case, stop_threshold=-np.inf) for case in cases]
    scores = []
    for limit in STOP_THRESHOLDS:
        ends = [
            answer.dice[next((t for t, g in enumerate(answer.gains) if g < limit), -1)]
            for answer in answers
        ]
        scores.append(float(np.mean(ends)))
    best = max(range(len(scores)), key=lambda n: (round(scores[n], 5), STOP_THRESHOLDS[n]))
    return _with(model, stop_threshold=STOP_THRESHOLDS[best])
