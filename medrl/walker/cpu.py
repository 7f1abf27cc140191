"""Random walker on the CPU: conjugate gradients preconditioned by multigrid, compiled by Numba.

A window is a row of voxels in C order with a plane of zeros before and behind it. Edges that would
leave the window weigh nothing, so that the neighbours of all voxels are found by adding a constant
to their index, without a test, and every loop over voxels runs over contiguous memory.

Products with the matrix are sums of flows ``w_ij (x_i - x_j)``, not ``d_i x_i - sum w_ij x_j``:
behind edges of 1e-10 the rounding of the latter would be all there is to see in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.walker.levels import Levels, build, compiled, inlined

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

#: Weight of the damped Jacobi smoother on the voxels.
_DAMPING = np.float32(0.85)

#: Groups are stiffer than the voxels they stand for: their corrections are too small by about this.
_OVERCORRECTION = np.float32(1.2)

#: Coarse corrections per visit of a coarse level.
_CYCLES = 2

_MAX_ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class CpuSystem:
    """N windows on the CPU.

    Attributes:
        shape: (N, I, J, K).
        edges: Per window (3, P) float32, weights with a plane of zeros before and behind.
        levels: Per window, the coarser graphs.
    """

    shape: tuple[int, int, int, int]
    edges: tuple[Floats, ...]
    levels: tuple[Levels, ...]

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def select(self, rows: Tensor) -> CpuSystem:
        """The system of some of the windows (see :class:`medrl.walker.segmenter.System`)."""
        numbers = torch.arange(len(self.edges))[rows].tolist()
        edges = tuple(self.edges[n] for n in numbers)
        levels = tuple(self.levels[n] for n in numbers)
        return CpuSystem((len(numbers), *self.shape[1:]), edges, levels)


def prepare(weights: Tensor) -> CpuSystem:
    """Build the levels of all windows.

    Args:
        weights: (N, 3, I, J, K) float32, positive, 0 where nothing is joined.
    """
    count, _, i, j, k = weights.shape
    edges, levels = [], []
    for window in weights.numpy():
        padded = np.zeros((3, (i + 2) * j * k), dtype=np.float32)
        padded[:, j * k : (i + 1) * j * k] = window.reshape(3, -1)
        edges.append(padded)
        levels.append(build(window))
    return CpuSystem((count, i, j, k), tuple(edges), tuple(levels))


def solve(
    system: CpuSystem,
    seeds: Tensor,
    start: Tensor,
    prior_weight: Tensor | None,
    prior: Tensor | None,
    tolerance: float,
) -> tuple[Tensor, list[int]]:
    """Solve all windows.

    Args:
        system: The windows.
        seeds: (N, I, J, K) int8.
        start: (N, I, J, K) float32.
        prior_weight: (N, I, J, K) float32, weight of the prior at each voxel, or None.
        prior: (N, I, J, K) float32, or None.
        tolerance: Largest error of a probability, by its estimate.

    Returns:
        The probabilities (N, I, J, K) float32, and the iterations that each window took.
    """
    out = torch.empty(system.shape, dtype=torch.float32)
    nothing = np.empty(0, dtype=np.float32)
    steps = []
    for n, (edges, levels) in enumerate(zip(system.edges, system.levels, strict=True)):
        count = _solve_window(
            edges,
            system.shape[2] * system.shape[3],
            system.shape[3],
            levels,
            seeds[n].contiguous().numpy().reshape(-1),
            start[n].contiguous().numpy().reshape(-1),
            nothing if prior_weight is None else prior_weight[n].contiguous().numpy().reshape(-1),
            nothing if prior is None else prior[n].contiguous().numpy().reshape(-1),
            np.float32(tolerance),
            out[n].numpy().reshape(-1),
        )
        steps.append(int(count))
    return out, steps


class _Work(NamedTuple):
    """What a solve keeps on the coarser graphs; names as in Levels, C nodes and E edges.

    Attributes:
        weight: (E,), the weights without the seeds.
        extra: (C,), weight of what is fixed: edges to seeds, and the prior.
        inverse: (C,), one over all that acts on a node, 0 where it holds nothing but seeds.
        r: (C,), right hand side.
        z: (C,), solution.
    """

    weight: Floats
    extra: Floats
    inverse: Floats
    r: Floats
    z: Floats


@compiled
def _coarse_work(
    levels: Levels,
    edges: Floats,
    plane: int,
    line: int,
    seeds: NDArray[np.int8],
    prior_weight: Floats,
) -> _Work:
    """Take the seeds out of the coarser graphs."""
    nodes = levels.above.size
    work = _Work(
        levels.weight.copy(),
        np.zeros(nodes, dtype=np.float32),
        np.zeros(nodes, dtype=np.float32),
        np.zeros(nodes, dtype=np.float32),
        np.zeros(nodes, dtype=np.float32),
    )
    parent, above, row, end = levels.parent, levels.above, levels.row, levels.end
    weight, extra = work.weight, work.extra
    # To each of a voxel's neighbours: how far it is, and where the edge between both is kept.
    steps = (-plane, -line, -1, 1, line, plane)
    starts = (-plane, -line, -1, 0, 0, 0)
    axes = (0, 1, 2, 2, 1, 0)
    touched = np.zeros(nodes, dtype=np.bool_)
    for n in range(prior_weight.size):
        if seeds[n] < 0:
            extra[parent[n]] += prior_weight[n]
    for n in range(seeds.size):
        if seeds[n] >= 0:
            touched[parent[n]] = True
            for s in range(6):
                w = edges[axes[s], plane + n + starts[s]]
                if w > 0 and seeds[n + steps[s]] < 0:
                    extra[parent[n + steps[s]]] += w
    # Weights of nodes that hold seeds are summed up again: subtracting would leave roundings.
    for level in range(levels.first.size - 1):
        for c in range(levels.first[level], levels.first[level + 1]):
            if not touched[c]:
                continue
            weight[row[c] : row[c + 1]] = 0
            if level > 0:
                continue
            for at in range(levels.child[c], levels.child[c + 1]):
                n = levels.children[at]
                if seeds[n] >= 0:
                    continue
                for s in range(6):
                    w = edges[axes[s], plane + n + starts[s]]
                    if w > 0 and seeds[n + steps[s]] < 0 and parent[n + steps[s]] != c:
                        weight[_edge(levels, c, parent[n + steps[s]])] += w
        for b in range(levels.first[level - 1] if level > 0 else 0, levels.first[level]):
            if level > 0 and touched[above[b]]:
                for e in range(row[b], row[b + 1]):
                    if above[end[e]] != above[b]:
                        weight[_edge(levels, above[b], above[end[e]])] += weight[e]
        for c in range(levels.first[level], levels.first[level + 1]):
            if touched[c]:
                for e in range(row[c], row[c + 1]):
                    weight[_edge(levels, end[e], c)] = weight[e]
                if above[c] >= 0:
                    touched[above[c]] = True
    for c in range(nodes):
        total = extra[c]
        if above[c] >= 0:
            extra[above[c]] += total
        for e in range(row[c], row[c + 1]):
            total += weight[e]
        work.inverse[c] = np.float32(1) / total if total > 0 else np.float32(0)
    return work


@compiled
def _edge(levels: Levels, here: int, there: int) -> int:
    """Number of the edge from one node to another."""
    e = int(levels.row[here])
    while levels.end[e] != there:
        e += 1
    return e


@compiled
def _cycle(levels: Levels, work: _Work) -> None:
    """Solve A z = r on the first coarse level, roughly: one V there, two on each level below."""
    last = levels.first.size - 2
    rounds = np.zeros(last + 1, dtype=np.int64)
    level = 0
    _sweep_forth(0, levels, work)
    while True:
        if level < last and rounds[level] < min(level + 1, _CYCLES):
            _restrict(level, rounds[level] == 0, levels, work)
            rounds[level] += 1
            level += 1
            rounds[level] = 0
            _sweep_forth(level, levels, work)
        else:
            _sweep_back(level, levels, work)
            if level == 0:
                break
            level -= 1
            for n in range(np.uintp(levels.first[level]), np.uintp(levels.first[level + 1])):
                if work.inverse[n] > 0:
                    work.z[n] += _OVERCORRECTION * work.z[np.uintp(levels.above[n])]


@inlined
def _flows(
    begin: int, stop: int, here: np.float32, end: Integers, weight: Floats, z: Floats
) -> np.float32:
    """Sum of w (z - here) over a range of edges, four at a time."""
    one, two, three, four = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4)
    a = b = c = d = np.float32(0)
    for e in range(np.uintp(begin), np.uintp(stop), four):
        a += weight[e] * (z[np.uintp(end[e])] - here)
        b += weight[e + one] * (z[np.uintp(end[e + one])] - here)
        c += weight[e + two] * (z[np.uintp(end[e + two])] - here)
        d += weight[e + three] * (z[np.uintp(end[e + three])] - here)
    return (a + b) + (c + d)


@compiled
def _sweep_forth(level: int, levels: Levels, work: _Work) -> None:
    """One sweep of Gauss-Seidel from zero: later nodes still are 0."""
    end, weight, z = levels.end, work.weight, work.z
    for n in range(np.uintp(levels.first[level]), np.uintp(levels.first[level + 1])):
        # Edges that fill up the row lead to the node itself.
        z[n] = 0
        total = _flows(levels.row[n], levels.middle[n], np.float32(0), end, weight, z)
        z[n] = (work.r[n] + total) * work.inverse[n]


@compiled
def _sweep_back(level: int, levels: Levels, work: _Work) -> None:
    """One sweep of Gauss-Seidel, last node first."""
    end, weight, z = levels.end, work.weight, work.z
    begin, stop, one = np.uintp(levels.first[level]), np.uintp(levels.first[level + 1]), np.uintp(1)
    for back in range(stop - begin):
        n = stop - one - back
        total = _flows(levels.row[n], levels.row[n + one], z[n], end, weight, z)
        z[n] += work.inverse[n] * (work.r[n] - work.extra[n] * z[n] + total)


@compiled
def _restrict(level: int, swept: bool, levels: Levels, work: _Work) -> None:
    """Sum up the residual of a level for the next one."""
    end, weight, z, r = levels.end, work.weight, work.z, work.r
    begin, stop, one = np.uintp(levels.first[level]), np.uintp(levels.first[level + 1]), np.uintp(1)
    r[stop : levels.first[level + 2]] = 0
    if swept:
        # After the sweep forth, only edges to later nodes are left in the residual.
        for n in range(begin, stop):
            total = _flows(levels.middle[n], levels.row[n + one], np.float32(0), end, weight, z)
            r[np.uintp(levels.above[n])] += total
    else:
        for n in range(begin, stop):
            total = _flows(levels.row[n], levels.row[n + one], z[n], end, weight, z)
            r[np.uintp(levels.above[n])] += r[n] - work.extra[n] * z[n] + total


@inlined
def _flow(n: int, x: Floats, edges: Floats, extra: Floats, plane: int, line: int) -> Any:
    """A x at a voxel; all indices unsigned, which spares the test for negative ones."""
    here, one = x[n], np.uintp(1)
    wi, wj, wk = np.uintp(0), np.uintp(1), np.uintp(2)
    return (
        edges[wi, n] * (here - x[n + plane])
        + edges[wi, n - plane] * (here - x[n - plane])
        + edges[wj, n] * (here - x[n + line])
        + edges[wj, n - line] * (here - x[n - line])
        + edges[wk, n] * (here - x[n + one])
        + edges[wk, n - one] * (here - x[n - one])
        + extra[n] * here
    )


@compiled
def _multiply(q: Floats, x: Floats, edges: Floats, extra: Floats, plane: int, line: int) -> float:
    """Q = A x; returns the product of x and q."""
    total = np.float64(0)
    for begin in range(plane, np.uintp(x.size) - plane, plane):
        part = np.float32(0)
        for n in range(begin, begin + plane):
            q[n] = _flow(n, x, edges, extra, plane, line)
            part += x[n] * q[n]
        total += part
    return total


@compiled
def _precondition(
    r: Floats,
    z: Floats,
    t: Floats,
    inverse: Floats,
    edges: Floats,
    extra: Floats,
    plane: int,
    line: int,
    levels: Levels,
    work: _Work,
) -> tuple[np.float64, np.float32]:
    """One cycle through all levels: z = M r; returns the product of both, and the largest |z|."""
    size = np.uintp(r.size)
    for n in range(plane, size - plane):
        t[n] = _DAMPING * inverse[n] * r[n]
    for n in range(plane, size - plane):
        rest = r[n] - _flow(n, t, edges, extra, plane, line)
        z[n] = rest if inverse[n] > 0 else np.float32(0)
    child, children, parent = levels.child, levels.children, levels.parent
    for c in range(np.uintp(child.size - 1)):
        total = np.float32(0)
        for at in range(np.uintp(child[c]), np.uintp(child[c + np.uintp(1)])):
            total += z[plane + np.uintp(children[at])]
        work.r[c] = total
    _cycle(levels, work)
    for n in range(plane, size - plane):
        step = _OVERCORRECTION * work.z[np.uintp(parent[n - plane])]
        t[n] += step if inverse[n] > 0 else np.float32(0)
    most, product = np.float32(0), np.float64(0)
    for begin in range(plane, size - plane, plane):
        part = np.float32(0)
        for n in range(begin, begin + plane):
            rest = r[n] - _flow(n, t, edges, extra, plane, line)
            step = t[n] + _DAMPING * inverse[n] * rest
            z[n] = step
            part += step * r[n]
        product += part
        # In a loop of its own, or none of it is vectorised.
        for n in range(begin, begin + plane):
            most = abs(z[n]) if abs(z[n]) > most else most
    return product, most


@compiled
def _solve_window(
    edges: Floats,
    signed_plane: int,
    signed_line: int,
    levels: Levels,
    seeds: NDArray[np.int8],
    start: Floats,
    prior_weight: Floats,
    prior: Floats,
    tolerance: float,
    out: Floats,
) -> int:
    """Conjugate gradients; returns the number of iterations."""
    work = _coarse_work(levels, edges, signed_plane, signed_line, seeds, prior_weight)
    plane, line, size = np.uintp(signed_plane), np.uintp(signed_line), np.uintp(edges.shape[1])
    x = np.zeros(size, dtype=np.float32)
    r = np.zeros(size, dtype=np.float32)
    z = np.zeros(size, dtype=np.float32)
    t = np.zeros(size, dtype=np.float32)
    p = np.zeros(size, dtype=np.float32)
    inverse = np.zeros(size, dtype=np.float32)
    extra = np.zeros(size, dtype=np.float32)
    if prior_weight.size:
        extra[plane : size - plane] = prior_weight
    wi, wj, wk = edges[0], edges[1], edges[2]
    one = np.uintp(1)
    for n in range(plane, size - plane):
        seed = seeds[n - plane]
        x[n] = start[n - plane] if seed < 0 else np.float32(seed)
        total = wi[n] + wi[n - plane] + wj[n] + wj[n - line] + wk[n] + wk[n - one] + extra[n]
        inverse[n] = np.float32(1) / total if seed < 0 else np.float32(0)
    steps, last = 0, 0.0
    while steps < _MAX_ITERATIONS:
        fresh = last == 0
        if fresh:
            # From x itself, not by recurrence: roundings at strong edges hide the weakest flows.
            _multiply(r, x, edges, extra, plane, line)
            for n in range(plane, size - plane):
                r[n] = -r[n]
            if prior_weight.size:
                for n in range(plane, size - plane):
                    r[n] += prior_weight[n - plane] * prior[n - plane]
        product, most = _precondition(r, z, t, inverse, edges, extra, plane, line, levels, work)
        if most < tolerance or product <= 0:
            for n in range(plane, size - plane):
                x[n] += z[n]
            if fresh:
                break
            last = 0.0
            continue
        share = np.float32(0 if fresh else product / last)
        for n in range(plane, size - plane):
            p[n] = z[n] + share * p[n]
        length = np.float32(product / _multiply(t, p, edges, extra, plane, line))
        for n in range(plane, size - plane):
            x[n] += length * p[n]
            r[n] -= length * t[n]
        last = product
        steps += 1
    for n in range(np.uintp(out.size)):
        out[n] = min(max(x[n + plane], np.float32(0)), np.float32(1))
    return steps
