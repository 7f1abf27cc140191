"""Making confidence mean something: fit it on scans that the networks have not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.data.augment import Augmentation, augment
from medrl.evaluation import LogisticRegression
from medrl.localization.answer import GOOD_IOU
from medrl.localization.data import LabelledScan, boxes_of
from medrl.localization.localize import Localizer
from medrl.localization.model import BoxModel
from medrl.volume.boxes import iou


def calibrate(
    model: BoxModel,
    scans: Sequence[LabelledScan],
    *,
    augmentation: Augmentation,
    repeats: int = 12,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> BoxModel:
    """Fit the confidence on changed copies of validation scans.

    Args:
        model: Trained agents.
        scans: Validation scans.
        augmentation: How they are changed; every third copy is left as it is.
        repeats: Copies of each scan.
        seed: Of the changes.
        progress: Called with the copies done and their number.

    Returns:
        The same model with its confidence.
    """
    localizer = Localizer(replace(model, confidence=None))
    spacing = model.settings.spacings[0]
    affine = torch.diag(torch.tensor([spacing] * 3 + [1.0], dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    features, good = [], []
    total = repeats * len(scans)
    for number in range(total):
        scan = scans[number % len(scans)]
        volume, points = scan.volume, scan.points_voxel
        if number // len(scans) % 3:
            volume, points = augment(volume, points, augmentation, generator)
        found = localizer.find(MetaTensor(volume, affine=affine))
        truth = boxes_of(points.view(scan.shapes.shape)).double().numpy() * spacing
        features.append(found.features[found.there])
        overlap = iou(found.boxes_world[found.there], truth[found.there])
        good.append(np.nan_to_num(overlap) >= GOOD_IOU)
        if progress is not None:
            progress(number + 1, total)
    confidence = LogisticRegression.fit(np.concatenate(features), np.concatenate(good))
    return replace(model, confidence=confidence)
