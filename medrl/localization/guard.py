"""What box agents were trained on: measured, so that they can tell what is unlike it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.bundles import Guard, Training
from medrl.data.augment import Augmentation, changed_copies
from medrl.localization.data import LabelledScan, Sample
from medrl.localization.localize import Localizer
from medrl.localization.model import BoxModel, ModelSettings
from medrl.nets.familiarity import Familiarity
from medrl.volume.appearance import appearance
from medrl.volume.read import read

#: More training scans than this tell nothing new.
_MOST_SCANS = 100
#: Training cuts a scan to this share of a side at least.
_LEAST_VIEW = 0.4


def fit_guard(
    model: BoxModel,
    samples: Sequence[Sample],
    scans: Sequence[LabelledScan],
    *,
    augmentation: Augmentation,
    repeats: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> BoxModel:
    """Measure the training scans, and what the network sees in the boxes that it finds in them.

    Args:
        model: Trained agents; they do not change.
        samples: Training scans.
        scans: The same on the model's grid.
        augmentation: How the agents' training scans were changed.
        repeats: Copies of each scan.
        seed: Of the changes.
        progress: Called with the copies done and their number.

    Returns:
        The same model with its guard.
    """
    settings = model.settings
    localizer = Localizer(replace(model, guard=None, familiarity=None))
    features, kinds, owners = [], [], []
    chosen = scans[:_MOST_SCANS]
    copies = changed_copies(
        chosen,
        augmentation,
        spacing=settings.spacings[0],
        repeats=repeats,
        seed=seed,
        progress=progress,
    )
    for number, (scan, _) in enumerate(copies):
        found = localizer.find(scan, normalized=bool(settings.channels))
        features.append(found.encoded[found.there])
        kinds.append(found.target[found.there])
        owners.append(np.full(len(kinds[-1]), number))
    some = [rows for rows in features if len(rows)]
    familiarity = None
    if some:
        owner = np.concatenate(owners)
        familiarity = Familiarity.fit(
            np.concatenate(some),
            np.concatenate(kinds),
            kinds=len(model.names),
            whole=owner,
            scan=owner % len(chosen),
        )
    guard = Guard(_training(samples, scans, settings))
    return replace(model, guard=guard, familiarity=familiarity)


def _training(
    samples: Sequence[Sample], scans: Sequence[LabelledScan], settings: ModelSettings
) -> tuple[Training, ...]:
    """What the training scans of every channel are like.

    Where several images are looked at, how large what they show is tells nothing: they may have
    been cut out around anything.
    """
    if not settings.channels:
        affine = torch.diag(torch.tensor([settings.spacings[0]] * 3 + [1.0], dtype=torch.float64))
        looks = [appearance(MetaTensor(scan.volume, affine=affine)) for scan in scans]
        return (Training.fit(looks, least_view=_LEAST_VIEW),)
    found = []
    for name in (channel.name for channel in settings.channels):
        looks = [appearance(read(sample.images[name])) for sample in samples]
        own = Training.fit(looks, channel=name, bounded=False, least_view=_LEAST_VIEW)
        found.append(own)
    return tuple(found)
