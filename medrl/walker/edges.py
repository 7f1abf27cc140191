"""How strongly neighbouring voxels are joined: by their intensities, or by learned features.

Convention: weights are float32 (N, 3, I, J, K) in (0, 1]; ``weights[n, a, i, j, k]`` joins a voxel
to its next one along array axis a. The last entry along a joins nothing and is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medrl.errors import MedrlError

#: Added to every weight, as in scikit-image: no voxel is cut off.
INTENSITY_FLOOR = 1e-10

#: The same for learned features, whose gradients vanish with the weight.
FEATURE_FLOOR = 1e-6


def intensity_edges(
    window: Tensor, *, spacing: Sequence[float] = (1.0, 1.0, 1.0), beta: float = 130.0
) -> Tensor:
    """Weights from intensities (Grady 2006), the same as scikit-image's.

    ``exp(-beta |g|^2 / (10 s sqrt(C))) + 1e-10`` with g the difference of neighbours per spacing
    and s the standard deviation of the window over all channels. In a constant window all are 1.

    Args:
        window: (N, C, I, J, K) float, intensities.
        spacing: Size of a voxel along each array axis, in any unit (scikit-image takes ratios).
        beta: How much a difference of intensities parts two voxels.

    Returns:
        (N, 3, I, J, K) float32, see the module.

    Raises:
        MedrlError: If the window is not (N, C, I, J, K), has values that are not finite, or the
            spacing or beta is not positive.
    """
    _check(window, "window")
    if len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise MedrlError(f"spacing must be three positive numbers, not {tuple(spacing)}")
    if not (math.isfinite(beta) and beta >= 0):
        raise MedrlError(f"beta must be a number >= 0, not {beta}")
    deviation = window.double().flatten(1).std(dim=1, correction=0)
    scale = beta / (10 * deviation * math.sqrt(window.shape[1]))
    # Without contrast all differences are 0, and so must their products with the scale be.
    scale = torch.where(deviation > 0, scale, 0.0).to(torch.float32)
    return _edges(window.to(torch.float32), scale, spacing, INTENSITY_FLOOR)


def feature_edges(embedding: Tensor) -> Tensor:
    """Weights from a learned embedding: ``exp(-|e_i - e_j|^2) + 1e-6``, differentiable.

    Args:
        embedding: (N, E, I, J, K) float.

    Returns:
        (N, 3, I, J, K) float32, see the module.

    Raises:
        MedrlError: If the embedding is not (N, E, I, J, K) or has values that are not finite.
    """
    _check(embedding, "embedding")
    ones = torch.ones(len(embedding), device=embedding.device)
    return _edges(embedding.to(torch.float32), ones, (1.0, 1.0, 1.0), FEATURE_FLOOR)


def _check(values: Tensor, name: str) -> None:
    if values.ndim != 5 or 0 in values.shape:
        raise MedrlError(f"{name} must be (N, C, I, J, K) and not empty, not {tuple(values.shape)}")
    if not values.is_floating_point():
        raise MedrlError(f"{name} must be floating point, not {values.dtype}")
    if not bool(torch.isfinite(values).all()):
        raise MedrlError(f"{name} has values that are not finite")


def _edges(values: Tensor, scale: Tensor, spacing: Sequence[float], floor: float) -> Tensor:
    """exp(-scale |difference per spacing|^2) + floor along each axis; scale (N,)."""
    axes = []
    for axis in range(3):
        step = values.diff(dim=axis + 2) / spacing[axis]
        weight = torch.exp(-scale[:, None, None, None] * step.square().sum(dim=1)) + floor
        padding = [0, 0] * (2 - axis) + [0, 1]
        axes.append(torch.nn.functional.pad(weight, padding))
    return torch.stack(axes, dim=1)
