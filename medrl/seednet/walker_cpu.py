"""Random walker on the CPU: conjugate gradients preconditioned by multigrid, compiled by Numba.

A window is a row of voxels in C order with a plane of zeros before and behind it. Edges that would
leave the window weigh nothing, so that the neighbours of all voxels are found by adding a constant
to their index, without a test, and every loop runs over contiguous memory.

The coarser levels join 2 x 2 x 2 voxels to one (Galerkin aggregation): the weights that cross
between two such blocks add up, and what stays is a random walk on a smaller window. Seeds are fixed:
they belong to no block, and their edges pull the blocks next to them to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

#: Weight of the damped Jacobi smoother.
_DAMPING = np.float32(0.85)

#: Blocks are stiffer than the voxels they stand for: their corrections are too small by about this.
_OVERCORRECTION = np.float32(1.6)

_MAX_ITERATIONS = 2000


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the GIL; keep the machine code on disk where there is a place for it."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": True}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # Numba found no folder it may write to
        return njit(**options)(function)


@dataclass(frozen=True, eq=False)
class CpuSystem:
    """N windows on the CPU.

    Attributes:
        shape: (N, I, J, K).
        table: (levels, 4) int64: I, J, K of each level and where it begins in the buffers, fine
            first; the buffers of the coarser levels begin anew.
        fine: Per window (3, P) float32, weights of the finest level.
        coarse: Per window (4, Q) float32, weights of the coarser levels, and the number of voxels
            in each block.
    """

    shape: tuple[int, int, int, int]
    table: Integers
    fine: tuple[Floats, ...]
    coarse: tuple[Floats, ...]

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def select(self, rows: Tensor) -> CpuSystem:
        """The system of some of the windows (see :class:`medrl.seednet.segmenter.System`)."""
        numbers = torch.arange(len(self.fine))[rows].tolist()
        fine, coarse = (tuple(part[n] for n in numbers) for part in (self.fine, self.coarse))
        return CpuSystem((len(numbers), *self.shape[1:]), self.table, fine, coarse)


def prepare(weights: Tensor) -> CpuSystem:
    """Build the levels of all windows.

    Args:
        weights: (N, 3, I, J, K) float32, positive, 0 where nothing is joined.
    """
    shape = (len(weights), *weights.shape[2:])
    table = _levels(shape[1:])
    length = int(table[-1, 3] + np.prod(table[-1, :3]) + np.prod(table[-1, 1:3]))
    fine, coarse = [], []
    for window in weights.numpy():
        plane = shape[2] * shape[3]
        level = np.zeros((3, window[0].size + 2 * plane), dtype=np.float32)
        level[:, plane:-plane] = window.reshape(3, -1)
        others = np.zeros((4, length), dtype=np.float32)
        _coarsen(level, others, table)
        fine.append(level)
        coarse.append(others)
    return CpuSystem(shape, table, tuple(fine), tuple(coarse))


def _levels(shape: tuple[int, ...]) -> Integers:
    """Table of the levels, see CpuSystem."""
    rows, extent, begin = [], shape, 0
    while True:
        plane = extent[1] * extent[2]
        begin += plane
        rows.append([*extent, begin])
        begin += extent[0] * plane + plane
        if len(rows) == 1:
            begin = 0
        if max(extent) == 1 and len(rows) > 1:
            return np.array(rows, dtype=np.int64)
        extent = tuple((e + 1) // 2 for e in extent)


def solve(
    system: CpuSystem,
    seeds: Tensor,
    start: Tensor,
    pull: Tensor | None,
    target: Tensor | None,
    tolerance: float,
) -> tuple[Tensor, list[int]]:
    """Solve all windows.

    Args:
        system: The windows.
        seeds: (N, I, J, K) int8.
        start: (N, I, J, K) float32.
        pull: (N, I, J, K) float32, how strongly each voxel is drawn to its target; or None.
        target: (N, I, J, K) float32.
        tolerance: Largest error of a probability, by its estimate.

    Returns:
        The probabilities (N, I, J, K) float32, and the iterations that each window took.
    """
    out = torch.empty(system.shape, dtype=torch.float32)
    nothing = np.empty(0, dtype=np.float32)
    steps = []
    for n in range(len(out)):
        count = _solve_window(
            system.table,
            system.fine[n],
            system.coarse[n],
            seeds[n].contiguous().numpy().reshape(-1),
            start[n].contiguous().numpy().reshape(-1),
            nothing if pull is None else pull[n].contiguous().numpy().reshape(-1),
            nothing if target is None else target[n].contiguous().numpy().reshape(-1),
            np.float32(tolerance),
            out[n].numpy().reshape(-1),
        )
        steps.append(int(count))
    return out, steps


@_compiled
def _level(buffer: Floats, table: Integers, level: int) -> Floats:
    """A level's part of a buffer of coarse levels, with its planes of zeros."""
    i, j, k, begin = table[level]
    return buffer[begin - j * k : begin + i * j * k + j * k]


