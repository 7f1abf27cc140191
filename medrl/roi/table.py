"""Where every level of every pyramid lies in memory, looked up once and kept while it lives."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.volume.pyramid import Pyramid

COLUMNS = 7
"""Columns of a table row: address, strides in bytes (C, I, J), shape (I, J, K)."""

_KEPT_STACKS = 16


@dataclass(frozen=True, eq=False)
class ScanStack:
    """Address table of M pyramids with up to L levels on one device.

    Attributes:
        table: int64 (M, L, COLUMNS). A level that a scan lacks has address 0.
        background: float32 (M,).
        channels: C, the same for all scans.
        device: Where all volumes are.
        volumes: The volumes the addresses point into, ``volumes[scan][level]``, each (C, I, J, K)
            float32 with adjacent k.
    """

    table: NDArray[np.int64]
    background: NDArray[np.float32]
    channels: int
    device: torch.device
    volumes: tuple[tuple[Tensor, ...], ...]
    on_device: dict[str, Tensor] = field(default_factory=dict)

    def device_table(self) -> tuple[Tensor, Tensor]:
        """The table and the backgrounds as tensors on :attr:`device`, copied there once."""
        if "table" not in self.on_device:
            self.on_device["background"] = torch.from_numpy(self.background).to(self.device)
            self.on_device["table"] = torch.from_numpy(self.table).to(self.device)
        return self.on_device["table"], self.on_device["background"]


@dataclass(frozen=True, eq=False)
class _Scan:
    """One pyramid's share of a stack."""

    volumes: tuple[Tensor, ...]
    rows: NDArray[np.int64]
    kind: tuple[int, torch.device]


_scans: weakref.WeakKeyDictionary[Pyramid, _Scan] = weakref.WeakKeyDictionary()
_stacks: dict[tuple[int, ...], tuple[list[weakref.ref[Pyramid]], ScanStack]] = {}
_lock = Lock()


def stack_of(pyramids: Pyramid | Sequence[Pyramid]) -> ScanStack:
    """The address table of one or several pyramids.

    Recent ones are kept while their pyramids live, so that in a loop this is a dictionary look-up.

    Raises:
        MedrlError: If there is no pyramid, a level cannot be cropped, or channels or device differ.
    """
    scans = (pyramids,) if isinstance(pyramids, Pyramid) else tuple(pyramids)
    key = tuple(map(id, scans))
    known = _stacks.get(key)
    # An id may be used again once its object is gone: the weak references tell.
    if known is not None and all(ref() is scan for ref, scan in zip(known[0], scans, strict=True)):
        return known[1]
    stack = _build(scans)

    def forget(_: weakref.ref[Pyramid]) -> None:
        _stacks.pop(key, None)

    with _lock:
        _stacks[key] = ([weakref.ref(scan, forget) for scan in scans], stack)
        while len(_stacks) > _KEPT_STACKS:
            _stacks.pop(next(iter(_stacks)), None)
    return stack


def _build(pyramids: tuple[Pyramid, ...]) -> ScanStack:
    if not pyramids:
        raise MedrlError("crop needs at least one pyramid")
    scans = [_scan_of(pyramid) for pyramid in pyramids]
    channels, device = scans[0].kind
    depth = max(len(scan.rows) for scan in scans)
    table = np.zeros((len(scans), depth, COLUMNS), dtype=np.int64)
    for m, scan in enumerate(scans):
        if scan.kind != scans[0].kind:
            raise MedrlError(
                f"all pyramids need the same channels and device: the first has {channels} on "
                f"{device}, number {m} has {scan.kind[0]} on {scan.kind[1]}"
            )
        table[m, : len(scan.rows)] = scan.rows
    background = np.array([pyramid.background for pyramid in pyramids], dtype=np.float32)
    return ScanStack(table, background, channels, device, tuple(scan.volumes for scan in scans))


def _scan_of(pyramid: Pyramid) -> _Scan:
    """A pyramid's rows; copies of its levels, where needed, are made once and kept with it."""
    scan = _scans.get(pyramid)
    if scan is not None:
        return scan
    volumes = tuple(_plain(level) for level in pyramid.levels)
    kinds = {(volume.shape[0], volume.device) for volume in volumes}
    if len(kinds) != 1:
        raise MedrlError(
            "the levels of a pyramid need the same channels and device, not "
            + (", ".join(sorted(f"{c} on {device}" for c, device in kinds)) or "no level at all")
        )
    rows = np.array(
        [[v.data_ptr(), *(4 * step for step in v.stride()[:3]), *v.shape[1:]] for v in volumes],
        dtype=np.int64,
    )
    scan = _Scan(volumes, rows, kinds.pop())
    with _lock:
        _scans[pyramid] = scan
    return scan


def _plain(level: Tensor) -> Tensor:
    """A level as a plain tensor with adjacent k."""
    if level.dtype != torch.float32 or level.ndim != 4 or 0 in level.shape:
        raise MedrlError(
            "a pyramid level must be a float32 tensor (C, I, J, K) with voxels in it, "
            f"not {level.dtype} {tuple(level.shape)}"
        )
    volume = level.detach().as_subclass(Tensor)
    return volume if volume.stride(3) == 1 else volume.contiguous()
