"""From seeds to a probability of foreground: what all segmenters have in common, and the walker.

Convention: arrays are (N, I, J, K), N windows of one grid, in array order; edge weights are those
of :mod:`medrl.walker.edges`. A seeds map is int8: NONE, BACKGROUND or FOREGROUND in each voxel.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from medrl.errors import MedrlError
from medrl.walker import cpu, torch_solver
from medrl.walker.cpu import CpuSystem
from medrl.walker.torch_solver import TorchSystem

#: Values of a seeds map.
NONE, BACKGROUND, FOREGROUND = -1, 0, 1


class System(Protocol):
    """What a segmenter made of the weights of N windows; reused for all seeds in them."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, I, J, K)."""

    @property
    def device(self) -> torch.device:
        """Where seeds are expected and probabilities are returned."""

    def select(self, rows: Tensor) -> System:
        """The system of some of the windows.

        Args:
            rows: (M,) int64 indices, repeated ones allowed, or (N,) bool.
        """


class Segmenter(Protocol):
    """Turns seeds into a probability of foreground."""

    def prepare(self, weights: Tensor) -> System:
        """Do all that depends on the image only.

        Args:
            weights: (N, 3, I, J, K) float32 in (0, 1], see :mod:`medrl.walker.edges`.

        Returns:
            The system, for all calls of :meth:`solve` on these windows.

        Raises:
            MedrlError: If the weights have another shape, or one is not positive and finite.
        """

    def solve(
        self,
        system: System,
        seeds: Tensor,
        *,
        prior: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """Segment the windows.

        Args:
            system: What :meth:`prepare` returned for these windows.
            seeds: (N, I, J, K) int8 of NONE, BACKGROUND, FOREGROUND.
            prior: (N, I, J, K), a probability of foreground known beforehand.
            start: (N, I, J, K), the solution for nearly the same seeds: makes this one quicker.

        Returns:
            (N, I, J, K) float32, the probability of foreground; exactly 0 or 1 at seeds. Where all
            seeds of a window have one label and there is no prior: that label everywhere.

        Raises:
            MedrlError: If shapes do not match, a seed has another value, prior or start is not
                within 0 and 1, or a window has neither a seed nor a prior.
        """


def check_weights(weights: Tensor) -> Tensor:
    """The weights as float32, contiguous, with 0 where nothing is joined.

    Raises:
        MedrlError: See :meth:`Segmenter.prepare`.
    """
    if weights.ndim != 5 or weights.shape[1] != 3 or 0 in weights.shape:
        raise MedrlError(f"weights must be (N, 3, I, J, K), not {tuple(weights.shape)}")
    checked = weights.detach().to(torch.float32, copy=True).contiguous()
    for axis in range(3):
        last = checked[:, axis].narrow(axis + 1, -1, 1)
        last.fill_(1.0)
        low, high = (float(v) for v in checked[:, axis].aminmax())
        # NaN compares false.
        if not (low > 0 and high <= 1 + 1e-5):
            raise MedrlError(f"weights must be above 0 and at most 1, not {low:g} to {high:g}")
        last.zero_()
    return checked


def check_seeds(
    system: System, seeds: Tensor, *, prior: Tensor | None, start: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Check what is given to :meth:`Segmenter.solve`.

    Returns:
        Whether each window has background seeds, and whether foreground seeds: (N,) bool each.

    Raises:
        MedrlError: See :meth:`Segmenter.solve`.
    """
    if tuple(seeds.shape) != system.shape:
        raise MedrlError(f"seeds must be {system.shape}, not {tuple(seeds.shape)}")
    if seeds.dtype != torch.int8:
        raise MedrlError(f"seeds must be int8, not {seeds.dtype}")
    if not seeds.numel():
        nobody = torch.zeros(0, dtype=torch.bool, device=seeds.device)
        return nobody, nobody
    low, high = (int(v) for v in seeds.aminmax())
    if low < NONE or high > FOREGROUND:
        raise MedrlError(f"seeds must be {NONE}, {BACKGROUND} or {FOREGROUND}, not {low} to {high}")
    for name, values in (("prior", prior), ("start", start)):
        if values is None:
            continue
        if tuple(values.shape) != system.shape:
            raise MedrlError(f"{name} must be {system.shape}, not {tuple(values.shape)}")
        least, most = (float(v) for v in values.aminmax())
        if not (least >= -1e-3 and most <= 1 + 1e-3):
            raise MedrlError(f"{name} must be within 0 and 1, not {least:g} to {most:g}")
    flat = seeds.flatten(1)
    background, foreground = (flat == BACKGROUND).any(dim=1), (flat == FOREGROUND).any(dim=1)
    if prior is None and not bool((background | foreground).all()):
        raise MedrlError("a window has neither a seed nor a prior: place a seed first")
    return background, foreground


class RandomWalker:
    """Random walker with fixed seeds and, if wanted, a prior (Grady 2005, 2006).

    Minimises ``sum w_ij (x_i - x_j)^2 + prior_weight sum (x_i - prior_i)^2`` over the edges and the
    voxels, x being 0 at background seeds and 1 at foreground seeds. Windows on the CPU are solved
    by Numba one by one, those on other devices by torch all at once.
    """

    def __init__(
        self, *, prior_weight: float = 0.01, tolerance: float = 2e-3, numba: bool = True
    ) -> None:
        """Set the options.

        Args:
            prior_weight: How much the prior weighs, next to edges of at most 1.
            tolerance: Largest error of a probability, by the solver's estimate.
            numba: Use Numba for windows on the CPU; otherwise torch does them, too.

        Raises:
            MedrlError: If an option is not positive.
        """
        for name, value in (("prior_weight", prior_weight), ("tolerance", tolerance)):
            if not (math.isfinite(value) and value > 0):
                raise MedrlError(f"{name} must be a positive number, not {value}")
        self.prior_weight = prior_weight
        self.tolerance = tolerance
        self._numba = numba

    def prepare(self, weights: Tensor) -> System:
        """Do all that depends on the image only (see :meth:`Segmenter.prepare`)."""
        checked = check_weights(weights)
        if self._numba and checked.device.type == "cpu":
            return cpu.prepare(checked)
        return TorchSystem(checked)

    def solve(
        self,
        system: System,
        seeds: Tensor,
        *,
        prior: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """Segment the windows (see :meth:`Segmenter.solve`)."""
        if not isinstance(system, CpuSystem | TorchSystem):
            raise MedrlError("the system was prepared by another segmenter")
        background, foreground = check_seeds(system, seeds, prior=prior, start=start)
        first = start if start is not None else prior
        if first is None:
            first = torch.full(system.shape, 0.5, device=system.device)
        first = first.to(torch.float32)
        if prior is not None:
            return self._run(system, seeds, first, prior.to(torch.float32))
        out = foreground.to(torch.float32)[:, None, None, None].expand(system.shape).contiguous()
        rows = (background & foreground).nonzero()[:, 0]
        if len(rows):
            out[rows] = self._run(system.select(rows), seeds[rows], first[rows], None)
        return out

    def _run(
        self, system: CpuSystem | TorchSystem, seeds: Tensor, first: Tensor, prior: Tensor | None
    ) -> Tensor:
        """Solve by the means that the system was prepared for."""
        weight = None if prior is None else torch.full_like(first, self.prior_weight)
        if isinstance(system, TorchSystem):
            return torch_solver.solve(system, seeds, first, weight, prior, self.tolerance)
        out, _ = cpu.solve(system, seeds, first, weight, prior, self.tolerance)
        return out
