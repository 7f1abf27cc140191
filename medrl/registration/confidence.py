"""How sure one may be of a registration: from what agents say of it to a probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.nets.familiarity import Familiarity
from medrl.registration.dynamics import RegistrationDynamics
from medrl.registration.network import RegistrationNetwork
from medrl.registration.search import orientations
from medrl.registration.similarity import similarity
from medrl.registration.transforms import about

#: What is looked at, in order.
FEATURES = (
    "log of the predicted error, coarsest level",
    "log of the predicted error, finest level",
    "log of the distance between the agent and the refined answer",
    "similarity, finest level",
    "share of it that is lost a little beside the answer",
    "lead over the other orientations, coarsest level",
)
#: How far beside the answer: mm and degrees in voxels of the finest level.
_BESIDE = 2.0


@torch.no_grad()
def features(
    dynamics: RegistrationDynamics,
    networks: Sequence[RegistrationNetwork],
    transform: Tensor,
    moved_mm: float,
) -> NDArray[np.float64]:
    """What there is to say of an answer, (F,), see :data:`FEATURES`.

    Args:
        dynamics: Of one pair.
        networks: Of each level, finest first.
        transform: (4, 4) the answer.
        moved_mm: How far refinement has moved it.
    """
    coarsest = len(networks) - 1
    transform = transform.to(dynamics.pivot)

    def pairs(count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.int64, device=transform.device)

    def similar(level: int, transforms: Tensor) -> Tensor:
        which = pairs(len(transforms))
        moving = dynamics.look_moving(level, which, transforms)
        return similarity(dynamics.fixed(level, which), moving).cpu()

    errors = [
        float(networks[level](dynamics.look(level, pairs(1), transform[None])).error.clamp(0, 6))
        for level in (coarsest, 0)
    ]
    beside = torch.zeros((12, 12)).to(transform)
    row = torch.arange(6)
    beside[row, row] = beside[6 + row, row] = _BESIDE * dynamics.views[0].spacing
    beside[6 + row] *= -1
    here = similar(0, transform[None])[0]
    near = similar(0, dynamics.moved(pairs(12), transform.expand(12, 4, 4), beside)).mean()
    turned = torch.eye(4).to(transform).repeat(24, 1, 1)
    turned[:, :3, :3] = orientations().to(transform)
    every = similar(coarsest, transform @ about(turned, dynamics.pivot))
    lost, lead = 1 - near / here.clamp(min=1e-6), (every[0] / every[1:].max().clamp(min=1e-6)).log()
    return np.array([*errors, np.log1p(moved_mm), float(here), float(lost), float(lead)])


@torch.inference_mode()
def strangeness(
    dynamics: RegistrationDynamics,
    networks: Sequence[RegistrationNetwork],
    familiarity: Sequence[Familiarity],
    transform: Tensor,
) -> float:
    """How unlike training a pair looks through an answer, as a share of what is allowed.

    That is the largest of all levels, so that more than 1 is unlike it; 0 without a guard.

    Args:
        dynamics: Of one pair.
        networks: Of each level, finest first.
        familiarity: What each of them has seen; empty without a guard.
        transform: (4, 4) the answer.
    """
    pair = torch.zeros(1, dtype=torch.int64, device=dynamics.pivot.device)
    through = transform.to(dynamics.pivot)[None]
    shares = [0.0]
    for level, known in enumerate(familiarity):
        seen = networks[level].encode(dynamics.look(level, pair, through))
        features = seen.double().numpy(force=True)
        shares.append(known.typical(features, np.zeros(1, dtype=np.int64)) / known.limit)
    return max(shares)


@dataclass(frozen=True)
class Confidence:
    """A logistic model, fitted on validation scans to right and wrong answers.

    Attributes:
        weights: Of the features.
        bias: Constant.
        threshold: Probability below which an answer is not to be trusted.
        right_mm: Typical mean error of the right answers.
        wrong_mm: Typical mean error of the wrong ones.
    """

    weights: tuple[float, ...]
    bias: float
    threshold: float
    right_mm: float
    wrong_mm: float

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability (...) that the mean error is below 2 mm, from features (..., F)."""
        score = np.asarray(features) @ np.asarray(self.weights) + self.bias
        return np.asarray(1 / (1 + np.exp(-np.clip(score, -50, 50))), dtype=np.float64)

    def error_mm(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean error (...) to be expected: between those of right and wrong, on a log scale."""
        right = self(features)
        logs = right * np.log1p(self.right_mm) + (1 - right) * np.log1p(self.wrong_mm)
        return np.asarray(np.expm1(logs), dtype=np.float64)
