"""How sure a segmentation is: what the encoder sees in it, and a probability that it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medrl.evaluation import LogisticRegression
from medrl.nets.familiarity import Familiarity
from medrl.seednet.network import Features

Array = NDArray[np.float64]

#: A mask is right if it overlaps that much with the truth (Dice; Zijdenbos et al. 1994).
RIGHT_DICE = 0.7
#: How far around an answer counts as what it lies in, voxels.
_AROUND = 2
#: What the names of its tensors in a bundle begin with.
PREFIX = "confidence."


@dataclass(frozen=True, eq=False)
class Answers:
    """What is to be known of N answers to say how sure they are.

    Attributes:
        features: (N, F) what the encoder sees in a mask and around it.
        kind: (N,) which target, with which images, see :func:`kind_of`.
        volume_ml: (N,).
        probability: (N,) mean probability of the mask's voxels.
    """

    features: Array
    kind: NDArray[np.int64]
    volume_ml: Array
    probability: Array

    @staticmethod
    def cat(parts: Sequence[Answers]) -> Answers:
        """Those of all parts, in order."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Answers(*(np.concatenate(column) for column in columns))

    def described(self, familiarity: Familiarity) -> Array:
        """What a confidence is computed from, (N, 3): strangeness, volume, probability."""
        strange = familiarity(self.features, self.kind)
        return np.stack([np.log(strange + 0.1), np.log(self.volume_ml), self.probability], axis=1)


def kind_of(target: int, shown: Sequence[bool]) -> int:
    """Number of a kind of answer: the target, and which of the model's channels were shown."""
    images = sum(there << index for index, there in enumerate(shown))
    return target * (2 ** len(shown) - 1) + images - 1


def look_at(
    features: Features, probability: Tensor, *, kind: int, spacing: float
) -> Answers | None:
    """One answer; None if its mask is empty.

    Args:
        features: Of the window that it lies in, the only one.
        probability: (I, J, K) of the segmented object there.
        kind: See :func:`kind_of`.
        spacing: Voxel size, mm.
    """
    mask = probability > 0.5
    if not bool(mask.any()):
        return None
    return Answers(
        _pooled(features, mask)[None],
        np.array([kind], dtype=np.int64),
        np.array([float(mask.sum()) * spacing**3 / 1000]),
        np.array([float(probability[mask].mean())]),
    )


def _pooled(features: Features, mask: Tensor) -> Array:
    """Means (F,) of an encoder's coarse features in a mask (I, J, K), and around it."""
    side = 2 * _AROUND + 1
    around = F.max_pool3d(mask[None].float(), side, 1, _AROUND)[0] - mask.float()
    coarse = features.quarter[0]
    stride = mask.shape[-1] // coarse.shape[-1]
    pooled = []
    for region in (mask.float(), around):
        weight = F.avg_pool3d(region[None], stride)[0]
        pooled.append((coarse * weight).sum(dim=(1, 2, 3)) / weight.sum().clamp(min=1e-6))
    return torch.cat(pooled).double().numpy(force=True)


def confidence_tensors(confidence: LogisticRegression | None) -> dict[str, Tensor]:
    """A confidence as a bundle stores it."""
    if confidence is None:
        return {}
    return {
        f"{PREFIX}{name}": torch.from_numpy(np.atleast_1d(value)).float()
        for name, value in vars(confidence).items()
    }


def confidence_of(tensors: Mapping[str, Tensor]) -> LogisticRegression | None:
    """What :func:`confidence_tensors` returned; None if there is none of it."""
    if f"{PREFIX}weights" not in tensors:
        return None
    center, scale, weights, bias = (
        tensors[f"{PREFIX}{name}"].double().numpy()
        for name in ("center", "scale", "weights", "bias")
    )
    return LogisticRegression(center, scale, weights, float(bias[0]))
