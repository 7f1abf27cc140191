"""Where every level of every pyramid lies in memory, looked up once and kept while it lives."""

from __future__ import annotations

import weakref
from collections import OrderedDict
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


_volumes: weakref.WeakKeyDictionary[Pyramid, tuple[Tensor, ...]] = weakref.WeakKeyDictionary()
_stacks: OrderedDict[tuple[int, ...], tuple[list[weakref.ref[Pyramid]], ScanStack]] = OrderedDict()
_lock = Lock()


def stack_of(pyramids: Pyramid | Sequence[Pyramid]) -> ScanStack:
    """The address table of one or several pyramids.

    The table of a recently used sequence is kept, so that a call in a loop costs a dictionary
    look-up.

    Raises:
        MedrlError: If there is no pyramid, or channels, dtype or device differ.
    """
    scans = (pyramids,) if isinstance(pyramids, Pyramid) else pyramids
    key = tuple(map(id, scans))
    known = _stacks.get(key)
    # An id may be used again once its object is gone: the weak references tell.
    if known is not None and all(ref() is scan for ref, scan in zip(known[0], scans, strict=True)):
        return known[1]
    stack = _build(scans)
    with _lock:
        _stacks[key] = ([weakref.ref(scan) for scan in scans], stack)
        for old in [k for k, (refs, _) in _stacks.items() if any(r() is None for r in refs)]:
            del _stacks[old]
        while len(_stacks) > _KEPT_STACKS:
            _stacks.popitem(last=False)
    for scan in scans:
        weakref.finalize(scan, _forget, key)
    return stack


def _forget(key: tuple[int, ...]) -> None:
    """Drop the table of scans that are gone, and with it the hold on their volumes."""
    _stacks.pop(key, None)


def _build(scans: Sequence[Pyramid]) -> ScanStack:
    if not scans:
        raise MedrlError("crop needs at least one pyramid")
    volumes = tuple(_volumes_of(scan) for scan in scans)
    first = volumes[0][0]
    depth = max(len(levels) for levels in volumes)
    table = np.zeros((len(scans), depth, COLUMNS), dtype=np.int64)
    for m, levels in enumerate(volumes):
        for n, volume in enumerate(levels):
            if volume.shape[0] != first.shape[0] or volume.device != first.device:
                raise MedrlError(
                    f"all levels of all pyramids need the same channels and device: scan {m} level "
                    f"{n} has {volume.shape[0]} on {volume.device}, scan 0 level 0 "
                    f"{first.shape[0]} on {first.device}"
                )
            strides = [4 * stride for stride in volume.stride()[:3]]
            table[m, n] = [volume.data_ptr(), *strides, *volume.shape[1:]]
    background = np.array([scan.background for scan in scans], dtype=np.float32)
    return ScanStack(table, background, first.shape[0], first.device, volumes)


def _volumes_of(scan: Pyramid) -> tuple[Tensor, ...]:
    """Levels as plain tensors with adjacent k; copies, where made, are made once per pyramid."""
    volumes = _volumes.get(scan)
    if volumes is None:
        volumes = tuple(_plain(level) for level in scan.levels)
        if not volumes:
            raise MedrlError("crop needs a pyramid with at least one level")
        with _lock:
            _volumes[scan] = volumes
    return volumes


def _plain(level: Tensor) -> Tensor:
    if level.dtype != torch.float32 or level.ndim != 4 or 0 in level.shape:
        raise MedrlError(
            "a pyramid level must be a float32 tensor (C, I, J, K) with voxels in it, "
            f"not {level.dtype} {tuple(level.shape)}"
        )
    volume = level.detach().as_subclass(Tensor)
    return volume if volume.stride(3) == 1 else volume.contiguous()
