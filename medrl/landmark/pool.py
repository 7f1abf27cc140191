"""The scans that training agents walk in: augmented copies in memory, replaced one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.data.meta_tensor import MetaTensor
from torch import Generator, Tensor

from medrl.landmark.augment import Augmentation, augment
from medrl.volume.intensity import NormalizeForeground
from medrl.volume.pyramid import Pyramid, build_pyramid


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A scan with its landmarks, on the grid where agents walk.

    Attributes:
        name: Subject, for messages.
        volume: (C, I, J, K) float32, isotropic at the finest spacing, not yet normalised.
        points_voxel: (K, 3) float32, voxels of that grid, in the model's order; NaN where the
            landmark was not labelled.
    """

    name: str
    volume: Tensor
    points_voxel: Tensor


class ScanPool:
    """A fixed number of slots, each holding the pyramid of one augmented scan.

    Attributes:
        pyramids: One pyramid a slot.
        points: (slots, K, 3) float, landmarks in voxels of each pyramid's finest level.
        shapes: (slots, 3) int64, grids of the finest levels.
        versions: (slots,) int64, rises when a slot gets another scan, so that a replay entry
            can be recognised as outdated.
    """

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        *,
        slots: int,
        spacings: Sequence[float],
        augmentation: Augmentation,
        generator: Generator,
        device: str | torch.device = "cpu",
    ) -> None:
        """Fill every slot.

        Args:
            scans: Training scans.
            slots: Augmented copies held at a time.
            spacings: Pyramid spacings in mm, finest first.
            augmentation: How scans are changed.
            generator: Source of randomness.
            device: Where the pyramids live.
        """
        self.scans = list(scans)
        self._spacings = tuple(spacings)
        self._augmentation = augmentation
        self._generator = generator
        self._device = device
        self._order: list[int] = []
        self._next_slot = 0
        self._normalize = NormalizeForeground()
        landmarks = self.scans[0].points_voxel.shape[0]
        self.pyramids: list[Pyramid] = []
        self.points = torch.full((slots, landmarks, 3), float("nan"), device=device)
        self.shapes = torch.zeros((slots, 3), dtype=torch.int64, device=device)
        self.versions = torch.zeros(slots, dtype=torch.int64, device=device)
        for slot in range(slots):
            self._fill(slot)

    def refresh(self) -> None:
        """Replace the oldest slot."""
        self._fill(self._next_slot)
        self._next_slot = (self._next_slot + 1) % len(self.pyramids)

    def _fill(self, slot: int) -> None:
        if not self._order:
            self._order = torch.randperm(len(self.scans), generator=self._generator).tolist()
        scan = self.scans[self._order.pop()]
        volume, points = augment(
            scan.volume, scan.points_voxel, self._augmentation, self._generator
        )
        affine = torch.diag(torch.tensor([*[self._spacings[0]] * 3, 1.0], dtype=torch.float64))
        normalized = self._normalize(MetaTensor(volume, affine=affine))
        pyramid = build_pyramid(normalized, spacings=self._spacings).to(self._device)
        if slot == len(self.pyramids):
            self.pyramids.append(pyramid)
        else:
            self.pyramids[slot] = pyramid
        self.points[slot] = points.to(self.points)
        self.shapes[slot] = torch.tensor(volume.shape[1:])
        self.versions[slot] += 1
