"""Making confidence mean something: fit it on scans that the networks have not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from medrl.data.augment import Augmentation, changed_copies
from medrl.errors import MedrlError
from medrl.evaluation import LogisticRegression
from medrl.localization.answer import GOOD_IOU
from medrl.localization.data import LabelledScan, boxes_of
from medrl.localization.kinds import nearest
from medrl.localization.localize import Localizer
from medrl.localization.model import BoxModel
from medrl.volume.boxes import cut_to_scan, iou
from medrl.volume.space import as_affine

Array = NDArray[np.float64]

#: A candidate is right when its agent sees a box that overlaps the true one by this much.
_RIGHT_IOU = 0.5


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
        The same model with its judge of candidates, and its confidence in what comes of them.

    Raises:
        MedrlError: If the agents find nothing at all.
    """
    spacing, normalized = model.settings.spacings[0], bool(model.settings.channels)

    def copies(half: int) -> Iterator[tuple[MetaTensor, Tensor]]:
        def share(done: int, total: int) -> None:
            if progress is not None:
                progress(half * total + done, 2 * total)

        for scan, points in changed_copies(
            scans, augmentation, spacing=spacing, repeats=repeats, seed=seed + half, progress=share
        ):
            shapes = points.view(scans[0].shapes.shape)
            yield scan, boxes_of(shapes).double()

    def goals(truth: Tensor, wanted: Tensor, boxes: Tensor) -> Array:
        own = truth[None].expand(len(wanted), -1, -1, -1)
        return nearest(own, scans[0].target, wanted.cpu(), boxes.cpu()).numpy()

    localizer = Localizer(replace(model, plausible=None, confidence=None))
    features, good = [], []
    for scan, truth in copies(0):
        dynamics = localizer.dynamics(scan, normalized=normalized)
        found, seen, said = localizer.candidates(dynamics)
        own = goals(truth, found.target, seen)
        features.append(said)
        good.append(np.nan_to_num(iou(seen.numpy(force=True), own)) >= _RIGHT_IOU)
    plausible = LogisticRegression.fit(np.concatenate(features), np.concatenate(good))
    model = replace(model, plausible=plausible, confidence=None)

    localizer = Localizer(model)
    features, good = [], []
    for scan, truth in copies(1):
        answer = localizer.find(scan, normalized=normalized)
        affine, shape = as_affine(scan.affine), tuple(scan.shape[1:])
        told_voxel = torch.from_numpy(answer.boxes_world / spacing)
        own = goals(truth, torch.from_numpy(answer.target), told_voxel) * spacing
        for k in np.flatnonzero(answer.there):
            boxes = (answer.boxes_world[k], own[k])
            told, true = (
                None if np.isnan(box).any() else cut_to_scan(box, affine, shape) for box in boxes
            )
            features.append(answer.features[k])
            right = told is not None and true is not None and iou(told, true) >= GOOD_IOU
            good.append(np.array(right))
    if not features:
        raise MedrlError("the agents find nothing in any validation scan: train them longer")
    return replace(model, confidence=LogisticRegression.fit(np.stack(features), np.array(good)))
