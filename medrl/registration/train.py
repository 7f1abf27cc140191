"""Train registration agents on a user's own scans: the whole recipe."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from medrl.agents import rollout
from medrl.errors import MedrlError
from medrl.registration.actor_critic import ActorCriticLearner, ActorCriticSettings
from medrl.registration.calibrate import calibrate
from medrl.registration.data import load_sources, read_datalist
from medrl.registration.dynamics import Rules
from medrl.registration.imitation import ImitationLearner, ImitationSettings
from medrl.registration.model import COARSE, FINE, ModelSettings, RegistrationModel
from medrl.registration.network import LevelSettings, RegistrationNetwork
from medrl.registration.pairs import PairSampler, PoseDistribution
from medrl.registration.search import NetworkPolicy, SearchSettings
from medrl.registration.synthesis import Source, Synthesis
from medrl.rl.stage import Progress, checkpoint_folder, run_stage

#: Agents and steps that decide whether reinforcement learning was worth it.
_COMPARED = 256
_COMPARED_STEPS = 8


@dataclass(frozen=True)
class TrainSettings:
    """The recipe.

    Attributes:
        name: Name of the model.
        synthesis: How pairs are made from single scans.
        coarse: Misalignments that agents of the coarse level learn from.
        fine: Those of the fine level.
        imitation: Learning from the expert's steps.
        reinforcement: Learning from whole walks after that.
        threads: CPU threads; registration agents are trained on the CPU.
        seed: Fixes every random choice.
        resume: Go on from the checkpoints in the output folder.
    """

    name: str = "my-registration"
    synthesis: Synthesis = field(default_factory=Synthesis)
    coarse: PoseDistribution = field(default_factory=PoseDistribution)
    fine: PoseDistribution = field(
        default_factory=lambda: PoseDistribution(turn=25.0, shift=20.0, near=0.3, far=0.3)
    )
    imitation: ImitationSettings = field(default_factory=ImitationSettings)
    reinforcement: ActorCriticSettings = field(default_factory=ActorCriticSettings)
    threads: int = 2
    seed: int = 0
    resume: bool = False


def train(
    settings: TrainSettings,
    *,
    data: Path,
    out: Path,
    card: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a model and save it as a bundle.

    For each level the network learns to imitate, then from its own walks; of both the one that ends
    nearer on validation pairs is kept. Then the confidence is fitted on validation scans.
    Checkpoints are written to ``out/checkpoints`` and TensorBoard logs to ``out/logs``.

    Args:
        settings: The recipe.
        data: Datalist, see :func:`medrl.registration.data.read_datalist`. Only its training and
            validation scans are looked at.
        out: Output folder.
        card: Model card: what users should know of the data, the licence and the limits.
        progress: Called now and then.

    Returns:
        The bundle's folder, ``out/<name>``.

    Raises:
        MedrlError: If the data or settings are unusable.
    """
    checkpoint_folder(out, resume=settings.resume)
    scans = read_datalist(data)
    if not scans["validation"]:
        raise MedrlError(f'{data} has no "validation" scans: the confidence is fitted on them')
    report = progress or (lambda *_: None)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)

    def load(split: str) -> list[Source]:
        return load_sources(
            scans[split],
            spacing=FINE.spacing,
            seed=settings.seed,
            progress=lambda done, total: report(f"reading {split}", done, total, {}),
        )

    sources = {split: load(split) for split in ("training", "validation")}
    out.mkdir(parents=True, exist_ok=True)
    levels = (("fine", FINE, settings.fine), ("coarse", COARSE, settings.coarse))
    trained = [
        _train_level(name, level, poses, sources, settings, out=out, report=report)
        for name, level, poses in levels
    ]
    networks = tuple(network.eval() for network, _ in trained)
    search = SearchSettings(memory=tuple(remembers for _, remembers in trained))
    model = RegistrationModel(
        ModelSettings(levels=tuple(network.settings for network in networks), search=search),
        networks,
    )
    model = calibrate(
        model,
        scans["validation"],
        seed=settings.seed,
        progress=lambda done, total: report("confidence", done, total, {}),
    )
    return model.save(out / settings.name, name=settings.name, card=dict(card or {}))


def _train_level(
    name: str,
    level: LevelSettings,
    poses: PoseDistribution,
    sources: Mapping[str, list[Source]],
    settings: TrainSettings,
    *,
    out: Path,
    report: Progress,
) -> tuple[RegistrationNetwork, bool]:
    """Both stages of one level; whether the second was worth it."""
    generator = Generator().manual_seed(settings.seed)
    network = RegistrationNetwork(level)

    def sampler(split: str, size: int, source: Generator, **changes: float) -> PairSampler:
        return PairSampler(
            sources[split],
            level,
            working=FINE.spacing,
            synthesis=settings.synthesis,
            poses=replace(poses, **changes),
            size=size,
            generator=source,
        )

    def run(learner: ImitationLearner | ActorCriticLearner, stage: str) -> None:
        run_stage(
            learner,
            out / "checkpoints" / f"{name}-{stage}.safetensors",
            logs=out / "logs",
            resume=settings.resume,
            report=report,
        )

    pairs = sampler("training", settings.imitation.pairs, generator)
    run(ImitationLearner(network, pairs, settings.imitation, generator=generator), "imitation")
    imitated = copy.deepcopy(network)

    pairs = sampler("training", settings.reinforcement.pairs, generator, resize=0.0)
    reinforced = ActorCriticLearner(network, pairs, settings.reinforcement, generator=generator)
    run(reinforced, "reinforcement")

    others = sampler("validation", 32, Generator().manual_seed(settings.seed + 1), resize=0.0)
    before, after = compare(others, [(imitated, False), (network, True)], seed=settings.seed)
    report(f"{name} walks", 1, 1, {"imitation": before, "reinforcement": after})
    return (network, True) if after < before else (imitated, False)


def compare(
    sampler: PairSampler, networks: Sequence[tuple[RegistrationNetwork, bool]], *, seed: int
) -> list[float]:
    """Mean log(1 + mm) at the end of the same episodes for each network.

    Args:
        sampler: Where agents begin.
        networks: Networks, and whether their agents remember.
        seed: Fixes pairs and poses.
    """
    rules = Rules(kind="affine", max_steps=_COMPARED_STEPS)
    env, task = sampler.begin(_COMPARED, seed=seed, rules=rules)
    found = []
    for network, remembers in networks:
        policy = NetworkPolicy(network.eval(), remembers=remembers)
        ended = rollout(env.dynamics, policy, env.state)
        found.append(float(task.distance(ended.state).log1p().mean()))
    return found
