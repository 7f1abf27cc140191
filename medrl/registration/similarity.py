"""How alike two scans are where both are in view: what agents check their steps with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.compiled import compile_with

BINS = 16
#: Normalised intensity of the last bin, and the one below which a voxel is taken for air.
_BRIGHT, _AIR = 1.2, 0.15
_SCALE = BINS / _BRIGHT
#: Share of the fixed object that must be in view of both for a similarity to count.
_LEAST_IN_VIEW = 0.25


def similarity(fixed: Tensor, moving: Tensor) -> Tensor:
    """Normalised mutual information of windows (Studholme et al. 1999, eq. 4), less one.

    (H(F) + H(M)) / H(F, M) - 1 over the voxels that both scans show: 0 for scans that have nothing
    to do with each other, 1 for scans that tell all of each other, whatever their contrasts. Scans
    that share less than a quarter of the fixed object's voxels are not judged, and get 0.

    Args:
        fixed: (N, 1, s, s, s), or one for all; negative where out of view.
        moving: (N, 1, s, s, s), negative where out of view.

    Returns:
        (N,) float64, on the same device.
    """
    voxels = fixed.flatten(1)
    label = torch.where(voxels < 0, -1, (voxels * _SCALE).long().clamp(max=BINS - 1)).int()
    joint = _joint(label, moving.flatten(1))
    total = joint.sum(dim=(1, 2), keepdim=True)
    share = joint / total.clamp(min=1)
    both = _entropy(share.flatten(1))
    single = _entropy(share.sum(dim=1)) + _entropy(share.sum(dim=2))
    dark = int(_AIR * _SCALE) + 1
    shown = joint[:, dark:].sum(dim=(1, 2)) > _LEAST_IN_VIEW * (label >= dark).sum(dim=1)
    return torch.where(shown & (both > 0), single / both.clamp(min=1e-9) - 1, 0.0)


def _joint(label: Tensor, moving: Tensor) -> Tensor:
    """Joint histograms (N, BINS, BINS) of fixed scans in bins (N or 1, V) and moving (N, V)."""
    if moving.device.type == "cpu":
        windows = np.ascontiguousarray(moving.numpy())
        return torch.from_numpy(_histograms(label.numpy(), windows))
    return _count(label, moving)


def _count(label: Tensor, moving: Tensor) -> Tensor:
    """The same with torch, on any device."""
    count = len(moving)
    level = (moving * _SCALE).long().clamp(max=BINS - 1)
    row = torch.arange(count, device=moving.device)[:, None]
    index = (row * BINS + label.long()) * BINS + level
    bins = torch.bincount(index[(moving >= 0) & (label >= 0)], minlength=count * BINS * BINS)
    return bins.view(count, BINS, BINS).double()


def _entropy(share: Tensor) -> Tensor:
    return -torch.special.xlogy(share, share).sum(dim=1)


@compile_with(fastmath=True)
def _histograms(labels: NDArray[np.int32], windows: NDArray[np.float32]) -> NDArray[np.float64]:
    count, voxels = windows.shape
    out = np.zeros((count, BINS, BINS))
    top = BINS - 1
    scale = np.float32(_SCALE)
    bins = np.empty(voxels, dtype=np.int32)
    for n in range(count):
        label = labels[n if len(labels) > 1 else 0]
        # Apart from the counting, so that it is done for several voxels at a time.
        for v in range(voxels):
            bins[v] = np.int32(windows[n, v] * scale)
        joint = np.zeros(BINS * BINS, dtype=np.int32)
        for v in range(voxels):
            if label[v] >= 0 and windows[n, v] >= 0:
                joint[label[v] * BINS + min(bins[v], top)] += 1
        for b in range(BINS * BINS):
            out[n, b // BINS, b % BINS] = joint[b]
    return out
