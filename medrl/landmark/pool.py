"""The scans that training agents walk in: augmented copies in memory, replaced one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from torch import Generator, Tensor

from medrl.landmark.augment import Augmentation, augment
from medrl.landmark.data import LabelledScan
from medrl.rl.pool import Pool
from medrl.volume.intensity import NormalizeForeground
from medrl.volume.pyramid import Pyramid, build_pyramid


class ScanPool:
    """Slots, each with the pyramid of one augmented scan; made when first looked at."""

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
        """Choose what is in every slot.

        Args:
            scans: Training scans.
            slots: Augmented copies held at a time.
            spacings: Pyramid spacings in mm, finest first.
            augmentation: How scans are changed.
            generator: Source of randomness.
            device: Where the pyramids live.
        """
        self._scans = list(scans)
        self._spacings = tuple(spacings)
        self._augmentation = augmentation
        self._device = device
        self._normalize = NormalizeForeground()
        landmarks = self._scans[0].points_voxel.shape[0]
        self._pool = Pool(self._make, size=slots, sources=len(scans), generator=generator)
        self._pyramids: dict[int, Pyramid] = {}
        self._points = torch.full((slots, landmarks, 3), float("nan"), device=device)
        self._shapes = torch.zeros((slots, 3), dtype=torch.int64, device=device)

    def __len__(self) -> int:
        """Slots."""
        return len(self._pool)

    @property
    def pyramids(self) -> list[Pyramid]:
        """One pyramid a slot."""
        self._fill()
        return [self._pyramids[slot] for slot in range(len(self))]

    @property
    def points(self) -> Tensor:
        """Landmarks (slots, K, 3) float, in voxels of each pyramid's finest level."""
        self._fill()
        return self._points

    @property
    def shapes(self) -> Tensor:
        """Grids (slots, 3) int64 of the finest levels."""
        self._fill()
        return self._shapes

    @property
    def versions(self) -> Tensor:
        """(slots,) int64, rises when a slot gets another scan: tells what is outdated."""
        versions = [self._pool.version(slot) for slot in range(len(self))]
        return torch.tensor(versions, device=self._device)

    def refresh(self) -> None:
        """Replace the oldest slot."""
        for slot in self._pool.renew():
            self._pyramids.pop(slot, None)

    def state_dict(self) -> dict[str, Any]:
        """What the scans at hand are made of."""
        return self._pool.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._pool.load_state_dict(state)
        self._pyramids.clear()

    def _fill(self) -> None:
        """Make what has not been looked at yet."""
        for slot in range(len(self)):
            if slot not in self._pyramids:
                self._pyramids[slot], points = self._pool[slot]
                self._points[slot] = points.to(self._points)
                self._shapes[slot] = torch.tensor(self._pyramids[slot].levels[0].shape[1:])

    def _make(self, source: int, generator: Generator) -> tuple[Pyramid, Tensor]:
        scan = self._scans[source]
        volume, points = augment(scan.volume, scan.points_voxel, self._augmentation, generator)
        affine = torch.diag(torch.tensor([*[self._spacings[0]] * 3, 1.0], dtype=torch.float64))
        normalized = self._normalize(MetaTensor(volume, affine=affine))
        return build_pyramid(normalized, spacings=self._spacings).to(self._device), points
