"""The grid of the user's scan: what a seed means in it, and the mask as the user gets it.

Convention: world points are RAS mm; voxels are (i, j, k) in the scan's array order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from medrl.errors import MedrlError
from medrl.seednet.objects import Edit, History, Segmented
from medrl.seednet.seeds import LABEL_NAMES, Seed
from medrl.seednet.windows import Voxels
from medrl.volume.resample import resample_onto
from medrl.volume.space import (
    box_corners,
    cropped_affine,
    voxel_to_world,
    voxels_in_box,
    world_to_voxel,
)
from medrl.walker.segmenter import FOREGROUND

_MOST_OBJECTS = 255


@dataclass(frozen=True, eq=False)
class OutputGrid:
    """The grid that masks come in.

    Attributes:
        affine: (4, 4), voxel to world (RAS mm).
        shape: (I, J, K).
        model_affine: (4, 4), voxel of the model's grid to world.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    model_affine: NDArray[np.float64]

    def voxels(self, mark: Seed | Edit) -> Voxels:
        """Voxels (V, 3) that a seed or an edit lies on."""
        if isinstance(mark, Edit):
            return mark.voxels
        return np.clip(mark.voxels(self.affine), 0, np.array(self.shape) - 1)

    def probability(self, obj: Segmented) -> NDArray[np.float32]:
        """An object's probability of foreground (I, J, K) as the user gets it.

        Interpolated linearly; 0 outside window and limits, and 0 or 1 where the user has marked.
        """
        out = np.zeros(self.shape, dtype=np.float32)
        where, values = self._part(obj)
        out[where] = values
        return out

    def label_map(self, objects: Mapping[str, History]) -> NDArray[np.uint8]:
        """All objects in one map (I, J, K): 0, and their numbers from 1 in their order.

        Where they overlap, a locked one comes first, then one whose seed is there, then the later
        one.

        Raises:
            MedrlError: If none has a foreground seed, or there are too many for the type.
        """
        if len(objects) > _MOST_OBJECTS:
            raise MedrlError(f"a label map holds at most {_MOST_OBJECTS} objects")
        found = [
            (number, history.obj, history.locked)
            for number, history in enumerate(objects.values(), 1)
            if isinstance(history.obj, Segmented)
        ]
        if not found:
            raise MedrlError("place a foreground seed first")
        out = np.zeros(self.shape, dtype=np.uint8)
        for locked in (False, True):
            group = [(number, obj) for number, obj, own in found if own == locked]
            for number, obj in group:
                where, values = self._part(obj)
                out[where][values > 0.5] = number
            for number, obj in group:
                for seed in obj.seeds:
                    if seed.label == FOREGROUND:
                        out[tuple(self.voxels(seed).T)] = number
        return out

    def check_place(self, seed: Seed, limits: NDArray[np.float64] | None) -> None:
        """Refuse a seed outside the scan or the limits (2, 3; RAS mm)."""
        voxel = world_to_voxel(seed.points_world, self.affine)
        outside = ((voxel < -0.5 - 1e-6) | (voxel > np.array(self.shape) - 0.5 + 1e-6)).any(axis=1)
        if outside.any():
            corners = box_corners(np.full(3, -0.5), np.array(self.shape) - 0.5)
            world = voxel_to_world(corners, self.affine)
            raise MedrlError(
                f"the seed at {_text(seed.points_world[outside.argmax()])} lies outside the scan, "
                f"which covers {_text(world.min(axis=0))} to {_text(world.max(axis=0))} (RAS mm)"
            )
        if limits is None:
            return
        beyond = ((seed.points_world < limits[0]) | (seed.points_world > limits[1])).any(axis=1)
        if beyond.any():
            where = _text(seed.points_world[beyond.argmax()])
            raise MedrlError(f"the seed at {where} lies outside the limits of the object")

    def check_agreement(self, seed: Seed, known: Sequence[Seed]) -> None:
        """Refuse a seed on a voxel of another one of the opposite label."""
        own = {tuple(voxel) for voxel in self.voxels(seed).tolist()}
        for number, other in enumerate(known):
            if other.label == seed.label:
                continue
            if own & {tuple(voxel) for voxel in self.voxels(other).tolist()}:
                raise MedrlError(
                    f"the {seed.label_name} seed at {_text(seed.position_world)} lies in the same "
                    f"voxel as the {LABEL_NAMES[other.label]} seed {number}: remove one of them"
                )

    def _part(self, obj: Segmented) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
        """A box of this grid outside which the probability is 0, and the probability in it."""
        begin, values = self._resampled(obj)
        marked = [(self.voxels(mark), float(mark.label == FOREGROUND)) for mark in obj.marks]
        inside = np.concatenate([voxels for voxels, label in marked if label])
        low = np.minimum(begin, inside.min(axis=0))
        high = np.maximum(begin + values.shape, inside.max(axis=0) + 1)
        values = np.pad(values, np.stack([begin - low, high - begin - values.shape], axis=1))
        if obj.limits_world is not None:
            i, j, k = values.shape
            affine = cropped_affine(self.affine, low)
            values[~voxels_in_box(obj.limits_world, affine, (i, j, k))] = 0.0
        for voxels, label in marked:
            own = voxels[((voxels >= low) & (voxels < high)).all(axis=1)] - low
            values[tuple(own.T)] = label
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), values

    def _resampled(self, obj: Segmented) -> tuple[Voxels, NDArray[np.float32]]:
        """The model's probability in the box of this grid that it reaches, and the box's start."""
        low, high = np.array(obj.box[0]), np.array(obj.box[1])
        cut = tuple(slice(a, b) for a, b in zip(low - obj.corner, high - obj.corner, strict=True))
        inner = obj.state.probability[0][cut].cpu()
        # What lies half a voxel beyond the model's grid is still in the scan.
        padded = F.pad(inner[None, None], (1,) * 6, mode="replicate")[0]
        start = torch.from_numpy(cropped_affine(self.model_affine, low - 1))
        corners = voxel_to_world(box_corners(low - 1.5, high + 0.5), self.model_affine)
        reached = world_to_voxel(corners, self.affine)
        begin = np.clip(np.floor(reached.min(axis=0)).astype(int), 0, self.shape)
        end = np.clip(np.ceil(reached.max(axis=0)).astype(int) + 1, begin, self.shape)
        i, j, k = (int(n) for n in end - begin)
        here = resample_onto(
            MetaTensor(padded, affine=start),
            affine=cropped_affine(self.affine, begin),
            shape=(i, j, k),
        )
        return begin, here.as_tensor()[0].numpy()


def _text(point_world: ArrayLike) -> str:
    return f"({', '.join(f'{value:.1f}' for value in np.asarray(point_world))})"
