"""The scans that box agents learn on: augmented copies in memory, and the boxes in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from medrl.data.augment import Augmentation
from medrl.localization.data import LabelledScan, boxes_of
from medrl.rl.scan_pool import ScanPool

#: A box may have its middle so far outside a scan, as a share of its size.
_BEYOND = 0.2


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
        normalized: bool = False,
    ) -> None:
        """Choose what is at hand; arguments as of :class:`medrl.rl.scan_pool.ScanPool`."""
        self.pool = ScanPool(
            scans,
            slots=slots,
            spacings=spacings,
            augmentation=augmentation,
            generator=generator,
            device=device,
            normalized=normalized,
        )
        self._objects = len(scans[0].shapes)

    @property
    def truth(self) -> Tensor:
        """Boxes (slots, R, 2, 3) float64; NaN where there is nothing to see of the middle of one.

        Middles a little outside the scan are kept: where the middle is, is for the agents to say,
        and what shows up to there looks the same on either side.
        """
        points = self.pool.points
        boxes = boxes_of(points.view(len(points) * self._objects, -1, 3)).double()
        boxes = boxes.view(len(points), self._objects, 2, 3)
        seen = [
            _seen(own, one.levels[0]) for own, one in zip(boxes, self.pool.pyramids, strict=True)
        ]
        return torch.where(torch.stack(seen)[..., None, None], boxes, torch.nan)


def _seen(boxes: Tensor, volume: Tensor) -> Tensor:
    """Which boxes (R, 2, 3) have their middle in the scan or close to it, and not in added air."""
    center, size = boxes.mean(dim=1), boxes[:, 1] - boxes[:, 0]
    last = torch.tensor(volume.shape[1:]).to(center) - 1
    nearest = center.clamp(min=0).minimum(last)
    seen = ((center - nearest).abs() <= _BEYOND * size + 0.5).all(dim=1)
    for row in torch.nonzero(seen)[:, 0].tolist():
        i, j, k = (slice(max(0, at - 1), at + 2) for at in nearest[row].round().long().tolist())
        around = volume[:, i, j, k]
        # Air that was added is 0 throughout; nothing that was scanned is.
        seen[row] = bool(around.any())
    return seen
