"""CPU kernels of the cropper: rows moved as whole rows, compiled once and kept on disk by Numba."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from medrl.compiled import compile_with
from medrl.roi.request import EDGE, FAR, Floats, Integers, Request
from medrl.roi.table import ScanStack

Windows = NDArray[np.float32]

_BYTES_PER_THREAD = 8 << 20
"""A thread that copies less than this costs more than it saves: waking it takes that long."""

_BLENDED_COST = 16
"""An interpolated byte takes about as long as this many copied ones."""


def fill(out: Tensor, stack: ScanStack, request: Request) -> None:
    """Fill out (N, C, SI, SJ, SK) with the windows of a request."""
    windows = out.detach().numpy()
    scans = (windows, stack.table, stack.background)
    rows = (request.scans, request.levels)
    if len(request.copied):
        _share(_copy_windows, request.copied, 1, *scans, request.centers, *rows)
    if len(request.blended):
        _share(
            _blend_windows,
            request.blended,
            _BLENDED_COST,
            *scans,
            request.positions,
            *rows,
            request.rotations,
        )


def _share(
    kernel: Callable[..., None], agents: Integers, cost: int, out: Windows, *inputs: Any
) -> None:
    """Share the agents between up to as many threads as torch uses for one operation."""
    work = out[0].nbytes * len(agents) * cost
    threads = max(1, min(torch.get_num_threads(), len(agents), work // _BYTES_PER_THREAD))
    if threads == 1:
        kernel(agents, out, *inputs)
        return
    cuts = [len(agents) * t // threads for t in range(threads + 1)]
    parts = [agents[a:b] for a, b in pairwise(cuts)]
    others = [_pool().submit(kernel, part, out, *inputs) for part in parts[1:]]
    kernel(parts[0], out, *inputs)
    for other in others:
        other.result()


_pools: list[ThreadPoolExecutor] = []


def _pool() -> ThreadPoolExecutor:
    """The threads of this process.

    Not Numba's own: its portable layer aborts when two threads use it at once, its OpenMP layer
    when a process that used it forks, as data loaders do.
    """
    if not _pools:
        _pools.append(ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="medrl-roi"))
    return _pools[0]


# A forked child has the pool but not its threads, and would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


_compiled = compile_with(error_model="numpy")


@intrinsic
def _copy_bytes(typing: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy count bytes between two addresses (LLVM's memcpy)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        to, at = (builder.inttoptr(address, pointer) for address in args[:2])
        cgutils.raw_memcpy(builder, to, at, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic
def _floats_at(typing: Any, address: Any) -> Any:
    """Pointer to the float32 at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.intp), generate


