"""CUDA kernels of the cropper, in Triton, which comes with PyTorch's CUDA wheels."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.roi.request import EDGE, Request
from medrl.roi.table import COLUMNS, ScanStack

_BLOCK = 1024


@cache
def available() -> bool:
    """Whether Triton is installed (PyTorch brings none on some systems)."""
    return importlib.util.find_spec("triton") is not None


def fill(out: Tensor, stack: ScanStack, request: Request) -> None:
    """Fill out (N, C, SI, SJ, SK) with the windows of a request; returns before it is done."""
    copy_windows, blend_windows = _kernels()
    table, background = stack.device_table()
    si, sj, sk = request.size
    channels = out.shape[1]
    sizes = {"SI": si, "SJ": sj, "SK": sk, "COLUMNS": COLUMNS, "BLOCK": _BLOCK}
    blocks = channels * -(-si * sj * sk // _BLOCK)
    scans = np.broadcast_to(request.scans, len(out))
    rows = scans * stack.table.shape[1] + request.levels

    def upload(*columns: NDArray[np.generic]) -> Tensor:
        """One array, one row per agent: a single copy to the device."""
        return torch.from_numpy(np.column_stack(columns)).to(stack.device)

    with torch.cuda.device_of(out):
        agents = request.copied
        if len(agents):
            plan = upload(agents, rows[agents], scans[agents], request.centers[agents])
            copy_windows[(len(agents) * blocks,)](out, plan, table, background, channels, **sizes)
        agents = request.blended
        if len(agents):
            turns = request.rotations[agents] if len(request.rotations) else np.eye(3)
            turns = np.broadcast_to(turns, (len(agents), 3, 3)).reshape(len(agents), 9)
            plan = upload(agents, rows[agents], scans[agents])
            poses = upload(request.positions[agents], turns)
            blend_windows[(len(agents) * blocks,)](
                out, plan, poses, table, background, channels, **sizes, EDGE=EDGE
            )


@cache
def _kernels() -> tuple[Any, Any]:
    """The kernels; Triton is imported on first use."""
    from medrl.roi import triton_kernels

    return triton_kernels.copy_windows, triton_kernels.blend_windows
