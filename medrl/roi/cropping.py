"""Windows around agents: many agents in many scans in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from medrl.errors import MedrlError
from medrl.roi import cpu, cuda, indexing
from medrl.roi.request import check_request
from medrl.roi.table import stack_of
from medrl.volume.pyramid import Pyramid


def crop(
    pyramids: Pyramid | Sequence[Pyramid],
    centers_voxel: Tensor | ArrayLike,
    size: int | Sequence[int],
    *,
    level: int | Tensor | ArrayLike = 0,
    scan: int | Tensor | ArrayLike | None = None,
    rotation: Tensor | ArrayLike | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Crop a window around each of N agents, anywhere in M scans of different shapes.

    Convention: voxel indices are (i, j, k) in array order, whole numbers at voxel centers. Element
    ``e`` of a window lies at ``center + R @ (e - size // 2)``, R being the agent's rotation.

    Agents without rotation at whole-voxel centers, whatever the dtype they come in, get copies of
    the scan's voxels. All others are interpolated trilinearly. A scan reaches half a voxel beyond
    its outermost voxel centers, where it keeps the value of the nearest voxel; outside lies the
    background of its pyramid. This is what SimpleITK's ``Resample`` does with ``sitkLinear``.

    Where the volumes are decides what does the work: Numba on the CPU, Triton on CUDA, indexing
    elsewhere; the numbers are the same. Calls from several threads and from forked processes are
    safe.

    Args:
        pyramids: One pyramid, or M of them with the same number of channels C on one device.
        centers_voxel: (N, 3), voxel coordinates of the level that is cropped, whole or not.
        size: Window size in voxels, one number or three.
        level: Pyramid level, one for all or (N,); 0 is the finest.
        scan: Index of each agent's pyramid, one for all or (N,); by default all are in the first.
        rotation: (N, 3, 3) or one (3, 3) for all: maps window offsets to voxel offsets. Any matrix
            will do; a scaled one zooms (and aliases: coarser pyramid levels do not).
        out: Where to put the windows: contiguous float32 (N, C, SI, SJ, SK) on the scans' device.

    Returns:
        Windows (N, C, SI, SJ, SK), float32, on the device of the scans; ``out`` if given.

    Raises:
        MedrlError: If a shape, dtype or device is wrong, a number is not finite, or a scan or level
            does not exist.
    """
    stack = stack_of(pyramids)
    request = check_request(stack, centers_voxel, size, level=level, scan=scan, rotation=rotation)
    shape = (len(request.centers), stack.channels, *request.size)
    if out is None:
        out = torch.empty(shape, dtype=torch.float32, device=stack.device)
    elif (
        out.shape != shape
        or out.dtype != torch.float32
        or out.device != stack.device
        or not out.is_contiguous()
    ):
        raise MedrlError(
            f"out must be contiguous float32 {shape} on {stack.device}, "
            f"not {out.dtype} {tuple(out.shape)} on {out.device}"
        )
    if stack.device.type == "cpu":
        cpu.fill(out, stack, request)
    elif stack.device.type == "cuda" and cuda.available():
        cuda.fill(out, stack, request)
    else:
        indexing.fill(out, stack, request)
    return out
