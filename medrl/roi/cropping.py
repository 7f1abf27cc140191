"""Windows around agents, many agents in many scans at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.roi import cpu
from medrl.roi.table import stack_of
from medrl.volume.pyramid import Pyramid


def crop(
    pyramids: Pyramid | Sequence[Pyramid],
    centers_voxel: Tensor | NDArray[np.generic],
    size: int | Sequence[int],
    *,
    level: int | Tensor = 0,
    scan: int | Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Crop a window around each of N agents."""
    window = (size,) * 3 if isinstance(size, int) else tuple(int(s) for s in size)
    if len(window) != 3 or min(window) < 1:
        raise MedrlError(f"size must be one or three positive whole numbers, not {size}")
    stack = stack_of(pyramids)
    centers = np.ascontiguousarray(torch.as_tensor(centers_voxel).cpu().numpy(), dtype=np.int64)
    if centers.ndim != 2 or centers.shape[1] != 3:
        raise MedrlError(f"centers_voxel must be (N, 3), not {centers.shape}")
    count = len(centers)
    shape = (count, stack.channels, *window)
    if out is None:
        out = torch.empty(shape, dtype=torch.float32)
    scans = _per_agent(scan, count, "scan")
    levels = _per_agent(level, count, "level")
    bad = cpu.copy_windows(
        out.numpy(), stack.table, stack.background, np.arange(count), centers, scans, levels
    )
    if bad >= 0:
        raise MedrlError(
            f"agent {bad} is in a scan or at a level that does not exist "
            f"({stack.table.shape[0]} scans, up to {stack.table.shape[1]} levels)"
        )
    return out


def _per_agent(value: int | Tensor | None, count: int, name: str) -> NDArray[np.int64]:
    if value is None or isinstance(value, int):
        return np.array([value or 0], dtype=np.int64)
    values = np.ascontiguousarray(torch.as_tensor(value).cpu().numpy(), dtype=np.int64)
    if values.shape != (count,):
        raise MedrlError(f"{name} must be one number or ({count},), not {values.shape}")
    return values
