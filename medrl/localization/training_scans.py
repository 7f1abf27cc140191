"""The scans that box agents learn on: augmented copies in memory, and the boxes in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from medrl.data.augment import Augmentation
from medrl.localization.data import LabelledScan, boxes_of
from medrl.rl.scan_pool import ScanPool


class TrainingScans:
    """Augmented scans at hand.

    Attributes:
        pool: Their pyramids, and the points that span the boxes.
    """

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        *,
        spacings: Sequence[float],
        slots: int,
        augmentation: Augmentation,
        generator: Generator,
        device: str | torch.device = "cpu",
    ) -> None:
        """Choose what is at hand; arguments as of :class:`medrl.rl.scan_pool.ScanPool`."""
        self.pool = ScanPool(
            scans,
            slots=slots,
            spacings=spacings,
            augmentation=augmentation,
            generator=generator,
            device=device,
        )
        self._targets = scans[0].shapes.shape[0]

    @property
    def truth(self) -> Tensor:
        """Boxes (slots, K, 2, 3) float64; NaN where the middle of one is not in the scan."""
        points = self.pool.points
        boxes = boxes_of(points.view(len(points) * self._targets, -1, 3)).double()
        boxes = boxes.view(len(points), self._targets, 2, 3)
        center, shape = boxes.mean(dim=2), self.pool.shapes[:, None].to(boxes)
        inside = ((center >= -0.5) & (center <= shape - 0.5)).all(dim=-1)
        return torch.where(inside[..., None, None], boxes, torch.nan)