@intrinsic
def _prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address, which need not be readable (LLVM's prefetch)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        read, keep, data = number(0), number(3), number(1)
        builder.call(prefetch, [builder.inttoptr(args[0], pointer), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.intp), generate


def _block_copier(width: int) -> Callable[..., None]:
    """Copy a block of rows of width to 2 * width bytes (of any length if width is 0).

    Each row is two moves of a size known when compiling, which overlap: faster than a call of
    memcpy for rows this short.
    """

    @_compiled
    def copy_block(
        target: int,
        target_steps: tuple[int, int],
        source: int,
        source_steps: tuple[int, int],
        planes: int,
        rows: int,
        count: int,
    ) -> None:
        tail = count - width
        for _ in range(planes):
            at, to = source, target
            for _ in range(rows):
                # Rows are too far apart for the processor to see the next plane's coming.
                _prefetch(at + source_steps[0])
                _prefetch(at + source_steps[0] + 64)
                if width:
                    _copy_bytes(to, at, width)
                    _copy_bytes(to + tail, at + tail, width)
                else:
                    _copy_bytes(to, at, count)
                at += source_steps[1]
                to += target_steps[1]
            source += source_steps[0]
            target += target_steps[0]

    return copy_block


_copy_block = _block_copier(0)
_copy_block_32 = _block_copier(32)
_copy_block_64 = _block_copier(64)
_copy_block_128 = _block_copier(128)


@_compiled
def _copy_windows(
    agents: Integers,
    out: Windows,
    table: Integers,
    background: Windows,
    centers: Integers,
    scans: Integers,
    levels: Integers,
) -> None:
    """Copy the windows of the agents listed; arrays as in ScanStack and Request."""
    channels, si, sj, sk = out.shape[1], out.shape[2], out.shape[3], out.shape[4]
    out_steps = (4 * sj * sk, 4 * sk)
    out_address = out.ctypes.data
    for n in agents:
        scan = scans[n if scans.shape[0] > 1 else 0]
        row = table[scan, levels[n if levels.shape[0] > 1 else 0]]
        address, step_c, step_i, step_j = row[0], row[1], row[2], row[3]
        i0 = min(max(centers[n, 0], -FAR), FAR) - si // 2
        j0 = min(max(centers[n, 1], -FAR), FAR) - sj // 2
        k0 = min(max(centers[n, 2], -FAR), FAR) - sk // 2
        # Window indices that lie inside the scan: [a, b) on each axis.
        ia, ib = max(-i0, 0), min(row[4] - i0, si)
        ja, jb = max(-j0, 0), min(row[5] - j0, sj)
        ka, kb = max(-k0, 0), min(row[6] - k0, sk)
        if ib - ia < si or jb - ja < sj or kb - ka < sk:
            out[n] = background[scan]
            if ib <= ia or jb <= ja or kb <= ka:
                continue
        count = 4 * (kb - ka)
        for c in range(channels):
            at = address + c * step_c + (i0 + ia) * step_i + (j0 + ja) * step_j + 4 * (k0 + ka)
            to = out_address + 4 * (((n * channels + c) * si + ia) * sj * sk + ja * sk + ka)
            if count < 32 or count > 256:
                _copy_block(to, out_steps, at, (step_i, step_j), ib - ia, jb - ja, count)
            elif count <= 64:
                _copy_block_32(to, out_steps, at, (step_i, step_j), ib - ia, jb - ja, count)
            elif count <= 128:
                _copy_block_64(to, out_steps, at, (step_i, step_j), ib - ia, jb - ja, count)
            else:
                _copy_block_128(to, out_steps, at, (step_i, step_j), ib - ia, jb - ja, count)


@_compiled
def _inside(place: float, extent: int) -> bool:
    return -EDGE <= place < extent - EDGE


@_compiled
def _clamped(index: int, extent: int) -> int:
    return min(max(index, 0), extent - 1)


@_compiled
def _shifted_window(
    window: Windows,
    volume: Windows,
    step_i: int,
    step_j: int,
    shape: Integers,
    position: Floats,
    empty: float,
) -> None:
    """Interpolate a window along the axes: every element has the same eight weights."""
    si, sj, sk = window.shape
    low = np.floor(position)
    fi, fj, fk = position - low
    i0 = np.int64(low[0]) - si // 2
    j0 = np.int64(low[1]) - sj // 2
    k0 = np.int64(low[2]) - sk // 2
    # Elements [ka, kb) of a row lie inside the scan.
    ka, kb = 0, sk
    while ka < sk and not _inside(k0 + ka + fk, shape[2]):
        ka += 1
    while kb > ka and not _inside(k0 + kb - 1 + fk, shape[2]):
        kb -= 1
    w00, w01, w10, w11 = (1 - fi) * (1 - fj), (1 - fi) * fj, fi * (1 - fj), fi * fj
    # Voxels of a row once its four neighbours are mixed; ends are repeated beyond the border.
    first = _clamped(k0 + ka, shape[2])
    mixed = np.empty(kb - ka + 1)
    ahead = max(-(k0 + ka), 0)
    reach = min(kb - ka + 1 - ahead, shape[2] - first)
    for i in range(si):
        below_i = _clamped(i0 + i, shape[0]) * step_i + first
        above_i = _clamped(i0 + i + 1, shape[0]) * step_i + first
        for j in range(sj):
            row = window[i, j]
            if ka >= kb or not _inside(i0 + i + fi, shape[0]) or not _inside(j0 + j + fj, shape[1]):
                row[:] = empty
                continue
            below_j = _clamped(j0 + j, shape[1]) * step_j
            above_j = _clamped(j0 + j + 1, shape[1]) * step_j
            v00, v01 = volume[below_i + below_j :], volume[below_i + above_j :]
            v10, v11 = volume[above_i + below_j :], volume[above_i + above_j :]
            body = mixed[ahead:]
            # Unsigned indices spare Numba the test for negative ones, and let the loop vectorise.
            for k in range(np.uintp(reach)):
                body[k] = w00 * v00[k] + w01 * v01[k] + w10 * v10[k] + w11 * v11[k]
            mixed[:ahead] = body[0]
            body[reach:] = body[reach - 1]
            row[:ka] = empty
            row[kb:] = empty
            near, next_one, inner = mixed[:-1], mixed[1:], row[ka:kb]
            for k in range(np.uintp(kb - ka)):
                inner[k] = (1 - fk) * near[k] + fk * next_one[k]


@_compiled
def _turned_window(
    window: Windows,
    volume: Windows,
    step_i: int,
    step_j: int,
    shape: Integers,
    position: Floats,
    turn: Floats,
    empty: float,
) -> None:
    """Interpolate a window in any orientation, element by element."""
    si, sj, sk = window.shape
    for i in range(si):
        for j in range(sj):
            oi, oj = i - si // 2, j - sj // 2
            row_i = position[0] + turn[0, 0] * oi + turn[0, 1] * oj
            row_j = position[1] + turn[1, 0] * oi + turn[1, 1] * oj
            row_k = position[2] + turn[2, 0] * oi + turn[2, 1] * oj
            for k in range(sk):
                ok = k - sk // 2
                pi, pj, pk = (
                    row_i + turn[0, 2] * ok,
                    row_j + turn[1, 2] * ok,
                    row_k + turn[2, 2] * ok,
                )
                if not (_inside(pi, shape[0]) and _inside(pj, shape[1]) and _inside(pk, shape[2])):
                    window[i, j, k] = empty
                    continue
                bi, bj, bk = int(np.floor(pi)), int(np.floor(pj)), int(np.floor(pk))
                fi, fj, fk = pi - bi, pj - bj, pk - bk
                below_i = _clamped(bi, shape[0]) * step_i
                above_i = _clamped(bi + 1, shape[0]) * step_i
                below_j = _clamped(bj, shape[1]) * step_j
                above_j = _clamped(bj + 1, shape[1]) * step_j
                below_k, above_k = _clamped(bk, shape[2]), _clamped(bk + 1, shape[2])
                # Unsigned indices spare Numba the test for negative ones.
                v000 = volume[np.uintp(below_i + below_j + below_k)]
                v001 = volume[np.uintp(below_i + below_j + above_k)]
                v010 = volume[np.uintp(below_i + above_j + below_k)]
                v011 = volume[np.uintp(below_i + above_j + above_k)]
                v100 = volume[np.uintp(above_i + below_j + below_k)]
                v101 = volume[np.uintp(above_i + below_j + above_k)]
                v110 = volume[np.uintp(above_i + above_j + below_k)]
                v111 = volume[np.uintp(above_i + above_j + above_k)]
                window[i, j, k] = (1 - fi) * (
                    (1 - fj) * ((1 - fk) * v000 + fk * v001) + fj * ((1 - fk) * v010 + fk * v011)
                ) + fi * (
                    (1 - fj) * ((1 - fk) * v100 + fk * v101) + fj * ((1 - fk) * v110 + fk * v111)
                )


@_compiled
def _blend_windows(
    agents: Integers,
    out: Windows,
    table: Integers,
    background: Windows,
    positions: Floats,
    scans: Integers,
    levels: Integers,
    rotations: Floats,
) -> None:
    """Interpolate the windows of the agents listed; arrays as in ScanStack and Request."""
    for n in agents:
        scan = scans[n if scans.shape[0] > 1 else 0]
        row = table[scan, levels[n if levels.shape[0] > 1 else 0]]
        step_i, step_j, shape = row[2] // 4, row[3] // 4, row[4:7]
        extent = (shape[0] - 1) * step_i + (shape[1] - 1) * step_j + shape[2]
        for c in range(out.shape[1]):
            volume = carray(_floats_at(row[0] + c * row[1]), (extent,))
            if rotations.shape[0]:
                _turned_window(
                    out[n, c],
                    volume,
                    step_i,
                    step_j,
                    shape,
                    positions[n],
                    rotations[n],
                    background[scan],
                )
            else:
                _shifted_window(
                    out[n, c], volume, step_i, step_j, shape, positions[n], background[scan]
                )
