"""The scans that training agents walk in: augmented copies in memory, replaced one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from torch import Generator, Tensor

from medrl.data.augment import Augmentation, LabelledScan, augment
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
        normalized: bool = False,
    ) -> None:
        """Choose what is in every slot.

        Args:
            scans: Training scans.
            slots: Augmented copies held at a time.
            spacings: Pyramid spacings in mm, finest first.
            augmentation: How scans are changed.
            generator: Source of randomness.
            device: Where the pyramids live.
            normalized: Intensities have been brought to a common scale already, as those that have
                a unit are before anything is changed.
        """
        self._scans = list(scans)
        self._spacings = tuple(spacings)
        self._augmentation = augmentation
        self._device = device
        self._normalize = None if normalized else NormalizeForeground()
        self._pool = Pool(self._make, size=slots, sources=len(scans), generator=generator)

    def __len__(self) -> int:
        """Slots."""
        return len(self._pool)

    @property
    def pyramids(self) -> list[Pyramid]:
        """One pyramid a slot."""
        return [self._pool[slot][0] for slot in range(len(self))]

    @property
    def points(self) -> Tensor:
        """Points (slots, P, 3) float, in voxels of each pyramid's finest level."""
        return torch.stack([self._pool[slot][1] for slot in range(len(self))])

    @property
    def shapes(self) -> Tensor:
        """Grids (slots, 3) int64 of the finest levels, on the CPU."""
        return torch.tensor([pyramid.levels[0].shape[1:] for pyramid in self.pyramids])

    @property
    def versions(self) -> Tensor:
        """(slots,) int64, rises when a slot gets another scan: tells what is outdated."""
        versions = [self._pool.version(slot) for slot in range(len(self))]
        return torch.tensor(versions, device=self._device)

    def refresh(self) -> list[int]:
        """Replace the oldest slot; returns those replaced."""
        return self._pool.renew()

    def state_dict(self) -> dict[str, Any]:
        """What the scans at hand are made of."""
        return self._pool.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._pool.load_state_dict(state)

    def _make(self, source: int, generator: Generator) -> tuple[Pyramid, Tensor]:
        scan = self._scans[source]
        volume, points = augment(
            scan.volume, scan.points_voxel, self._augmentation, generator, tissues=scan.tissues
        )
        affine = torch.diag(torch.tensor([*[self._spacings[0]] * 3, 1.0], dtype=torch.float64))
        made = MetaTensor(volume, affine=affine)
        if self._normalize is not None:
            made = self._normalize(made)
        pyramid = build_pyramid(made, spacings=self._spacings)
        return pyramid.to(self._device), points.float().to(self._device)
