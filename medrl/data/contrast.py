"""Scans with a contrast of their own: made up from a scan and a map of its tissues."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from medrl.volume.augment import smoothed

#: What the values of a map of tissues mean.
TISSUES = ("air", "fluid", "grey matter", "white matter", "bone", "muscle", "fat", "cavity")

#: How bright tissues are, from and to, as a share of the brightest, by kind of scan. A cavity is
#: what is dark in MRI far from the brain: as it may hold air or be of bone, it is either in a CT.
#: The CT is one whose values from -100 to 200 Hounsfield units are looked at.
_KINDS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "T1": ((0, 0), (0.1, 0.3), (0.4, 0.6), (0.6, 0.9), (0, 0.15), (0.3, 0.6), (0.8, 1.4), (0, 0.1)),
    "T2": ((0, 0), (0.8, 1), (0.45, 0.75), (0.3, 0.5), (0, 0.12), (0.1, 0.4), (0.4, 1), (0, 0.1)),
    "PD": ((0, 0), (0.6, 1), (0.75, 1), (0.55, 0.8), (0, 0.15), (0.35, 0.7), (0.6, 1), (0, 0.1)),
    "FLAIR": ((0, 0), (0, 0.3), (0.6, 0.9), (0.45, 0.8), (0, 0.15), (0.2, 0.5), (0.5, 1), (0, 0.1)),
    "CT": ((0, 0), (0.33, 0.42), (0.43, 0.5), (0.38, 0.46), (1, 1), (0.42, 0.6), (0, 0.1), (0, 1)),
    "any": ((0, 0), *[(0, 1)] * 7),
}
#: How much of the texture of a tissue is kept, at most: in the CT nearly none, it is uniform.
_TEXTURE, _TEXTURE_CT = 0.8, 0.15
#: Blur of the borders between tissues, voxels, at most.
_PARTIAL_VOLUME = 0.8
#: Knots of a brightness curve, where no tissues are known.
_KNOTS = 6


def recolored(volume: Tensor, tissues: Tensor | None, generator: Generator) -> Tensor:
    """Give a scan another contrast: T1, T2, PD, FLAIR, CT, or one that no scanner has.

    Every tissue gets a brightness drawn for the kind of scan, as Billot et al. 2023 (SynthSeg) do,
    and keeps part of its texture, perhaps inverted, so that what the map does not tell apart stays
    visible. Without a map brightness goes through a random curve.

    Args:
        volume: (1, I, J, K) float, at least 0.
        tissues: (I, J, K) integers, indices of :data:`TISSUES`; None if they are not known.
        generator: Source of all randomness.

    Returns:
        (1, I, J, K) float, at least 0, about as bright as it was.
    """
    bright = volume.flatten()[:: max(1, volume.numel() // 20000)].quantile(0.98).clamp(min=1e-6)
    if tissues is None:
        return bright * _through_curve(volume / bright, generator)
    kinds = tuple(_KINDS)
    kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    low, high = torch.tensor(_KINDS[kind]).unbind(dim=1)
    brightness = low + (high - low) * torch.rand(len(TISSUES), generator=generator)
    if kind == "CT":
        brightness[-1] = brightness[-1].round()
    most = _TEXTURE_CT if kind == "CT" else _TEXTURE
    kept = most * (2 * torch.rand(len(TISSUES), generator=generator) - 1)
    kept[0] = 0.0
    label = tissues.long().flatten()
    own = (volume / bright).flatten()
    count = torch.bincount(label, minlength=len(TISSUES)).clamp(min=1)
    mean = torch.bincount(label, weights=own, minlength=len(TISSUES)) / count
    made = brightness[label] + kept[label] * (own - mean.float()[label])
    # Three taps whose variance is the square of the blur.
    side = (_PARTIAL_VOLUME * float(torch.rand((), generator=generator))) ** 2 / 2
    kernel = torch.tensor([side, 1 - 2 * side, side])
    return bright * smoothed(made.view_as(volume).clamp(min=0), kernel)


def _through_curve(volume: Tensor, generator: Generator) -> Tensor:
    """Piecewise linear through random heights at fixed knots; what is dark stays dark."""
    heights = torch.rand(_KNOTS + 1, generator=generator)
    heights[0] = 0.0
    place = (volume.clamp(0, 1) * _KNOTS).clamp(max=_KNOTS - 1e-4)
    left = place.long()
    share = place - left
    return (1 - share) * heights[left] + share * heights[left + 1]
