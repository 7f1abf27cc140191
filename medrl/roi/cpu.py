"""CPU kernels of the cropper: rows moved as whole rows, compiled once and kept on disk by Numba."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

Integers = NDArray[np.int64]

_PARALLEL_BYTES = 1 << 19
"""Below this much output a second thread costs more than it saves."""


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the GIL; keep the machine code on disk where a place for it can be written."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        return njit(**options)(function)


@intrinsic
def _copy_bytes(typing: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy count bytes between two addresses (LLVM's memcpy)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        to, at = (builder.inttoptr(address, pointer) for address in args[:2])
        cgutils.raw_memcpy(builder, to, at, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@_compiled
def _copy_windows(
    out: NDArray[np.float32],
    table: Integers,
    background: NDArray[np.float32],
    agents: Integers,
    centers: Integers,
    scans: Integers,
    levels: Integers,
) -> int:
    """Copy the windows of the agents listed.

    Args:
        out: (N, C, SI, SJ, SK), contiguous.
        table: (M, L, COLUMNS), see :mod:`medrl.roi.table`.
        background: (M,).
        agents: Rows of out to fill.
        centers: (N, 3).
        scans: (N,) or (1,) for all.
        levels: (N,) or (1,) for all.

    Returns:
        -1, or the first agent whose scan or level does not exist.
    """
    channels, si, sj, sk = out.shape[1], out.shape[2], out.shape[3], out.shape[4]
    one_scan, one_level = scans.shape[0] == 1, levels.shape[0] == 1
    # Centers beyond this see nothing but background, and may not overflow.
    far = np.int64(1) << 40
    row_bytes = 4 * sk
    out_address = out.ctypes.data
    for n in agents:
        scan = scans[0 if one_scan else n]
        level = levels[0 if one_level else n]
        if scan < 0 or scan >= table.shape[0] or level < 0 or level >= table.shape[1]:
            return n
        row = table[scan, level]
        address, step_c, step_i, step_j = row[0], row[1], row[2], row[3]
        if address == 0:
            return n
        empty = background[scan]
        i0 = min(max(centers[n, 0], -far), far) - si // 2
        j0 = min(max(centers[n, 1], -far), far) - sj // 2
        k0 = min(max(centers[n, 2], -far), far) - sk // 2
        # Window indices that lie inside the scan: [a, b) on each axis.
        ia, ib = min(max(-i0, 0), si), min(max(row[4] - i0, 0), si)
        ja, jb = min(max(-j0, 0), sj), min(max(row[5] - j0, 0), sj)
        ka, kb = min(max(-k0, 0), sk), min(max(row[6] - k0, 0), sk)
        if ia >= ib or ja >= jb or ka >= kb:
            out[n] = empty
            continue
        whole = ia == 0 and ib == si and ja == 0 and jb == sj and ka == 0 and kb == sk
        if not whole:
            out[n] = empty
        for c in range(channels):
            plane = address + c * step_c + (i0 + ia) * step_i + (j0 + ja) * step_j + 4 * (k0 + ka)
            target = out_address + 4 * (((n * channels + c) * si + ia) * sj * sk + ja * sk + ka)
            count = row_bytes if whole else 4 * (kb - ka)
            for _ in range(ib - ia):
                source, to = plane, target
                for _ in range(jb - ja):
                    _copy_bytes(to, source, count)
                    source += step_j
                    to += row_bytes
                plane += step_i
                target += sj * row_bytes
    return -1


def copy_windows(
    out: NDArray[np.float32],
    table: Integers,
    background: NDArray[np.float32],
    agents: Integers,
    centers: Integers,
    scans: Integers,
    levels: Integers,
) -> int:
    """Copy windows around whole-voxel centers; arguments as in the kernel above."""
    return _shared(_copy_windows, agents, out, table, background, centers, scans, levels)


def _shared(
    kernel: Callable[..., int], agents: Integers, out: NDArray[np.float32], *rest: Any
) -> int:
    """Share the agents between as many threads as torch uses for one operation."""
    count = len(agents)
    table, background, *inputs = rest
    work = out.nbytes // max(len(out), 1) * count
    threads = min(torch.get_num_threads(), count) if work > _PARALLEL_BYTES else 1
    if threads == 1:
        return kernel(out, table, background, agents, *inputs)
    cuts = [count * t // threads for t in range(threads + 1)]
    parts = [agents[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    others = [_pool().submit(kernel, out, table, background, part, *inputs) for part in parts[1:]]
    results = [kernel(out, table, background, parts[0], *inputs), *(o.result() for o in others)]
    return max(results)


_pools: list[ThreadPoolExecutor] = []


def _pool() -> ThreadPoolExecutor:
    if not _pools:
        _pools.append(ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="medrl-roi"))
    return _pools[0]


# A forked child has the pool but not its threads, and would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)
