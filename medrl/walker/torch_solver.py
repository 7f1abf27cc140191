"""The random walker in plain torch operations: all windows at once, on any device; made for CUDA.

Its diagonal preconditioner does not see groups of voxels that are all but cut off from the rest
(edges of 1e-6 and less): for plain intensity edges with a large beta use the CPU's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MAX_ITERATIONS = 5000
#: How much smaller than the tolerance the diagonally preconditioned residual must get: it misses
#: errors that are spread out.
_SAFETY = 0.02


@dataclass(frozen=True, eq=False)
class TorchSystem:
    """Edge weights of N windows.

    Attributes:
        weights: (N, 3, I, J, K) float32, 0 where nothing is joined.
    """

    weights: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, I, J, K)."""
        n, _, i, j, k = self.weights.shape
        return n, i, j, k

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.device

    def select(self, rows: Tensor) -> TorchSystem:
        """The system of some of the windows (see :class:`medrl.walker.segmenter.System`)."""
        return TorchSystem(self.weights[rows])


def solve(
    system: TorchSystem,
    seeds: Tensor,
    first: Tensor,
    prior_weight: Tensor | None,
    prior: Tensor | None,
    tolerance: float,
) -> Tensor:
    """Conjugate gradients with a diagonal preconditioner; every window ends on its own.

    Args:
        system: The windows.
        seeds: (N, I, J, K) int8.
        first: (N, I, J, K) float32, where to begin.
        prior_weight: (N, I, J, K) float32, of the prior at each voxel, or None.
        prior: (N, I, J, K) float32, or None.
        tolerance: Largest error of a probability.

    Returns:
        (N, I, J, K) float32.
    """
    weights = system.weights
    free = (seeds < 0).float()
    x = torch.where(seeds < 0, first, seeds.float())
    diagonal = _spread(weights)
    if prior_weight is not None:
        diagonal = diagonal + prior_weight
    inverse = free / diagonal.clamp(min=1e-30)

    def apply(v: Tensor) -> Tensor:
        out = _laplacian(weights, v)
        return free * (out if prior_weight is None else out + prior_weight * v)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a.double() * b.double()).sum(dim=(1, 2, 3), keepdim=True)

    r = -_laplacian(weights, x)
    if prior_weight is not None and prior is not None:
        r = r + prior_weight * (prior - x)
    r = free * r
    z = inverse * r
    p, rz = z, dot(r, z)
    for _ in range(_MAX_ITERATIONS):
        going = z.abs().amax(dim=(1, 2, 3), keepdim=True) > tolerance * _SAFETY
        if not bool(going.any()):
            break
        ap = apply(p)
        step = torch.where(going, rz / dot(p, ap).clamp(min=1e-300), 0.0).float()
        x = x + step * p
        r = r - step * ap
        z = inverse * r
        new = dot(r, z)
        p = z + (new / rz.clamp(min=1e-300)).float() * p
        rz = new
    return x.clamp(0.0, 1.0)


def _laplacian(weights: Tensor, v: Tensor) -> Tensor:
    """Sum of ``w_ij (v_i - v_j)`` over the neighbours of each voxel, (N, I, J, K)."""
    out = torch.zeros_like(v)
    for axis in range(3):
        size = v.shape[axis + 1] - 1
        near, far = v.narrow(axis + 1, 0, size), v.narrow(axis + 1, 1, size)
        flow = weights[:, axis].narrow(axis + 1, 0, size) * (near - far)
        out.narrow(axis + 1, 0, size).add_(flow)
        out.narrow(axis + 1, 1, size).sub_(flow)
    return out


def _spread(weights: Tensor) -> Tensor:
    """Sum of the weights at each voxel, (N, I, J, K)."""
    out = torch.zeros_like(weights[:, 0])
    for axis in range(3):
        size = out.shape[axis + 1] - 1
        own = weights[:, axis].narrow(axis + 1, 0, size)
        out.narrow(axis + 1, 0, size).add_(own)
        out.narrow(axis + 1, 1, size).add_(own)
    return out