@_compiled
def _coarsen(fine: Floats, coarse: Floats, table: Integers) -> None:
    """Fill the coarser levels with the weights that cross between blocks."""
    for level in range(1, table.shape[0]):
        fi, fj, fk = table[level - 1, 0], table[level - 1, 1], table[level - 1, 2]
        ci, cj, ck = table[level, 0], table[level, 1], table[level, 2]
        for a in range(4):
            to = _level(coarse[a], table, level)
            if level > 1:
                at = _level(coarse[a], table, level - 1)
            else:
                at = fine[min(a, 2)]
            for i in range(fi):
                for j in range(fj):
                    row = fj * fk + (i * fj + j) * fk
                    out = cj * ck + (i // 2 * cj + j // 2) * ck
                    if (a == 0 and i % 2 == 0) or (a == 1 and j % 2 == 0):
                        continue
                    if a == 2:
                        for k in range(1, fk, 2):
                            to[out + k // 2] += at[row + k]
                    elif a == 3 and level == 1:
                        for k in range(fk):
                            to[out + k // 2] += np.float32(1)
                    else:
                        for k in range(fk):
                            to[out + k // 2] += at[row + k]


@_compiled
def _degrees(
    out: Floats, wi: Floats, wj: Floats, wk: Floats, extra: Floats, J: int, K: int
) -> None:
    """Sum of the weights at each voxel."""
    m = J * K
    for n in range(m, out.size - m):
        out[n] = wi[n] + wi[n - m] + wj[n] + wj[n - K] + wk[n] + wk[n - 1] + extra[n]


@_compiled
def _fix_seeds(
    seeds: NDArray[np.int8], fine: Floats, coarse: Floats, extra: Floats, table: Integers
) -> None:
    """Take the seeds' edges out of the coarser levels, and pull the blocks next to them to zero."""
    I, J, K = table[0, 0], table[0, 1], table[0, 2]
    m = J * K
    for n in range(seeds.size):
        if seeds[n] < 0:
            continue
        i, j, k = n // m, n // K % J, n % K
        for axis in range(3):
            for side in range(2):
                a, b, c = i, j, k
                move = 1 if side else -1
                if axis == 0:
                    a += move
                elif axis == 1:
                    b += move
                else:
                    c += move
                if a < 0 or b < 0 or c < 0 or a >= I or b >= J or c >= K:
                    continue
                other = (a * J + b) * K + c
                fixed = seeds[other] >= 0
                if fixed and other < n:
                    continue
                weight = fine[axis, m + min(n, other)]
                # Coordinates of both ends on each level, the lower end first.
                li, lj, lk = min(i, a), min(j, b), min(k, c)
                ui, uj, uk = max(i, a), max(j, b), max(k, c)
                for level in range(1, table.shape[0]):
                    li, lj, lk, ui, uj, uk = (
                        li // 2,
                        lj // 2,
                        lk // 2,
                        ui // 2,
                        uj // 2,
                        uk // 2,
                    )
                    cj, ck, begin = table[level, 1], table[level, 2], table[level, 3]
                    a, b, c = a // 2, b // 2, c // 2
                    if li != ui or lj != uj or lk != uk:
                        coarse[axis, begin + (li * cj + lj) * ck + lk] -= weight
                    if not fixed:
                        extra[begin + (a * cj + b) * ck + c] += weight


@_compiled
def _multiply(
    q: Floats, x: Floats, wi: Floats, wj: Floats, wk: Floats, extra: Floats, J: int, K: int
) -> float:
    """Q = A x; returns the product of x and q."""
    m = J * K
    total = 0.0
    for begin in range(m, x.size - m, m):
        part = np.float32(0)
        for n in range(begin, begin + m):
            here = x[n]
            flow = (
                wi[n] * (here - x[n + m])
                + wi[n - m] * (here - x[n - m])
                + wj[n] * (here - x[n + K])
                + wj[n - K] * (here - x[n - K])
                + wk[n] * (here - x[n + 1])
                + wk[n - 1] * (here - x[n - 1])
                + extra[n] * here
            )
            q[n] = flow
            part += here * flow
        total += part
    return total


@_compiled
def _solve_window(
    table: Integers,
    fine: Floats,
    coarse: Floats,
    seeds: NDArray[np.int8],
    start: Floats,
    pull: Floats,
    target: Floats,
    tolerance: float,
    out: Floats,
) -> int:
    """Conjugate gradients; returns the number of iterations."""
    J, K = table[0, 1], table[0, 2]
    m = J * K
    wi, wj, wk = fine[0], fine[1], fine[2]
    size = fine.shape[1]
    count = size - 2 * m
    extra = np.zeros(size, dtype=np.float32)
    x = np.zeros(size, dtype=np.float32)
    r = np.zeros(size, dtype=np.float32)
    z = np.zeros(size, dtype=np.float32)
    p = np.zeros(size, dtype=np.float32)
    q = np.zeros(size, dtype=np.float32)
    inverse = np.zeros(size, dtype=np.float32)
    for n in range(count):
        x[m + n] = start[n] if seeds[n] < 0 else np.float32(seeds[n])
        if pull.size:
            extra[m + n] = pull[n]
    _multiply(r, x, wi, wj, wk, extra, J, K)
    for n in range(count):
        r[m + n] = -r[m + n]
        if pull.size:
            r[m + n] += pull[n] * target[n]
    _degrees(inverse, wi, wj, wk, extra, J, K)
    for n in range(count):
        inverse[m + n] = np.float32(1) / inverse[m + n] if seeds[n] < 0 else np.float32(0)
    rho = 0.0
    steps = 0
    while steps < _MAX_ITERATIONS:
        most = np.float32(0)
        new = 0.0
        for n in range(m, size - m):
            z[n] = inverse[n] * r[n]
            most = max(most, abs(z[n]))
            new += z[n] * r[n]
        if most < tolerance * np.float32(0.01) or new == 0:
            break
        beta = np.float32(new / rho) if steps else np.float32(0)
        rho = new
        for n in range(m, size - m):
            p[n] = z[n] + beta * p[n]
        alpha = np.float32(rho / _multiply(q, p, wi, wj, wk, extra, J, K))
        for n in range(m, size - m):
            x[n] += alpha * p[n]
            r[n] -= alpha * q[n]
        steps += 1
    for n in range(count):
        out[n] = min(max(x[m + n], np.float32(0)), np.float32(1))
    return steps
