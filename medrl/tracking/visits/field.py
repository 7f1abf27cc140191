"""From the agents' displacements to one at any place: how boxes and masks are carried along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from medrl.tracking.visits.neighbours import Neighbourhood, fitted
from medrl.volume.space import apply_affine, as_affine, box_corners, voxel_to_world

Array = NDArray[np.float64]

#: Neighbours that count at a place, places done at a time, and spacing of the grid of a mask.
_NEIGHBOURS, _CHUNK, _GRID_MM = 16, 20_000, 5.0
#: Rounds of the fixed-point iteration, which gains a digit or so a round for smooth fields.
_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class Field:
    """A smooth map from the earlier world to the later one.

    Attributes:
        points_world: (N, 3) RAS mm, where agents know the displacement.
        displacement: (N, 3) mm there.
        weight: (N,) how much each counts.
        start_world: (4, 4): x goes to ``start_world @ (x + displacement)``.
    """

    points_world: Array
    displacement: Array
    weight: Array
    start_world: Array

    def displacement_at(self, points_world: Array) -> Array:
        """The displacement (M, 3) in mm at places (M, 3) of the earlier world."""
        count = min(_NEIGHBOURS, len(self.points_world))
        tree = cKDTree(self.points_world)
        out = np.empty((len(points_world), 3))
        for first in range(0, len(points_world), _CHUNK):
            some = points_world[first : first + _CHUNK]
            _, rows = tree.query(some, k=count)
            rows = np.asarray(rows, dtype=np.int64).reshape(len(some), count)
            apart = torch.from_numpy(self.points_world[rows] - some[:, None])
            row = torch.from_numpy(rows)
            hood = Neighbourhood(row, torch.ones_like(row, dtype=torch.bool), apart)
            found = fitted(hood, torch.from_numpy(self.displacement), torch.from_numpy(self.weight))
            out[first : first + _CHUNK] = found.numpy()
        return out

    def __call__(self, points_world: Array) -> Array:
        """Places (M, 3) of the earlier world in the later one, RAS mm."""
        return apply_affine(self.start_world, points_world + self.displacement_at(points_world))

    def carry_box(self, box_world: Array) -> Array:
        """A box (2, 3) RAS mm along the world's axes in the later world.

        Each face goes where the mean of a grid of 3 x 3 points on it goes.
        """
        low, high = box_world
        steps = np.linspace(low, high, 3)
        grid = np.stack(np.meshgrid(*steps.T, indexing="ij"), -1)
        moved = self(grid.reshape(-1, 3)).reshape(grid.shape)
        out = np.empty((2, 3))
        for axis in range(3):
            faces = np.moveaxis(moved[..., axis], axis, 0)
            out[:, axis] = faces[0].mean(), faces[-1].mean()
        return np.sort(out, axis=0)

    def carry_mask(self, mask: MetaTensor, onto: MetaTensor) -> MetaTensor:
        """A mask of the earlier scan on the grid of the later one.

        Args:
            mask: MetaTensor (1, I, J, K), above 0 inside.
            onto: MetaTensor (1, I', J', K') whose grid is wanted.

        Returns:
            MetaTensor (1, I', J', K'), uint8; interpolated linearly and cut at one half.
        """
        values = mask.as_tensor()[0].numpy() > 0
        out = np.zeros(tuple(onto.shape[1:]), dtype=np.uint8)
        result = MetaTensor(torch.from_numpy(out[None]), affine=onto.affine)
        inside = np.argwhere(values)
        if not len(inside):
            return result
        affine, grid = as_affine(mask.affine), as_affine(onto.affine)
        world = voxel_to_world(inside[:: max(1, len(inside) // 5000)], affine)
        moved = apply_affine(np.linalg.inv(grid), self(world))
        margin = np.ceil(10.0 / np.linalg.norm(grid[:3, :3], axis=0)) + 1
        shape = np.array(out.shape)
        first = np.clip(np.floor(moved.min(axis=0) - margin), 0, shape).astype(int)
        last = np.clip(np.ceil(moved.max(axis=0) + margin) + 1, 0, shape).astype(int)
        if (last <= first).any():
            return result
        axes = [np.arange(a, b) for a, b in zip(first, last, strict=True)]
        places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        back = self.inverse(voxel_to_world(places, grid))
        voxel = apply_affine(np.linalg.inv(affine), back)
        part = map_coordinates(values.astype(np.float32), voxel.T, order=1, mode="constant")
        cut = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        out[cut] = (part >= 0.5).reshape(out[cut].shape)
        return result

    def inverse(self, points_world: Array) -> Array:
        """Places (M, 3) of the later world in the earlier one, RAS mm.

        Solves ``x + displacement(x) = start^-1 y`` by fixed-point iteration on a grid.
        """
        aim = apply_affine(np.linalg.inv(self.start_world), points_world)
        most = np.linalg.norm(self.displacement, axis=1).max() + _GRID_MM
        low = aim.min(axis=0) - most
        counts = np.ceil((aim.max(axis=0) + most - low) / _GRID_MM).astype(int) + 1
        axes = np.stack(np.meshgrid(*[np.arange(n) for n in counts], indexing="ij"), -1)
        known = self.displacement_at(low + axes.reshape(-1, 3) * _GRID_MM).reshape(*counts, 3)
        found = aim
        for _ in range(_ROUNDS):
            at = (found - low).T / _GRID_MM
            moved = [map_coordinates(known[..., c], at, order=1, mode="nearest") for c in range(3)]
            found = aim - np.stack(moved, axis=1)
        return found


def surface_of_box(box_world: Array) -> Array:
    """Corners and centre (9, 3) of a box (2, 3)."""
    return np.concatenate([box_corners(*box_world), box_world.mean(axis=0, keepdims=True)])
