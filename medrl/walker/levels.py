"""Coarser and coarser graphs of a window: the multigrid hierarchy of the random walker.

Voxels that hold together are joined to one node, and the weights between two groups of voxels add
up to the weight between their nodes (Galerkin aggregation). Groups grow by matching pairs three
times, so that they hold about eight members. A pair is allowed where the edge between them is
strong next to the smaller of the two sums of *all* weights at their members (after Notay 2010 and
Napov and Notay 2012, who bound the condition number by such a ratio): then smoothing can remove
what differs within a group, and islands behind weak edges get nodes of their own, however small.

Numba compiles all this; graphs are in compressed rows, every edge stored at both of its ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from medrl.compiled import compile_with

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

#: Least strength of an edge between two groups that are matched.
_PAIRED = np.float32(0.05)

#: Least share of a group's weights that its edge to a pair must have for it to join as a third.
_JOINED = np.float32(0.1)

_PASSES = 3

#: Edges of a node come in multiples of this.
LANES = 4


compiled = compile_with(error_model="numpy", fastmath=True)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Part of the compiled functions that call it; calls with arrays cost too much in a loop."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": True, "inline": "always"}
    return cast(Callable[..., Any], njit(**options)(function))


class Levels(NamedTuple):
    """The coarser graphs of one window, one after the other in the same arrays.

    Nodes of all of them are numbered through, finest first: C nodes, E edges counted at both ends.
    A node's edges to earlier nodes, and those to later ones, are each filled up to a multiple of
    :data:`LANES` with edges to itself that weigh nothing, so that loops can take as many at once.

    Attributes:
        first: (levels + 1,) int32, first node of each level.
        parent: (V,) int32, node that each voxel belongs to.
        children: (V,) int32, voxels in the order of their nodes.
        child: (F + 1,) int32, where the children of each node of the first level begin.
        above: (C,) int32, node of the next level that each node belongs to; unused on the last.
        row: (C + 1,) int32, where the edges of each node begin.
        middle: (C,) int32, where its edges to later nodes begin.
        end: (E,) int32, node at the other end.
        weight: (E,) float32.
    """

    first: Integers
    parent: Integers
    children: Integers
    child: Integers
    above: Integers
    row: Integers
    middle: Integers
    end: Integers
    weight: Floats


def build(edges: Floats) -> Levels:
    """Build the levels of a window.

    Args:
        edges: (3, I, J, K) float32, weight of the edge to the next voxel along each axis.
    """
    row, end, weight = _grid_graph(edges)
    parent, row, end, weight = _coarser(row, end, weight)
    graphs, above = [(row, end, weight)], []
    while len(row) > 2:
        up, row, end, weight = _coarser(row, end, weight)
        if len(row) > 0.9 * len(graphs[-1][0]):
            break
        graphs.append((row, end, weight))
        above.append(up)
    counts = [len(row) - 1 for row, _, _ in graphs]
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    above.append(np.full(counts[-1], -1, dtype=np.int32))
    ups = [up + np.int32(first[n + 1]) for n, up in enumerate(above)]
    rows, ends, begin = [], [], 0
    for n, (row, end, _) in enumerate(graphs):
        rows.append(row[:-1] + np.int32(begin))
        ends.append(end + first[n])
        begin += len(end)
    rows.append(np.array([begin], dtype=np.int32))
    weights = np.concatenate([weight for _, _, weight in graphs])
    child, children = _members(parent, counts[0])
    sides = _sides(np.concatenate(rows), np.concatenate(ends), weights)
    return Levels(first, parent, children, child, np.concatenate(ups), *sides)


@compiled
def _grid_graph(edges: Floats) -> tuple[Integers, Integers, Floats]:
    """The graph of the voxels."""
    _, ni, nj, nk = edges.shape
    row = np.empty(ni * nj * nk + 1, dtype=np.int32)
    end = np.empty(6 * ni * nj * nk, dtype=np.int32)
    weight = np.empty(6 * ni * nj * nk, dtype=np.float32)
    n = e = 0
    for i in range(ni):
        for j in range(nj):
            for k in range(nk):
                row[n] = e
                if i > 0:
                    end[e], weight[e] = n - nj * nk, edges[0, i - 1, j, k]
                    e += 1
                if j > 0:
                    end[e], weight[e] = n - nk, edges[1, i, j - 1, k]
                    e += 1
                if k > 0:
                    end[e], weight[e] = n - 1, edges[2, i, j, k - 1]
                    e += 1
                if k < nk - 1:
                    end[e], weight[e] = n + 1, edges[2, i, j, k]
                    e += 1
                if j < nj - 1:
                    end[e], weight[e] = n + nk, edges[1, i, j, k]
                    e += 1
                if i < ni - 1:
                    end[e], weight[e] = n + nj * nk, edges[0, i, j, k]
                    e += 1
                n += 1
    row[n] = e
    return row, end[:e], weight[:e]


@compiled
def _coarser(
    row: Integers, end: Integers, weight: Floats
) -> tuple[Integers, Integers, Integers, Floats]:
    """Group the nodes of a graph; returns each node's group, and the graph of the groups."""
    count = row.size - 1
    mass = np.zeros(count, dtype=np.float32)
    for n in range(count):
        for e in range(row[n], row[n + 1]):
            mass[n] += weight[e]
    group = np.arange(count).astype(np.int32)
    for number in range(_PASSES):
        label, groups = _match(row, end, weight, mass, number == _PASSES - 1)
        row, end, weight = _contract(row, end, weight, label, groups)
        merged = np.zeros(groups, dtype=np.float32)
        for n in range(label.size):
            merged[label[n]] += mass[n]
        mass = merged
        for n in range(count):
            group[n] = label[group[n]]
    return group, row, end, weight


