"""Pairs of scans of which the truth is known: one scan, bent and shown in another way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from medrl.volume.space import apply_affine, as_affine, spacing_of

Array = NDArray[np.float64]

_ROUNDS = 60


@dataclass(frozen=True, eq=False)
class Bend:
    """A smooth field: what lies at y of the later scan lay at ``y + back(y)`` in the earlier.

    A sum of Gaussian bumps, and an affine part.

    Attributes:
        centers: (B, 3) RAS mm.
        sizes: (B,) mm, standard deviations.
        shifts: (B, 3) mm.
        matrix: (3, 3), what is added per mm from the first centre.
        shift: (3,) mm.
    """

    centers: Array
    sizes: Array
    shifts: Array
    matrix: Array
    shift: Array

    def back(self, points_world: Array) -> Array:
        """The field (N, 3) mm at places (N, 3) of the later scan."""
        out = (points_world - self.centers[0]) @ self.matrix.T + self.shift
        for center, size, shift in zip(self.centers, self.sizes, self.shifts, strict=True):
            square = ((points_world - center) ** 2).sum(axis=1)
            out = out + np.exp(-square / (2 * size**2))[:, None] * shift
        return np.asarray(out)

    def forward(self, points_world: Array) -> Array:
        """Where points (N, 3) of the earlier scan are in the later; fixed-point iteration."""
        found = points_world.copy()
        for _ in range(_ROUNDS):
            found = points_world - self.back(found)
        return found


def random_bend(scan: MetaTensor, *, generator: np.random.Generator, largest_mm: float) -> Bend:
    """A field that folds nowhere: bumps as wide as a good part of the scan, and small ones.

    Args:
        scan: Whose world it lies in.
        generator: Source of all choices.
        largest_mm: Displacement of the largest bump.
    """
    affine, shape = as_affine(scan.affine), np.array(scan.shape[1:])
    extent = float(np.min(spacing_of(affine) * shape))
    wide = np.clip(extent * generator.uniform(0.2, 0.45, 4), 3.0 * largest_mm, None)
    small = generator.uniform(10.0, 20.0, 16)
    sizes = np.concatenate([wide, small])
    # A Gaussian bump is steepest at its deviation, exp(-1/2) of height by size.
    most = np.concatenate([np.full(4, largest_mm / 2), np.full(16, 3.0)])
    heights = np.minimum(most, 0.35 * sizes) * generator.uniform(0.3, 1.0, len(sizes))
    directions = generator.normal(size=(len(sizes), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places = generator.uniform(0.1, 0.9, (len(sizes), 3)) * (shape - 1)
    return Bend(
        apply_affine(affine, places),
        sizes,
        directions * heights[:, None],
        generator.normal(0.0, 0.02, (3, 3)),
        generator.normal(0.0, 2.0, 3),
    )


def bent(scan: MetaTensor, bend: Bend) -> MetaTensor:
    """The later scan of a field, on the same grid, linear in between (1, I, J, K)."""
    affine = as_affine(scan.affine)
    shape = tuple(scan.shape[1:])
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = apply_affine(affine, voxels.reshape(-1, 3))
    places = apply_affine(np.linalg.inv(affine), world + bend.back(world))
    values = map_coordinates(
        scan.as_tensor()[0].numpy(), places.T, order=1, mode="nearest"
    ).reshape(shape)
    return MetaTensor(torch.from_numpy(values[None].astype(np.float32)), affine=scan.affine)


def reshown(scan: MetaTensor, *, generator: np.random.Generator) -> MetaTensor:
    """Tidied values (1, I, J, K) as another machine or another day would give them.

    Another grey curve, a slow shading, some blur and noise, and regions that have become lighter
    or denser.
    """
    values = scan.as_tensor()[0].numpy().astype(np.float32).clip(0, 1)
    values = values ** np.float32(np.exp(generator.normal(0.0, 0.25)))
    blur = generator.uniform(0.0, 0.8)
    values = gaussian_filter(values, blur)
    for deviation, share in ((0.25, 0.15), (0.06, 0.1)):
        cells = np.maximum(2, np.round(1.0 / deviation)).astype(int)
        coarse = generator.normal(0.0, share, (cells, cells, cells))
        at = np.meshgrid(*[np.linspace(0, cells - 1, n) for n in values.shape], indexing="ij")
        slow = map_coordinates(coarse, np.stack(at), order=1)
        values = values * np.exp(slow).astype(np.float32)
    values = values + generator.normal(0.0, generator.uniform(0.0, 0.03), values.shape)
    return MetaTensor(
        torch.from_numpy(values[None].astype(np.float32)).clamp(0, 1.2), affine=scan.affine
    )


def replaced(scan: MetaTensor, *, generator: np.random.Generator) -> MetaTensor:
    """A scan (1, I, J, K) of which some regions hold what lies elsewhere."""
    values = scan.as_tensor()[0].numpy().copy()
    shape = np.array(values.shape)
    spacing = spacing_of(as_affine(scan.affine))
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    other = np.roll(values, tuple((generator.uniform(0.15, 0.4, 3) * shape).astype(int)), (0, 1, 2))
    for _ in range(3):
        center = generator.uniform(0.2, 0.8, 3) * shape
        apart = np.linalg.norm((grid - center) * spacing, axis=-1)
        share = np.clip((generator.uniform(15.0, 30.0) - apart) / 5.0, 0.0, 1.0)
        values = values * (1 - share) + other * share
    return MetaTensor(torch.from_numpy(values[None].astype(np.float32)), affine=scan.affine)
