"""The public faces and the learners as they are."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Generator

import medrl


def detect(scan: str) -> dict[str, Any]:
    """Landmarks of a scan."""
    found = _predictor("brain-t1").detect(scan).landmarks
    return {
        "names": [landmark.name for landmark in found],
        "positions": [landmark.position_world.tolist() for landmark in found],
        "status": [landmark.status for landmark in found],
        "confidence": [landmark.confidence for landmark in found],
    }


def segment(model: str, scans: dict[str, str], click: list[float], into: str) -> dict[str, Any]:
    """A mask from one click, and the seeds that the agent adds."""
    x, y, z = click
    found = _predictor(model).segment(scans, [f"fg:{x!r},{y!r},{z!r}"])
    np.savez_compressed(into, mask=found.mask.numpy())
    placed = [seed for seed in found.seeds if seed.who == "agent"]
    return {
        "mask": into,
        "seeds": [[*seed.points_world[0].tolist(), seed.label] for seed in placed],
    }


def register(fixed: str, moving: str) -> dict[str, Any]:
    """The transform between two scans."""
    found = _predictor("rigid-head").register(fixed, moving)
    return {
        "transform": found.transform_world.tolist(),
        "confidence": float(found.confidence),
    }


def learner(name: str, data: dict[str, Any]) -> Any:
    """A learner of a system on a few scans."""
    system, kind = name.split(" ")
    make = {"landmark": _landmark, "seednet": _seednet, "registration": _registration}[system]
    return make(kind, data[system])


@cache
def _predictor(model: str) -> Any:
    return medrl.load(model)


def _landmark(kind: str, data: dict[str, Any]) -> Any:
    from medrl.landmark.data import Sample, load_labelled
    from medrl.landmark.learner import LearnerSettings, ScaleLearner
    from medrl.volume.prepare import Preprocessing

    names = sorted(data[0]["points"])
    cases = [
        Sample(Path(one["image"]), {n: np.array(p) for n, p in one["points"].items()})
        for one in data
    ]
    settings = LearnerSettings(slots=6, agents=64, batch=64)
    imitation, dqn = (10_000, 0) if kind == "imitation" else (0, 10_000)
    return ScaleLearner(
        load_labelled(cases, names, Preprocessing(spacing=settings.spacings[0])),
        level=1,
        settings=settings,
        imitation_steps=imitation,
        dqn_steps=dqn,
        seed=0,
    )


def _seednet(kind: str, data: dict[str, Any]) -> Any:
    from medrl.bundles import find
    from medrl.seednet.data import Sample, load_labelled
    from medrl.seednet.learner import AgentLearner, AgentSettings
    from medrl.seednet.model import SeedModel
    from medrl.seednet.perception import PerceptionLearner, PerceptionSettings
    from medrl.seednet.sampling import Sampler, Sampling

    model, _ = SeedModel.load(find("hippocampus-t1"))
    cases = [Sample({"MR": Path(one["image"])}, Path(one["label"])) for one in data]
    settings = model.settings
    grids = load_labelled(
        cases, channels=settings.channels, targets=settings.targets, spacing=settings.spacing
    )
    generator = Generator().manual_seed(0)
    sampler = Sampler(grids, Sampling(window=(32, 48, 40)), generator)
    if kind == "perception":
        return PerceptionLearner(
            model.network, sampler, PerceptionSettings(steps=10_000), generator=generator
        )
    agent = AgentSettings(imitation_steps=8, dqn_steps=10_000)
    return AgentLearner(model, sampler, agent, generator=generator)


def _registration(kind: str, data: dict[str, Any]) -> Any:
    from medrl.registration.actor_critic import ActorCriticLearner, ActorCriticSettings
    from medrl.registration.data import load_sources
    from medrl.registration.imitation import ImitationLearner, ImitationSettings
    from medrl.registration.model import COARSE, FINE
    from medrl.registration.network import RegistrationNetwork
    from medrl.registration.pairs import PairSampler, PoseDistribution
    from medrl.registration.synthesis import Synthesis

    generator = Generator().manual_seed(0)
    network = RegistrationNetwork(COARSE)
    pairs = PairSampler(
        load_sources([Path(one["image"]) for one in data], spacing=FINE.spacing, seed=0),
        COARSE,
        working=FINE.spacing,
        synthesis=Synthesis(),
        poses=PoseDistribution(),
        size=16,
        generator=generator,
    )
    if kind == "imitation":
        settings = ImitationSettings(steps=10_000, batch=48)
        return ImitationLearner(network, pairs, settings, generator=generator)
    settings = ActorCriticSettings(steps=10_000)
    return ActorCriticLearner(network, pairs, settings, generator=generator)
