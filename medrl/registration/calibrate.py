"""Fit what agents say of their answers to how right these are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator
from torch.nn import functional as F

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
    rounds: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> RegistrationModel:
    """Register validation scans with posed copies of themselves, and fit the confidence.

    Once as users do, which is mostly right, and once from a single start in any orientation, which
    mostly ends in the best of the wrong places.

    Args:
        model: The agents.
        scans: Validation scans.
        seed: Fixes poses and contrasts.
        rounds: Cases for each scan.
        progress: Called with the cases done and their number.

    Returns:
        The model with its confidence.
    """
    registrar = Registrar(model)
    generator = Generator().manual_seed(seed)
    features, errors = [], []
    for number in range(rounds):
        for index, scan in enumerate(scans):
            case = make_case(scan, turn=None, shift=_SHIFT_MM, generator=generator)
            for start in (None, _astray(case, generator)):
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
    """Logistic regression, slightly regularised, with a threshold that spares right answers.

    Args:
        features: (N, F).
        errors_mm: (N,) mean error of each answer.

    Returns:
        The fitted confidence. With answers all right or all wrong only the regularisation
        keeps it finite, and it says so for nearly everything.
    """
    right = errors_mm < RIGHT_MM
    x, y = torch.from_numpy(features), torch.from_numpy(right).double()
    middle, spread = x.mean(dim=0), x.std(dim=0).clamp(min=0.1)
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")
    share = y.mean().clamp(0.02, 0.98)
    balance = torch.where(y > 0, 0.5 / share, 0.5 / (1 - share))

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        score = (x - middle) / spread @ weights[:-1] + weights[-1]
        value = F.binary_cross_entropy_with_logits(score, y, weight=balance)
        value = value + 0.01 * weights[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    slope = (weights.detach()[:-1] / spread).numpy()
    bias = float(weights.detach()[-1] - (torch.from_numpy(slope) * middle).sum())
    # What is typical where there is none: the limit itself.
    typical = [
        float(np.expm1(np.log1p(errors_mm[kind]).mean())) if kind.any() else RIGHT_MM
        for kind in (right, ~right)
    ]
    fitted = Confidence(tuple(slope.tolist()), bias, 0.5, *typical)
    sure = fitted(features[right]) if right.any() else np.array([0.5])
    return replace(fitted, threshold=float(min(0.5, np.quantile(sure, _FALSE_ALARMS))))
