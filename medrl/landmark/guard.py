"""What landmark agents were trained on: measured, so that they can tell what is unlike it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.bundles import Guard, Training
from medrl.data.augment import Augmentation, augment
from medrl.landmark.data import LabelledScan
from medrl.landmark.inference import around
from medrl.landmark.judging import Model
from medrl.landmark.model import LandmarkModel
from medrl.nets.familiarity import Familiarity
from medrl.volume.appearance import appearance
from medrl.volume.pyramid import build_pyramid

#: More training scans than this tell nothing new.
_MOST_SCANS = 200


def fit_guard(
    model: Model,
    scans: Sequence[LabelledScan],
    *,
    augmentation: Augmentation,
    repeats: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Measure the training scans, and what the finest network sees around their landmarks.

    Args:
        model: Trained agents, or a part detector; they do not change.
        scans: Training scans.
        augmentation: How the agents' training scans were changed.
        repeats: Copies of each scan, the first of which is left as it is.
        seed: Of the changes.
        progress: Called with the copies done and their number.

    Returns:
        The same model with its guard.
    """
    scans = scans[:_MOST_SCANS]
    spacing = model.settings.spacings[0]
    affine = torch.diag(torch.tensor([spacing] * 3 + [1.0], dtype=torch.float64))
    agents = model if isinstance(model, LandmarkModel) else None
    finest = None if agents is None else agents.networks[0].for_inference()
    generator = torch.Generator().manual_seed(seed)
    looks, features, kinds, owners = [], [], [], []
    total = repeats * len(scans)
    for number in range(total):
        scan = scans[number % len(scans)]
        volume, points = scan.volume, scan.points_voxel
        if number >= len(scans):
            volume, points = augment(volume, points, augmentation, generator, tissues=scan.tissues)
        posed = MetaTensor(volume, affine=affine)
        looks.append(appearance(posed))
        shape = torch.tensor(volume.shape[1:])
        inside = ((points >= 0) & (points <= shape - 1)).all(dim=1)
        kind = inside.nonzero()[:, 0].numpy()
        if len(kind) and agents is not None and finest is not None:
            prepared = model.settings.preprocessing(posed)
            pyramid = build_pyramid(prepared, spacings=model.settings.spacings)
            dynamics = agents.dynamics([pyramid.to(next(finest.parameters()).device)])
            world = points[inside].double().numpy() * spacing
            features.append(around(dynamics, finest, 0, world))
            kinds.append(kind)
            owners.append(np.full(len(kind), number))
        if progress is not None:
            progress(number + 1, total)
    unit = "any" if augmentation.contrast_probability else None
    training = Training.fit(looks[: len(scans)], changed=looks[len(scans) :], unit=unit)
    familiarity = None
    if features:
        every, kind, owner = map(np.concatenate, (features, kinds, owners))
        familiarity = Familiarity.fit(
            every, kind, kinds=len(model.names), whole=owner, scan=owner % len(scans)
        )
    return replace(model, guard=Guard((training,)), familiarity=familiarity)
