"""What box agents must beat: the mean box, and atlases carried over by affine registration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.evaluation.atlas import AffineAtlas
from medrl.localization.answer import Box
from medrl.localization.data import Sample
from medrl.localization.evaluate import Labelled
from medrl.volume.boxes import box_of_scan
from medrl.volume.read import read
from medrl.volume.space import as_affine, inside

Array = NDArray[np.float64]


class ConstantBox:
    """The mean box of the training scans relative to the scan's centre: looks at no image."""

    name = "constant box"

    def __init__(self, training: Sequence[Sample], targets: Sequence[str]) -> None:
        """Average the training boxes of some targets."""
        boxes: dict[str, list[Array]] = {name: [] for name in targets}
        for sample in training:
            scan, known = read(sample.image), sample.boxes_world()
            for name in boxes.keys() & known.keys():
                boxes[name].append(known[name] - _center(scan))
        self._mean = {name: np.mean(own, axis=0) for name, own in boxes.items() if own}

    def __call__(self, labelled: Labelled) -> dict[str, Box]:
        """Boxes that move with the scan."""
        center = _center(labelled.scan)
        return {
            name: Box(name, mean + center, "found", float("nan"))
            for name, mean in self._mean.items()
        }


class BoxAtlas:
    """Objects of labelled scans carried over by affine registration, and the mean of their boxes.

    What is outside the scan then is absent.
    """

    def __init__(
        self, training: Sequence[Sample], targets: Sequence[str], *, count: int, spacing: float
    ) -> None:
        """Read the atlases: the training scans whose objects lie most typically.

        Args:
            training: Labelled scans.
            targets: Names, K of them.
            count: Number of atlases.
            spacing: Voxel size that scans are brought to first, mm.

        Raises:
            MedrlError: If no training scan has all targets.
        """
        self.name = "affine atlas" if count == 1 else f"affine, mean of {count} atlases"
        self._targets = tuple(targets)
        shapes = [sample.shapes_world() for sample in training]
        complete = [n for n, own in enumerate(shapes) if set(targets) <= own.keys()]
        if not complete:
            raise MedrlError("no training scan has all targets: there is no atlas")
        middles = np.array([[shapes[n][t].mean(axis=0) for t in targets] for n in complete])
        middles -= middles.mean(axis=1, keepdims=True)
        untypical = np.linalg.norm(middles - np.median(middles, axis=0), axis=2).mean(axis=1)
        chosen = [complete[row] for row in np.argsort(untypical, kind="stable")[:count]]
        self._rows = [np.cumsum([len(shapes[n][t]) for t in targets])[:-1] for n in chosen]
        points = [np.concatenate([shapes[n][t] for t in targets]) for n in chosen]
        scans = [read(training[n].image) for n in chosen]
        self._atlas = AffineAtlas(list(zip(scans, points, strict=True)), spacing=spacing)

    def __call__(self, labelled: Labelled) -> dict[str, Box]:
        """Boxes of everything, absent if its middle is outside; none if no registration worked."""
        affine, shape = as_affine(labelled.scan.affine), tuple(labelled.scan.shape[1:])
        boxes = [
            [[part.min(axis=0), part.max(axis=0)] for part in np.split(points, rows)]
            for points, rows in zip(self._atlas.carry(labelled.scan), self._rows, strict=True)
            if points is not None
        ]
        if not boxes:
            return {}
        answer = {}
        for name, box in zip(self._targets, np.mean(boxes, axis=0), strict=True):
            there = bool(inside(box.mean(axis=0), affine, shape))
            answer[name] = Box(name, box, "found" if there else "absent", float("nan"))
        return answer


def _center(scan: MetaTensor) -> Array:
    return np.asarray(box_of_scan(as_affine(scan.affine), tuple(scan.shape[1:])).mean(axis=0))
