"""How sure one may be of a registration: from what agents say of it to a probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    levels: list[tuple[RegistrationNetwork, RegistrationDynamics]],
    transform: Tensor,
    moved_mm: float,
) -> NDArray[np.float64]:
    """What there is to say of an answer, (F,), see :data:`FEATURES`.

    Args:
        levels: Network and dynamics of each, coarsest first.
        transform: (4, 4) the answer.
        moved_mm: How far refinement has moved it.
    """
    said = [
        float(network(dynamics.look(transform[None])).error.clamp(0, 6))
        for network, dynamics in (levels[0], levels[-1])
    ]
    finest, coarsest = levels[-1][1], levels[0][1]
    beside = torch.zeros((12, 12), dtype=transform.dtype)
    row = torch.arange(6)
    beside[row, row] = beside[6 + row, row] = _BESIDE * finest.level.spacing
    beside[6 + row] *= -1
    here = _similar(finest, transform[None])[0]
    near = _similar(finest, finest.step(transform.expand(12, 4, 4), beside)).mean()
    turned = torch.eye(4, dtype=transform.dtype).repeat(24, 1, 1)
    turned[:, :3, :3] = orientations()
    every = _similar(coarsest, transform @ about(turned, coarsest.pivot))
    lost, lead = 1 - near / here.clamp(min=1e-6), (every[0] / every[1:].max().clamp(min=1e-6)).log()
    return np.array([*said, np.log1p(moved_mm), float(here), float(lost), float(lead)])


def _similar(dynamics: RegistrationDynamics, transforms: Tensor) -> Tensor:
    return similarity(dynamics.fixed, dynamics.look_moving(transforms)).cpu()


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
