"""What is set on validation cases, where the best choice is known."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from medrl.seednet import tune
from medrl.seednet.data import LabelledGrid
from medrl.seednet.model import SeedModel
from medrl.seednet.simulated_user import Answer, Start, starts
from medrl.seednet.tune import (
    PRIOR_WEIGHTS,
    STOP_THRESHOLDS,
    tune_prior_weight,
    tune_stop_threshold,
)

MakeCases = Callable[..., list[LabelledGrid]]


@pytest.mark.parametrize("best", PRIOR_WEIGHTS)
def test_the_weight_with_the_best_answers_is_chosen(
    make_cases: MakeCases, model: SeedModel, monkeypatch: pytest.MonkeyPatch, best: float
) -> None:
    cases = starts(make_cases(2), half_width=8, seed=0, targets=[0])

    def overlaps(candidate: SeedModel, case: Start) -> list[float]:
        own = candidate.dynamics.segmenter.prior_weight
        # On one case another weight is better, but not on the mean of both.
        if case.name == "blob1":
            return [0.5 + 0.1 * (own != best)] * 4
        return [0.3, 0.4 + 0.5 * (own == best), 0.5, 0.6]

    monkeypatch.setattr(tune, "_corrected", overlaps)
    tuned = tune_prior_weight(model, cases)
    assert tuned.settings == replace(model.settings, prior_weight=best)
    assert tuned.network is model.network


def test_a_prior_that_is_wrong_everywhere_gets_little_weight(
    make_cases: MakeCases, model: SeedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = starts(make_cases(2, noise=0.0), half_width=12, seed=0, targets=[0])

    def prior(self: SeedModel, encoded: SimpleNamespace, seeds: Tensor) -> Tensor:
        return torch.where(encoded.image > 2 / 3, 0.1, 0.9)

    def encode(self: SeedModel, image: Tensor, target: Tensor) -> SimpleNamespace:
        weights = torch.full((1, 3, *image.shape[2:]), 0.5)
        return SimpleNamespace(image=image[:, 0], system=self.dynamics.segmenter.prepare(weights))

    monkeypatch.setattr(SeedModel, "prior", prior)
    monkeypatch.setattr(SeedModel, "encode", encode)
    assert tune_prior_weight(model, cases).settings.prior_weight == min(PRIOR_WEIGHTS)


def limit_by_hand(paths: Sequence[tuple[tuple[float, ...], tuple[float, ...]]]) -> float:
    """The highest limit with the best mean end."""
    scores = {}
    for limit in STOP_THRESHOLDS:
        ends = []
        for dice, gains in paths:
            seeds = 0
            while seeds < len(gains) and gains[seeds] >= limit:
                seeds += 1
            ends.append(dice[min(seeds, len(dice) - 1)])
        scores[limit] = sum(ends) / len(ends)
    best = max(scores.values())
    return max(limit for limit, score in scores.items() if score > best - 1e-9)


@pytest.mark.parametrize(
    "paths",
    [
        # Every seed helps, also those of which little is expected.
        [((0.5, 0.6, 0.7), (0.0012, 0.0001)), ((0.5, 0.55, 0.6), (0.02, 0.0007))],
        # Those of which less than 0.003 is expected do harm.
        [((0.8, 0.9, 0.7), (0.01, 0.0021)), ((0.8, 0.6), (0.0022,))],
        # All harm.
        [((0.8, 0.7, 0.6), (0.004, 0.003)), ((0.9, 0.8), (0.0001,))],
    ],
)
def test_the_limit_for_stopping(
    make_cases: MakeCases,
    model: SeedModel,
    monkeypatch: pytest.MonkeyPatch,
    paths: list[tuple[tuple[float, ...], tuple[float, ...]]],
) -> None:
    answers = iter(Answer(dice, gains, None) for dice, gains in paths)  # type: ignore[arg-type]
    monkeypatch.setattr(tune, "let_agent", lambda *_, **__: next(answers))
    cases = starts(make_cases(len(paths)), half_width=8, seed=0, targets=[0])
    tuned = tune_stop_threshold(model, cases)
    assert tuned.settings.stop_threshold == limit_by_hand(paths)
    assert tuned.network is model.network


def test_without_validation_cases_nothing_is_changed(model: SeedModel) -> None:
    assert tune_prior_weight(model, []) is model
    assert tune_stop_threshold(model, []) is model
