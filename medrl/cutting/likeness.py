"""How like the object each pixel is, by its grey value or colour alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

#: Bins of a grey value, and of each of several colours.
_GREY, _COLOUR = 32, 10
#: Pixels of each kind that every bin is taken to have had beforehand.
_PRIOR = 0.5


def likeness(now: Tensor, seen: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """Probability that a pixel is of the object, by how often its colour was, (N, 1, s, s).

    Histograms of object and surroundings in the pictures whose masks are known, divided by each
    other, as in back projection (Swain and Ballard 1991).

    Args:
        now: (N, C, s, s), 0 to 1, where it is asked.
        seen: Windows of the same shape where it is known.
        masks: (N, 1, s, s) each, 0 to 1.
    """
    count, channels = now.shape[:2]
    bins = _GREY if channels == 1 else _COLOUR
    known = torch.cat([_bin(one, bins) for one in seen], dim=1)
    inside = torch.cat([mask.flatten(1) for mask in masks], dim=1).float()
    shape = (count, bins**channels)
    ours = inside.new_zeros(shape).scatter_add(1, known, inside)
    all_of = inside.new_zeros(shape).scatter_add(1, known, torch.ones_like(inside))
    ours, all_of = (_smoothed(one, bins, channels) for one in (ours, all_of))
    chance = (ours + _PRIOR) / (all_of + 2 * _PRIOR)
    return chance.gather(1, _bin(now, bins)).view(count, 1, *now.shape[2:])


def _bin(windows: Tensor, bins: int) -> Tensor:
    """The bin of each pixel, (N, s * s) int64."""
    index = (windows.clamp(0, 1) * bins).long().clamp(max=bins - 1)
    out = index[:, 0]
    for channel in range(1, windows.shape[1]):
        out = out * bins + index[:, channel]
    return out.flatten(1)


def _smoothed(histogram: Tensor, bins: int, channels: int) -> Tensor:
    """Histograms (N, B) with a little of each bin's neighbours."""
    if channels == 1:
        return F.avg_pool1d(histogram[:, None], 3, 1, 1)[:, 0]
    cube = histogram.view(-1, 1, *[bins] * channels)
    return F.avg_pool3d(cube, 3, 1, 1).flatten(1) if channels == 3 else histogram
