"""What a seed agent has to beat: random seeds, plain walking, thresholds, with the same clicks.

Convention: seeds are (1, I, J, K) int8, images (1, C, I, J, K) and volumes (I, J, K) normalised,
radii in voxels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Generator, Tensor

from medrl.seednet.geometry import ball
from medrl.walker.edges import intensity_edges
from medrl.walker.segmenter import NONE, Segmenter

#: Edge weights from intensities: the reference trial's value on the hippocampus.
INTENSITY_BETA = 2000.0
#: Radius of the ball that a seed paints where nothing else carries it further, voxels.
PLAIN_RADIUS = 2.0


def painted(seeds: Tensor, *, radius: float) -> Tensor:
    """Every seed as a ball; where balls of both labels meet, the nearer seed wins."""
    if radius <= 0:
        return seeds
    distance, nearest = ndimage.distance_transform_edt(
        seeds[0].numpy() == NONE, return_indices=True
    )
    label = seeds[0].numpy()[tuple(nearest)]
    return torch.from_numpy(np.where(distance <= radius, label, NONE).astype(np.int8))[None]


def plain_segmenter(
    segmenter: Segmenter, image: Tensor, *, radius: float = PLAIN_RADIUS
) -> Callable[[Tensor], Tensor]:
    """A segmenter on the intensities alone: from seeds to a probability (1, I, J, K).

    Args:
        segmenter: Random walker or geodesic distances.
        image: What to segment.
        radius: Of the ball that each seed paints.
    """
    system = segmenter.prepare(intensity_edges(image, beta=INTENSITY_BETA))

    def segment(seeds: Tensor) -> Tensor:
        return segmenter.solve(system, painted(seeds, radius=radius))

    return segment


def random_seeds(truth: Tensor, seeds: Tensor, *, count: int, generator: Generator) -> Tensor:
    """As many more seeds, at random places with the labels of the truth (1, I, J, K) bool."""
    out = seeds.clone()
    free = (out[0] == NONE).nonzero()
    for row in torch.randperm(len(free), generator=generator)[:count]:
        i, j, k = free[row]
        out[0, i, j, k] = int(truth[0, i, j, k])
    return out


def region_around(
    volume: Tensor, click: tuple[int, int, int], *, low: float, high: float
) -> Tensor:
    """Voxels of (I, J, K) from low to high that are joined to the click, 6-connected; bool."""
    joined, _ = ndimage.label(((volume >= low) & (volume <= high)).numpy())
    own = joined[click]
    return torch.from_numpy((joined == own) & (own > 0))


def intensity_region(volume: Tensor, click: tuple[int, int, int], *, width: float = 0.5) -> Tensor:
    """One-click threshold: the connected region with about the click's intensity.

    It differs by at most ``width`` from the mean of the click's neighbourhood.
    """
    offsets = ball(1.0)
    near = (offsets + torch.tensor(click)).clamp(min=0)
    near = torch.minimum(near, torch.tensor(volume.shape) - 1)
    middle = float(volume[tuple(near.unbind(dim=1))].mean())
    return region_around(volume, click, low=middle - width, high=middle + width)


def suv_region(suv: Tensor, click: tuple[int, int, int], *, share: float = 0.41) -> Tensor:
    """Threshold at a share of the local SUV maximum, connected to it.

    The local maximum is found by climbing from the click to the brightest of the 26 neighbours.
    The volume holds standardized uptake values.
    """
    best = ndimage.maximum_filter(suv.numpy(), size=3)
    here = click
    while float(suv[here]) < best[here]:
        low = [max(0, c - 1) for c in here]
        box = suv[tuple(slice(a, c + 2) for a, c in zip(low, here, strict=True))]
        step = np.unravel_index(int(box.argmax()), tuple(box.shape))
        here = tuple(int(a + b) for a, b in zip(low, step, strict=True))  # type: ignore[assignment]
    return region_around(suv, here, low=share * float(suv[here]), high=float("inf"))
