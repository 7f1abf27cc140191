"""Making confidence mean something: fit it on scans that the networks have not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from medrl.data.augment import Augmentation, changed_copies
from medrl.landmark.confidence import Confidence
from medrl.landmark.data import LabelledScan
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.judging import Model


def calibrate(
    model: Model,
    scans: Sequence[LabelledScan],
    *,
    augmentation: Augmentation,
    repeats: int = 12,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Fit the confidence on changed copies of validation scans.

    Args:
        model: Trained agents, or a part detector.
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
    features, errors = [], []
    for scan, points in changed_copies(
        scans, augmentation, spacing=spacing, repeats=repeats, seed=seed, progress=progress
    ):
        found = detector.candidates(scan)
        error = np.linalg.norm(found.positions_world - points.numpy() * spacing, axis=1)
        judged = np.array([s != "absent" for s in found.status]) & ~np.isnan(error)
        features.append(found.features[judged])
        errors.append(error[judged])
    confidence = Confidence.fit(
        np.concatenate(features), np.concatenate(errors), good_mm=model.settings.good_mm
    )
    return replace(model, confidence=confidence)
