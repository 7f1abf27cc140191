"""Making confidence mean something: fit it on scans that the networks have not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.data.augment import Augmentation, augment
from medrl.landmark.confidence import Confidence
from medrl.landmark.data import LabelledScan
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.model import LandmarkModel


def calibrate(
    model: LandmarkModel,
    scans: Sequence[LabelledScan],
    *,
    augmentation: Augmentation,
    repeats: int = 12,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LandmarkModel:
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
    detector = LandmarkDetector(replace(model, confidence=None))
    spacing = model.settings.spacings[0]
    affine = torch.diag(torch.tensor([spacing] * 3 + [1.0], dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    features, errors = [], []
    total = repeats * len(scans)
    for number in range(total):
        scan = scans[number % len(scans)]
        volume, points = scan.volume, scan.points_voxel
        if number // len(scans) % 3:
            volume, points = augment(volume, points, augmentation, generator)
        found = detector.candidates(MetaTensor(volume, affine=affine))
        error = np.linalg.norm(found.positions_world - points.numpy() * spacing, axis=1)
        judged = np.array([s != "absent" for s in found.status]) & ~np.isnan(error)
        features.append(found.features[judged])
        errors.append(error[judged])
        if progress is not None:
            progress(number + 1, total)
    confidence = Confidence.fit(np.concatenate(features), np.concatenate(errors))
    return replace(model, confidence=confidence)