@compiled
def _match(
    row: Integers, end: Integers, weight: Floats, mass: Floats, join: bool
) -> tuple[Integers, int]:
    """Pair nodes, strongest edges first; those left over may join a pair; returns the groups."""
    count = row.size - 1
    # Strengths sorted by half octaves, in which the order of the nodes keeps groups compact.
    strength = np.empty(end.size, dtype=np.float32)
    begin = np.zeros(16, dtype=np.int64)
    bits = strength.view(np.int32)
    for n in range(count):
        for e in range(row[n], row[n + 1]):
            other = end[e]
            if other <= n:
                continue
            strength[e] = weight[e] / min(mass[n], mass[other])
            if strength[e] >= _PAIRED:
                begin[min(max(255 - (bits[e] >> 22), 0), 14) + 1] += 1
    for b in range(15):
        begin[b + 1] += begin[b]
    low = np.empty(begin[15], dtype=np.int32)
    high = np.empty(begin[15], dtype=np.int32)
    for n in range(count):
        for e in range(row[n], row[n + 1]):
            if end[e] > n and strength[e] >= _PAIRED:
                bucket = min(max(255 - (bits[e] >> 22), 0), 14)
                low[begin[bucket]], high[begin[bucket]] = n, end[e]
                begin[bucket] += 1
    mate = np.full(count, -1, dtype=np.int32)
    for e in range(low.size):
        if mate[low[e]] < 0 and mate[high[e]] < 0:
            mate[low[e]], mate[high[e]] = high[e], low[e]
    label = np.full(count, -1, dtype=np.int32)
    groups = 0
    for n in range(count):
        if mate[n] >= 0 and label[n] < 0:
            label[n] = label[mate[n]] = groups
            groups += 1
    for n in range(count):
        if mate[n] < 0:
            most, chosen = _JOINED * mass[n], -1
            if join:
                for e in range(row[n], row[n + 1]):
                    if mate[end[e]] >= 0 and weight[e] >= most:
                        most, chosen = weight[e], end[e]
            if chosen >= 0:
                label[n] = label[chosen]
            else:
                label[n] = groups
                groups += 1
    return label, groups


@compiled
def _members(label: Integers, groups: int) -> tuple[Integers, Integers]:
    """Where each group's members begin, and the members in the order of the groups."""
    begin = np.zeros(groups + 1, dtype=np.int32)
    for n in range(label.size):
        begin[label[n] + 1] += 1
    for g in range(groups):
        begin[g + 1] += begin[g]
    place = begin[:-1].copy()
    members = np.empty(label.size, dtype=np.int32)
    for n in range(label.size):
        members[place[label[n]]] = n
        place[label[n]] += 1
    return begin, members


@compiled
def _contract(
    row: Integers, end: Integers, weight: Floats, label: Integers, groups: int
) -> tuple[Integers, Integers, Floats]:
    """The graph of the groups: weights between two groups add up."""
    begin, members = _members(label, groups)
    new_row = np.empty(groups + 1, dtype=np.int32)
    new_end = np.empty(end.size, dtype=np.int32)
    new_weight = np.empty(end.size, dtype=np.float32)
    place = np.full(groups, -1, dtype=np.int32)
    edges = 0
    for g in range(groups):
        new_row[g] = edges
        for m in range(begin[g], begin[g + 1]):
            for e in range(row[members[m]], row[members[m] + 1]):
                other = label[end[e]]
                if other == g:
                    continue
                at = place[other]
                if at >= new_row[g]:
                    new_weight[at] += weight[e]
                else:
                    place[other] = edges
                    new_end[edges], new_weight[edges] = other, weight[e]
                    edges += 1
    new_row[groups] = edges
    return new_row, new_end[:edges].copy(), new_weight[:edges].copy()


@compiled
def _sides(
    row: Integers, end: Integers, weight: Floats
) -> tuple[Integers, Integers, Integers, Floats]:
    """Edges to earlier nodes before the others, both filled up; row, middle, end and weight."""
    count = row.size - 1
    new_row = np.empty(count + 1, dtype=np.int32)
    middle = np.empty(count, dtype=np.int32)
    most = end.size + 2 * (LANES - 1) * count
    new_end = np.empty(most, dtype=np.int32)
    new_weight = np.zeros(most, dtype=np.float32)
    at = 0
    for n in range(count):
        new_row[n] = at
        for side in range(2):
            for e in range(row[n], row[n + 1]):
                if (end[e] > n) == (side == 1):
                    new_end[at], new_weight[at] = end[e], weight[e]
                    at += 1
            while at % LANES:
                new_end[at] = n
                at += 1
            if side == 0:
                middle[n] = at
    new_row[count] = at
    return new_row, middle, new_end[:at].copy(), new_weight[:at].copy()
