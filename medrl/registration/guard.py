"""What registration agents were trained on: measured, so that they can tell what is unlike it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from medrl.bundles import Guard, Training
from medrl.nets.familiarity import Familiarity
from medrl.registration.data import load_sources
from medrl.registration.dynamics import Rules
from medrl.registration.model import RegistrationModel
from medrl.registration.pairs import PairSampler, PoseDistribution
from medrl.registration.synthesis import Synthesis
from medrl.volume.appearance import appearance
from medrl.volume.read import read

#: More training scans than this tell nothing new.
_MOST_SCANS = 200
#: Pairs on each level, and how often each of them is looked at.
_PAIRS, _VIEWS = 96, 6
#: Pairs that are in memory at a time.
_AT_A_TIME = 48
#: Share of scans that lie in any orientation.
_ANY_WAY = 0.3
#: Share of training's views, the strangest of which no scanner makes, that is taken for usual.
_USUAL = 0.97
#: How much stranger another pair may look: a head on a brain without its skull, which no pair of
#: training is, looks three times as strange.
_ROOM = 4.0
#: Smallest part of a field of view that agents have seen.
_LEAST_VIEW = 0.4


def fit_guard(
    model: RegistrationModel,
    scans: Sequence[Path],
    *,
    synthesis: Synthesis,
    poses: PoseDistribution,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> RegistrationModel:
    """Measure the training scans, and what the networks see of pairs that lie on each other.

    Args:
        model: Trained agents; they do not change.
        scans: Training scans.
        synthesis: How pairs are made of them.
        poses: How they lie, and what of them is in view.
        seed: Fixes pairs and poses.
        progress: Called with the pairs done and their number.

    Returns:
        The same model with its guard.

    Raises:
        MedrlError: If a scan cannot be read.
    """
    scans = list(scans)[:_MOST_SCANS]
    training = Training.fit(
        [appearance(read(scan)) for scan in scans], least_view=_LEAST_VIEW, unit="any"
    )
    sources = load_sources(scans, spacing=model.settings.spacings[0], seed=seed)
    rounds, familiar = _PAIRS // _AT_A_TIME, []
    for number, (level, network) in enumerate(
        zip(model.settings.levels, model.networks, strict=True)
    ):
        generator = Generator().manual_seed(seed + number)
        sampler = PairSampler(
            sources,
            level,
            working=model.settings.spacings[0],
            synthesis=synthesis,
            poses=replace(poses, fixed_any=_ANY_WAY),
            size=_AT_A_TIME,
            generator=generator,
            device=model.device,
        )
        features, pairs = [], []
        for turn in range(rounds * _VIEWS):
            if turn and turn % _VIEWS == 0:
                sampler.renew(_AT_A_TIME)
            _, task = sampler.begin(_AT_A_TIME, seed=seed + turn, rules=Rules(max_steps=1))
            every = torch.arange(_AT_A_TIME, device=model.device)
            lying = torch.eye(4, dtype=torch.float64, device=model.device).expand(len(every), 4, 4)
            with torch.inference_mode():
                seen = network.encode(task.dynamics.look(0, every, lying))
            features.append(seen.double().numpy(force=True))
            which = task.dynamics.views[0].scan
            assert which is not None  # the sampler names the pair of each agent
            pairs.append(which.numpy(force=True) + turn // _VIEWS * _AT_A_TIME)
            if progress is not None:
                done = number * rounds * _VIEWS + turn + 1
                progress(done, len(model.networks) * rounds * _VIEWS)
        values, pair = np.concatenate(features), np.concatenate(pairs)
        known = Familiarity.fit(
            values,
            np.zeros(len(values), dtype=np.int64),
            kinds=1,
            whole=np.arange(len(values)),
            scan=pair,
            usual=_USUAL,
            room=_ROOM,
        )
        assert known is not None  # there are pairs enough
        familiar.append(known)
    return replace(model, guard=Guard((training,)), familiarity=tuple(familiar))
