"""The second segmenter: who is nearer by the shortest path that does not cross edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medrl.errors import MedrlError
from medrl.walker.segmenter import BACKGROUND, FOREGROUND, System, check_seeds, check_weights

#: Distance that stands for "no seed of that label".
_FAR = 1e6


@dataclass(frozen=True, eq=False)
class GeodesicSystem:
    """Cost of a step of one voxel at each voxel of N windows.

    Attributes:
        cost: (N, I, J, K) float32, at least 1.
    """

    cost: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, I, J, K)."""
        n, i, j, k = self.cost.shape
        return n, i, j, k

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return self.cost.device

    def select(self, rows: Tensor) -> GeodesicSystem:
        """The system of some of the windows (see :class:`medrl.walker.segmenter.System`)."""
        return GeodesicSystem(self.cost[rows])


class GeodesicSegmenter:
    """Geodesic distances to the seeds of both labels (Bai and Sapiro 2009), by fast marching.

    The probability of foreground is ``d_b / (d_f + d_b)`` with d the length of the shortest path to
    a background and to a foreground seed. A step costs ``sqrt(1 + contrast * g)`` with g = -log w
    averaged over the edges of the voxel: for weights from intensities that is the squared
    gradient. With a prior, paths to foreground seeds cost ``prior_weight * (1 - prior)`` more for
    each voxel, those to background seeds ``prior_weight * prior``.
    """

    def __init__(self, *, contrast: float = 4.0, prior_weight: float = 1.0) -> None:
        """Set the options.

        Args:
            contrast: How much longer edges make a path.
            prior_weight: How much longer what is unlikely makes a path.

        Raises:
            MedrlError: If an option is negative.
        """
        if not (contrast >= 0 and prior_weight >= 0):
            raise MedrlError("contrast and prior_weight must not be negative")
        self.contrast = contrast
        self.prior_weight = prior_weight

    def prepare(self, weights: Tensor) -> System:
        """Do what depends on the image only (see :class:`medrl.walker.segmenter.Segmenter`)."""
        checked = check_weights(weights).cpu()
        total = torch.zeros_like(checked[:, 0])
        count = torch.zeros_like(total)
        for axis in range(3):
            size = checked.shape[axis + 2] - 1
            steep = -checked[:, axis].narrow(axis + 1, 0, size).log()
            pads = [0] * 6
            for before in (0, 1):
                pads[2 * (2 - axis)], pads[2 * (2 - axis) + 1] = before, 1 - before
                total += F.pad(steep, pads)
                count += F.pad(torch.ones_like(steep), pads)
        return GeodesicSystem((1 + self.contrast * total / count.clamp(min=1)).sqrt())

    def solve(
        self,
        system: System,
        seeds: Tensor,
        *,
        prior: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """Segment the windows (see :meth:`medrl.walker.segmenter.Segmenter.solve`).

        A start is not made use of: distances are computed anew.
        """
        if not isinstance(system, GeodesicSystem):
            raise MedrlError("the system was prepared by another segmenter")
        check_seeds(system, seeds, prior=prior, start=start)
        out = torch.empty(system.shape)
        for n, (cost, seeded) in enumerate(zip(system.cost, seeds, strict=True)):
            if prior is not None and not bool((seeded >= 0).any()):
                out[n] = prior[n]
                continue
            costs = {BACKGROUND: cost, FOREGROUND: cost}
            if prior is not None:
                costs = {
                    BACKGROUND: cost + self.prior_weight * prior[n],
                    FOREGROUND: cost + self.prior_weight * (1 - prior[n]),
                }
            far, near = (_distance(costs[label], seeded == label) for label in (0, 1))
            out[n] = torch.from_numpy(far / np.maximum(far + near, 1e-12))
            out[n][seeded == BACKGROUND] = 0.0
            out[n][seeded == FOREGROUND] = 1.0
        return out


def _distance(cost: Tensor, seeds: Tensor) -> NDArray[np.float32]:
    """Length of the cheapest path from each voxel (I, J, K) to a seed."""
    if not bool(seeds.any()):
        return np.full(tuple(cost.shape), _FAR, dtype=np.float32)
    # Index order of SimpleITK is that of the axes; its arrays are reversed.
    speed = sitk.GetImageFromArray((1 / cost).numpy().T.copy())
    marching = sitk.FastMarchingImageFilter()
    marching.SetStoppingValue(_FAR)
    marching.SetTrialPoints([tuple(int(c) for c in row) for row in seeds.nonzero().tolist()])
    arrival = sitk.GetArrayFromImage(marching.Execute(speed)).T
    return np.minimum(arrival, _FAR).astype(np.float32)
