"""How objects move between frames: a Kalman filter of constant velocity, for N tracks at once.

Axes do not influence each other, so that a track has a 2 x 2 covariance of position and velocity
for each axis, and everything is written out in closed form (Kalman 1960; the model of SORT, Bewley
et al. 2016, with noise in shares of the object's size as in DeepSORT, Wojke et al. 2017).
Positions are in mm, velocities in mm per frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medrl.agents.rows import Rows


@dataclass(frozen=True)
class Noise:
    """Standard deviations as shares of the object's size (:func:`scale_of`).

    Attributes:
        measured: Of a detected centre.
        position: By which the position deviates from constant velocity in a frame.
        velocity: By which the velocity changes in a frame.
        first: Of the velocity of an object that was seen once.
        size: Share by which the new size counts in the running mean of sizes.
    """

    measured: float = 0.08
    position: float = 0.05
    velocity: float = 0.08
    first: float = 0.35
    size: float = 0.25


@dataclass(frozen=True, eq=False)
class Motion(Rows):
    """Where N objects are, and where they go.

    Attributes:
        position: (N, 3) float64, centres in mm.
        velocity: (N, 3) float64, mm per frame.
        covariance: (N, 3, 3) float64: variance of the position, covariance, variance of the
            velocity (second dimension), for each axis (third).
        size: (N, 3) float64, extents in mm.
    """

    position: Tensor
    velocity: Tensor
    covariance: Tensor
    size: Tensor

    @property
    def box(self) -> Tensor:
        """(N, 2, 3), lower and upper faces in mm."""
        return torch.stack([self.position - self.size / 2, self.position + self.size / 2], dim=1)


def scale_of(size: Tensor, flat: Tensor) -> Tensor:
    """One size of each object, (N,) mm: the geometric mean of the extents (N, 3).

    Args:
        size: (N, 3) in mm.
        flat: (3,) or (N, 3) bool, axes along which the film has one voxel, which do not count.
    """
    counts = (~flat).double()
    total = (size.clamp(min=1e-6).log() * counts).sum(dim=-1)
    return (total / counts.sum(dim=-1).clamp(min=1)).exp()


def begin(box: Tensor, flat: Tensor, noise: Noise) -> Motion:
    """Objects seen for the first time.

    Args:
        box: (N, 2, 3) float64 in mm.
        flat: (N, 3) bool, axes without motion.
        noise: Of what is measured.
    """
    size = box[:, 1] - box[:, 0]
    scale = scale_of(size, flat)[:, None]
    moves = (~flat).double()
    covariance = torch.stack(
        [
            (noise.measured * scale) ** 2 * moves,
            torch.zeros_like(size),
            (noise.first * scale) ** 2 * moves,
        ],
        dim=1,
    )
    middle = box.mean(dim=1)
    return Motion(middle, torch.zeros_like(middle), covariance, size)


def predict(motion: Motion, flat: Tensor, noise: Noise) -> Motion:
    """One frame later, nothing seen: ``x += v``, ``P = F P F' + Q`` with ``F = [[1, 1], [0, 1]]``.

    Args:
        motion: N objects.
        flat: (N, 3) bool.
        noise: Of the motion.
    """
    scale = scale_of(motion.size, flat)[:, None] * (~flat).double()
    var, cov, rate = motion.covariance.unbind(dim=1)
    covariance = torch.stack(
        [
            var + 2 * cov + rate + (noise.position * scale) ** 2,
            cov + rate,
            rate + (noise.velocity * scale) ** 2,
        ],
        dim=1,
    )
    return replace(motion, position=motion.position + motion.velocity, covariance=covariance)


def spread(motion: Motion, flat: Tensor, noise: Noise) -> Tensor:
    """Variance (N, 3) in mm^2 of where a detection of each object would be; 1 along flat axes."""
    scale = scale_of(motion.size, flat)[:, None]
    variance = motion.covariance[:, 0] + (noise.measured * scale) ** 2
    return torch.where(flat, torch.ones_like(variance), variance)


def update(
    motion: Motion, box: Tensor, flat: Tensor, noise: Noise, *, doubt: float = 1.0
) -> Motion:
    """Objects predicted to a frame, and seen there: gain ``P H' / (H P H' + R)``.

    Args:
        motion: N objects, predicted.
        box: (N, 2, 3) float64 in mm, where they were seen.
        flat: (N, 3) bool.
        noise: Of what is measured.
        doubt: Factor on the standard deviation of what is measured; with more than 1 the size is
            not taken over.
    """
    middle, size = box.mean(dim=1), box[:, 1] - box[:, 0]
    scale = scale_of(motion.size, flat)[:, None]
    var, cov, rate = motion.covariance.unbind(dim=1)
    total = var + (noise.measured * doubt * scale) ** 2
    gain, rate_gain = var / total, cov / total
    error = middle - motion.position
    position = torch.where(flat, middle, motion.position + gain * error)
    velocity = torch.where(flat, torch.zeros_like(error), motion.velocity + rate_gain * error)
    covariance = torch.stack([(1 - gain) * var, (1 - gain) * cov, rate - rate_gain * cov], dim=1)
    share = noise.size if doubt <= 1 else 0.0
    return Motion(position, velocity, covariance, torch.lerp(motion.size, size, share))
