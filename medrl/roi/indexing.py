"""The cropper in plain tensor indexing: any device, and the yardstick of the kernels in tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medrl.roi.request import EDGE, Integers, Request
from medrl.roi.table import ScanStack

_CHUNK_VOXELS = 1 << 21


def fill(out: Tensor, stack: ScanStack, request: Request) -> None:
    """Fill out (N, C, SI, SJ, SK) with the windows of a request."""
    count = len(request.centers)
    scans = np.broadcast_to(request.scans, count)
    levels = np.broadcast_to(request.levels, count)
    chunk = max(1, _CHUNK_VOXELS // int(np.prod(request.size)))
    for agents, read in ((request.copied, _copied), (request.blended, _blended)):
        rows = np.stack([scans[agents], levels[agents]])
        for row in np.unique(rows, axis=1).T:
            scan, level = int(row[0]), int(row[1])
            there = agents[(rows == row[:, None]).all(axis=0)]
            for start in range(0, len(there), chunk):
                part = there[start : start + chunk]
                windows, inside = read(stack.volumes[scan][level], request, part)
                empty = float(stack.background[scan])
                windows = torch.where(inside, windows, empty).movedim(1, 0)
                out[torch.from_numpy(part).to(out.device)] = windows.to(out.dtype)


def _offsets(request: Request, device: torch.device) -> list[Tensor]:
    """Offsets of the window's elements from its center, broadcastable to (1, SI, SJ, SK)."""
    views = ((1, -1, 1, 1), (1, 1, -1, 1), (1, 1, 1, -1))
    return [
        (torch.arange(n, device=device) - n // 2).view(view)
        for n, view in zip(request.size, views, strict=True)
    ]


def _copied(volume: Tensor, request: Request, agents: Integers) -> tuple[Tensor, Tensor]:
    """Voxels (C, n, SI, SJ, SK) and which of them lie inside (n, SI, SJ, SK)."""
    centers = torch.from_numpy(request.centers[agents]).to(volume.device)
    inside = torch.ones((), dtype=torch.bool, device=volume.device)
    places = []
    for axis, offset in enumerate(_offsets(request, volume.device)):
        place = centers[:, axis].view(-1, 1, 1, 1) + offset
        last = volume.shape[axis + 1] - 1
        inside = inside & (place >= 0) & (place <= last)
        places.append(place.clamp(0, last))
    return volume[:, places[0], places[1], places[2]], inside


def _blended(volume: Tensor, request: Request, agents: Integers) -> tuple[Tensor, Tensor]:
    """Trilinear values (C, n, SI, SJ, SK), float64, and which of them lie inside."""
    device = volume.device
    centers = torch.from_numpy(request.positions[agents]).to(device)
    turn = torch.eye(3, dtype=torch.float64, device=device).expand(len(agents), 3, 3)
    if len(request.rotations):
        turn = torch.from_numpy(request.rotations[agents]).to(device)
    offsets = _offsets(request, device)
    inside = torch.ones((), dtype=torch.bool, device=device)
    corners: list[tuple[Tensor, Tensor, Tensor]] = []
    for axis in range(3):
        place = centers[:, axis].view(-1, 1, 1, 1)
        for column, offset in enumerate(offsets):
            place = place + turn[:, axis, column].view(-1, 1, 1, 1) * offset
        last = volume.shape[axis + 1] - 1
        inside = inside & (place >= -EDGE) & (place < last + 1 - EDGE)
        low = place.floor()
        below = low.clamp(0, last).long()
        above = (low + 1).clamp(0, last).long()
        corners.append((below, above, place - low))
    value = torch.zeros((), dtype=torch.float64, device=device)
    for corner in range(8):
        weight = torch.ones((), dtype=torch.float64, device=device)
        where = []
        for axis, (below, above, share) in enumerate(corners):
            upper = corner >> axis & 1
            where.append(above if upper else below)
            weight = weight * (share if upper else 1 - share)
        value = value + weight * volume[:, where[0], where[1], where[2]]
    return value, inside
