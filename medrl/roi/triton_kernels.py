"""Triton kernels behind :mod:`medrl.roi.cuda`; importing this module needs Triton.

Each program writes BLOCK consecutive elements of one channel of one window, so that writes are
coalesced and reads run along the rows of the scan. The window's size is known when compiling.
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def _program(plan, channels, SIZE: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """Which agent (number in the plan, pointer to its entry), channel and elements are ours."""
    blocks = (SIZE + BLOCK - 1) // BLOCK
    window = tl.program_id(0) // blocks
    element = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    number = window // channels
    return number, plan + number * WIDTH, window % channels, element


@triton.jit
def _level(table, row, channel, COLUMNS: tl.constexpr):
    """Pointer to a channel of a level, its strides along i and j in elements, and its shape."""
    entry = table + row * COLUMNS
    address = tl.load(entry) + channel * tl.load(entry + 1)
    volume = address.to(tl.pointer_type(tl.float32))
    step_i, step_j = tl.load(entry + 2) // 4, tl.load(entry + 3) // 4
    return volume, step_i, step_j, tl.load(entry + 4), tl.load(entry + 5), tl.load(entry + 6)


@triton.jit
def copy_windows(
    out,
    plan,
    table,
    background,
    channels,
    SI: tl.constexpr,
    SJ: tl.constexpr,
    SK: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Copy windows; plan holds per agent: its row in out, table row, scan, center i, j, k."""
    SIZE: tl.constexpr = SI * SJ * SK
    _, agent, channel, element = _program(plan, channels, SIZE, BLOCK, 6)
    volume, step_i, step_j, ni, nj, nk = _level(table, tl.load(agent + 1), channel, COLUMNS)
    empty = tl.load(background + tl.load(agent + 2))
    i = tl.load(agent + 3) - SI // 2 + element // (SJ * SK)
    j = tl.load(agent + 4) - SJ // 2 + element // SK % SJ
    k = tl.load(agent + 5) - SK // 2 + element % SK
    wanted = element < SIZE
    inside = (i >= 0) & (i < ni) & (j >= 0) & (j < nj) & (k >= 0) & (k < nk)
    value = tl.load(volume + i * step_i + j * step_j + k, mask=wanted & inside, other=empty)
    window = out + (tl.load(agent) * channels + channel) * SIZE
    tl.store(window + element, value, mask=wanted)


@triton.jit
def _neighbours(place, extent, EDGE: tl.constexpr):
    """Voxels below and above a place on one axis, the share of the upper, and if it is inside."""
    inside = (place >= -EDGE) & (place < extent.to(tl.float64) - EDGE)
    low = tl.floor(tl.where(inside, place, 0.0))
    index = low.to(tl.int64)
    below = tl.minimum(tl.maximum(index, 0), extent - 1)
    above = tl.minimum(tl.maximum(index + 1, 0), extent - 1)
    return below, above, place - low, inside


@triton.jit
def blend_windows(
    out,
    plan,
    poses,
    table,
    background,
    channels,
    SI: tl.constexpr,
    SJ: tl.constexpr,
    SK: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    EDGE: tl.constexpr,
):
    """Interpolate windows trilinearly.

    plan holds per agent: its row in out, table row, scan; poses: center i, j, k and the rotation.
    """
    SIZE: tl.constexpr = SI * SJ * SK
    number, agent, channel, element = _program(plan, channels, SIZE, BLOCK, 3)
    pose = poses + number * 12
    volume, step_i, step_j, ni, nj, nk = _level(table, tl.load(agent + 1), channel, COLUMNS)
    empty = tl.load(background + tl.load(agent + 2))
    wanted = element < SIZE
    oi = (element // (SJ * SK) - SI // 2).to(tl.float64)
    oj = (element // SK % SJ - SJ // 2).to(tl.float64)
    ok = (element % SK - SK // 2).to(tl.float64)
    pi = tl.load(pose) + tl.load(pose + 3) * oi + tl.load(pose + 4) * oj + tl.load(pose + 5) * ok
    pj = tl.load(pose + 1) + tl.load(pose + 6) * oi + tl.load(pose + 7) * oj
    pj += tl.load(pose + 8) * ok
    pk = tl.load(pose + 2) + tl.load(pose + 9) * oi + tl.load(pose + 10) * oj
    pk += tl.load(pose + 11) * ok
    below_i, above_i, fi, inside_i = _neighbours(pi, ni, EDGE)
    below_j, above_j, fj, inside_j = _neighbours(pj, nj, EDGE)
    below_k, above_k, fk, inside_k = _neighbours(pk, nk, EDGE)
    inside = wanted & inside_i & inside_j & inside_k
    v00 = volume + below_i * step_i + below_j * step_j
    v01 = volume + below_i * step_i + above_j * step_j
    v10 = volume + above_i * step_i + below_j * step_j
    v11 = volume + above_i * step_i + above_j * step_j
    value = (1 - fi) * (1 - fj) * (1 - fk) * tl.load(v00 + below_k, mask=inside, other=0.0)
    value += (1 - fi) * (1 - fj) * fk * tl.load(v00 + above_k, mask=inside, other=0.0)
    value += (1 - fi) * fj * (1 - fk) * tl.load(v01 + below_k, mask=inside, other=0.0)
    value += (1 - fi) * fj * fk * tl.load(v01 + above_k, mask=inside, other=0.0)
    value += fi * (1 - fj) * (1 - fk) * tl.load(v10 + below_k, mask=inside, other=0.0)
    value += fi * (1 - fj) * fk * tl.load(v10 + above_k, mask=inside, other=0.0)
    value += fi * fj * (1 - fk) * tl.load(v11 + below_k, mask=inside, other=0.0)
    value += fi * fj * fk * tl.load(v11 + above_k, mask=inside, other=0.0)
    window = out + (tl.load(agent) * channels + channel) * SIZE
    tl.store(window + element, tl.where(inside, value.to(tl.float32), empty), mask=wanted)
