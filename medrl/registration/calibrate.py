"""Fit what agents say of their answers to how right these are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Generator

from medrl.evaluation import LogisticRegression, choose_threshold
from medrl.registration.cases import PosedCase, make_case
from medrl.registration.confidence import Confidence
from medrl.registration.model import RegistrationModel
from medrl.registration.register import Registrar
from medrl.registration.transforms import random_rotations
from medrl.volume.space import apply_affine

#: An answer is right if its mean error is below this, mm.
RIGHT_MM = 2.0
#: Share of the right answers that may be called doubtful.
_FALSE_ALARMS = 0.02
_SHIFT_MM = 60.0


def calibrate(
    model: RegistrationModel,
    scans: Sequence[Path],
    *,
    seed: int,
    rounds: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> RegistrationModel:
    """Register validation scans with posed copies of themselves, and fit the confidence.

    No case counts more than another, so that a confidence is the probability it claims to be among
    cases like these. Posed copies hardly ever end wrong, and what cannot be aligned at all, such
    as another patient's organ by mistake, is not among the scans. So the last round stands for
    that: every scan is begun from one start in any orientation, which mostly ends in the best of
    the wrong places. With ten rounds the prior of such a case is one in ten.

    Args:
        model: The agents.
        scans: Validation scans.
        seed: Fixes poses and contrasts.
        rounds: Cases for each scan, at least 2.
        progress: Called with the cases done and their number.

    Returns:
        The model with its confidence.
    """
    registrar = Registrar(model)
    features, errors = [], []
    for number in range(rounds):
        for index, scan in enumerate(scans):
            drawn = np.random.SeedSequence([seed % 2**32, number, index]).generate_state(1)
            generator = Generator().manual_seed(int(drawn[0]))
            case = make_case(scan, turn=None, shift=_SHIFT_MM, generator=generator)
            start = _astray(case, generator) if number == rounds - 1 else None
            answer = registrar.candidates(case.fixed, case.moving, initial_world=start)[0]
            features.append(answer.features)
            errors.append(case.error_mm(answer.transform_world))
            if progress is not None:
                progress(number * len(scans) + index + 1, rounds * len(scans))
    confidence = fit(np.stack(features), np.array(errors))
    return replace(model, settings=replace(model.settings, confidence=confidence))


def _astray(case: PosedCase, generator: Generator) -> NDArray[np.float64]:
    """A start with the objects' centres together, in any orientation."""
    start = np.eye(4)
    start[:3, :3] = random_rotations(1, generator=generator)[0].numpy()
    middle = case.points_world.mean(axis=0)
    start[:3, 3] = apply_affine(case.truth_world, middle) - start[:3, :3] @ middle
    return start


def fit(features: NDArray[np.float64], errors_mm: NDArray[np.float64]) -> Confidence:
    """Logistic regression on cases as they are, with a threshold that spares right answers.

    Args:
        features: (N, F).
        errors_mm: (N,) mean error of each answer.

    Returns:
        The fitted confidence. With answers all right or all wrong only the penalty keeps it finite,
        and it says so for nearly everything.
    """
    right = errors_mm < RIGHT_MM
    fitted = LogisticRegression.fit(features, right, least_scale=0.1)
    weights = fitted.weights / fitted.scale
    bias = fitted.bias - float(fitted.center @ weights)
    threshold = choose_threshold(fitted(features), right, false_alarms=_FALSE_ALARMS)
    # What is typical where there is none: the limit itself.
    typical = [
        float(np.expm1(np.log1p(errors_mm[kind]).mean())) if kind.any() else RIGHT_MM
        for kind in (right, ~right)
    ]
    return Confidence(tuple(weights.tolist()), bias, threshold, *typical)
