"""The grid of the user's scan: what a seed means in it, and the mask as the user gets it.

Convention: world points are RAS mm; voxels are (i, j, k) in the scan's array order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from medrl.errors import MedrlError
from medrl.seednet.editor import Edit, ObjectState, Voxels
from medrl.seednet.seeds import LABEL_NAMES, Seed
from medrl.volume.resample import resample_onto
from medrl.volume.space import voxel_to_world, voxels_in_box, world_to_voxel
from medrl.walker.segmenter import FOREGROUND


@dataclass(frozen=True, eq=False)
class OutputGrid:
    """The grid that masks come in.

    Attributes:
        affine: (4, 4), voxel to world (RAS mm).
        shape: (I, J, K).
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]

    def voxels(self, item: Seed | Edit) -> Voxels:
        """Voxels (V, 3) that a seed or an edit lies on."""
        if isinstance(item, Edit):
            return item.voxels
        return np.clip(item.voxels(self.affine), 0, np.array(self.shape) - 1)

    def probability(self, obj: ObjectState, grid: NDArray[np.float64]) -> NDArray[np.float32]:
        """An object's probability of foreground as the user gets it.

        Args:
            obj: The object, with a segmentation.
            grid: (4, 4), the model's voxel to world.

        Returns:
            (I, J, K), interpolated linearly; 0 outside window and limits, and 0 or 1 where the
            user has said so.
        """
        out = np.zeros(self.shape, dtype=np.float32)
        where, values = self.part(obj, grid)
        out[where] = values
        return out

    def part(
        self, obj: ObjectState, grid: NDArray[np.float64]
    ) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
        """The part of :meth:`probability` that can be more than 0.

        Args:
            obj: The object, with a segmentation.
            grid: (4, 4), the model's voxel to world.

        Returns:
            A box of the grid, and the values in it.
        """
        begin, values = self._resampled(obj, grid)
        said = [(self.voxels(item), float(item.label == FOREGROUND)) for item in obj.said]
        inside = np.concatenate([voxels for voxels, label in said if label])
        low = np.minimum(begin, inside.min(axis=0))
        high = np.maximum(begin + values.shape, inside.max(axis=0) + 1)
        values = np.pad(values, np.stack([begin - low, high - begin - values.shape], axis=1))
        if obj.limits_world is not None:
            affine = self.affine.copy()
            affine[:3, 3] = voxel_to_world(low.astype(np.float64), self.affine)
            i, j, k = values.shape
            values[~voxels_in_box(obj.limits_world, affine, (i, j, k))] = 0.0
        for voxels, label in said:
            own = voxels[((voxels >= low) & (voxels < high)).all(axis=1)] - low
            values[tuple(own.T)] = label
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), values

    def check_place(self, seed: Seed, limits: NDArray[np.float64] | None) -> None:
        """Refuse a seed outside the scan or the limits (2, 3; RAS mm).

        Raises:
            MedrlError: If it is one.
        """
        voxel = world_to_voxel(seed.points_world, self.affine)
        outside = ((voxel < -0.5 - 1e-6) | (voxel > np.array(self.shape) - 0.5 + 1e-6)).any(axis=1)
        if outside.any():
            raise MedrlError(
                f"the seed at {_text(seed.points_world[outside.argmax()])} lies outside the scan, "
                f"which covers {self._extent()} (RAS mm)"
            )
        if limits is None:
            return
        beyond = ((seed.points_world < limits[0]) | (seed.points_world > limits[1])).any(axis=1)
        if beyond.any():
            where = _text(seed.points_world[beyond.argmax()])
            raise MedrlError(f"the seed at {where} lies outside the limits of the object")

    def check_agreement(self, seed: Seed, known: Sequence[Seed]) -> None:
        """Refuse a seed on a voxel of which another seed says the opposite.

        Raises:
            MedrlError: If it is one.
        """
        own = {tuple(voxel) for voxel in self.voxels(seed).tolist()}
        for number, other in enumerate(known):
            if other.label == seed.label:
                continue
            if own & {tuple(voxel) for voxel in self.voxels(other).tolist()}:
                raise MedrlError(
                    f"the {seed.label_name} seed at {_text(seed.position_world)} lies in the same "
                    f"voxel as the {LABEL_NAMES[other.label]} seed {number}: remove one of them"
                )

    def _extent(self) -> str:
        corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in self.shape]), -1).reshape(-1, 3)
        world = voxel_to_world(corners, self.affine)
        return f"{_text(world.min(axis=0))} to {_text(world.max(axis=0))}"

    def _resampled(
        self, obj: ObjectState, grid: NDArray[np.float64]
    ) -> tuple[Voxels, NDArray[np.float32]]:
        """The model's probability in the box of this grid that it reaches, and the box's start."""
        assert obj.state is not None
        assert obj.box is not None
        low, high = np.array(obj.box[0]), np.array(obj.box[1])
        cut = tuple(slice(a, b) for a, b in zip(low - obj.corner, high - obj.corner, strict=True))
        inner = obj.state.probability[0][cut].cpu()
        # What lies half a voxel beyond the model's grid is still in the scan.
        padded = F.pad(inner[None, None], (1,) * 6, mode="replicate")[0]
        start = grid.copy()
        start[:3, 3] = voxel_to_world(low - 1.0, grid)

        corners = np.stack(np.meshgrid(*zip(low - 1.5, high + 0.5, strict=True)), -1).reshape(-1, 3)
        reached = world_to_voxel(voxel_to_world(corners, grid), self.affine)
        begin = np.clip(np.floor(reached.min(axis=0)).astype(int), 0, self.shape)
        end = np.clip(np.ceil(reached.max(axis=0)).astype(int) + 1, begin, self.shape)
        onto = self.affine.copy()
        onto[:3, 3] = voxel_to_world(begin.astype(np.float64), self.affine)
        i, j, k = (int(n) for n in end - begin)
        here = resample_onto(
            MetaTensor(padded, affine=torch.from_numpy(start)), affine=onto, shape=(i, j, k)
        )
        return begin, here.as_tensor()[0].numpy()


def _text(point_world: ArrayLike) -> str:
    return f"({', '.join(f'{value:.1f}' for value in np.asarray(point_world))})"
