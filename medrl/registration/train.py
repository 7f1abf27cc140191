"""Train registration agents on a user's own scans: the whole recipe."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Generator

from medrl.agents import rollout
from medrl.bundles import save_guard
from medrl.errors import MedrlError
from medrl.registration.actor_critic import ActorCriticLearner, ActorCriticSettings
from medrl.registration.calibrate import calibrate
from medrl.registration.data import load_sources, read_datalist
from medrl.registration.dynamics import Rules
from medrl.registration.guard import fit_guard
from medrl.registration.imitation import ImitationLearner, ImitationSettings
from medrl.registration.model import COARSE, FINE, ModelSettings, RegistrationModel
from medrl.registration.network import LevelSettings, RegistrationNetwork
from medrl.registration.pairs import PairSampler, PoseDistribution
from medrl.registration.search import NetworkPolicy, SearchSettings
from medrl.registration.synthesis import Synthesis
from medrl.rl.checkpoint import load_module
from medrl.rl.jobs import Job, run_jobs
from medrl.rl.stage import Progress, checkpoint_folder, reproducible, run_stage

if TYPE_CHECKING:
    from medrl.engines import Engine

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
        threads: CPU threads of each level.
        device: Torch device.
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
    device: str = "cpu"
    seed: int = 0
    resume: bool = False


def train(
    settings: TrainSettings,
    *,
    data: Path,
    out: Path,
    card: Mapping[str, Any] | None = None,
    report: Progress | None = None,
    engine: Engine | None = None,
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
        report: Called now and then.
        engine: Where levels are trained side by side; None for this process, one after the other.

    Returns:
        The bundle's folder, ``out/<name>``.

    Raises:
        MedrlError: If the data or settings are unusable.
    """
    checkpoints = checkpoint_folder(out, resume=settings.resume)
    scans = read_datalist(data)
    if not scans["validation"]:
        raise MedrlError(f'{data} has no "validation" scans: the confidence is fitted on them')
    report = report or (lambda *_: None)
    arguments = {"settings": settings, "data": data.absolute(), "logs": out.absolute() / "logs"}
    levels = {"fine": (FINE, settings.fine), "coarse": (COARSE, settings.coarse)}
    jobs = [
        Job(name, train_level, {**arguments, "level": level, "poses": poses})
        for name, (level, poses) in levels.items()
    ]
    kept = run_jobs(jobs, checkpoints, engine, threads=settings.threads, report=report)

    networks = []
    for name, (level, _) in levels.items():
        network = RegistrationNetwork(level)
        load_module(_checkpoint(checkpoints / name, kept[name]), network)
        networks.append(network.eval().to(settings.device))
    search = SearchSettings(memory=tuple(kept[name] == "reinforcement" for name in levels))
    model = RegistrationModel(
        ModelSettings(levels=tuple(level for level, _ in levels.values()), search=search),
        tuple(networks),
    )
    model = calibrate(
        model,
        scans["validation"],
        seed=settings.seed,
        progress=lambda done, total: report("confidence", done, total, {}),
    )
    model = _guarded(model, scans["training"], settings, report)
    return model.save(out / settings.name, name=settings.name, card=dict(card or {}))


def refit_guard(
    bundle: Path, *, data: Path, out: Path | None = None, report: Progress | None = None
) -> Path:
    """See :meth:`medrl.systems.System.refit_guard`."""
    model, _ = RegistrationModel.load(bundle)
    scans = read_datalist(data)["training"]
    guarded = _guarded(model, scans, TrainSettings(), report or (lambda *_: None))
    return save_guard(bundle, guarded.guard, guarded.familiar_tensors(), out=out)


def _guarded(
    model: RegistrationModel, scans: Sequence[Path], settings: TrainSettings, report: Progress
) -> RegistrationModel:
    """The model with a guard, fitted on training scans."""
    return fit_guard(
        model,
        scans,
        synthesis=settings.synthesis,
        poses=settings.coarse,
        seed=settings.seed,
        progress=lambda done, total: report("guard", done, total, {}),
    )


def train_level(
    folder: Path,
    report: Progress,
    *,
    settings: TrainSettings,
    level: LevelSettings,
    poses: PoseDistribution,
    data: Path,
    logs: Path,
) -> str:
    """Both stages of one level, from their checkpoints if there are some.

    Args:
        folder: For the checkpoints; named after the level.
        report: Called now and then.
        settings: The recipe.
        level: What agents look at.
        poses: Misalignments to learn from.
        data: Datalist.
        logs: Folder for TensorBoard.

    Returns:
        The stage whose network is the better one: ``imitation`` or ``reinforcement``.
    """
    name, device = folder.name, settings.device
    scans = read_datalist(data)
    sources = {
        split: load_sources(
            scans[split],
            spacing=FINE.spacing,
            seed=settings.seed,
            progress=partial(_reading, report, split),
        )
        for split in ("training", "validation")
    }

    def sampler(split: str, size: int, source: Generator, **changes: float) -> PairSampler:
        return PairSampler(
            sources[split],
            level,
            working=FINE.spacing,
            synthesis=settings.synthesis,
            poses=replace(poses, **changes),
            size=size,
            generator=source,
            device=device,
        )

    run = partial(run_stage, logs=logs, resume=True, report=report)
    with reproducible(settings.seed, threads=settings.threads):
        generator = Generator().manual_seed(settings.seed)
        network = RegistrationNetwork(level).to(device)
        pairs = sampler("training", settings.imitation.pairs, generator)
        imitation = ImitationLearner(
            network, pairs, settings.imitation, generator=generator, device=device
        )
        run(imitation, _checkpoint(folder, "imitation"))
        imitated = copy.deepcopy(network)

        pairs = sampler("training", settings.reinforcement.pairs, generator, resize=0.0)
        reinforcement = ActorCriticLearner(
            network, pairs, settings.reinforcement, generator=generator, device=device
        )
        run(reinforcement, _checkpoint(folder, "reinforcement"))

        other = Generator().manual_seed(settings.seed + 1)
        others = sampler("validation", 32, other, resize=0.0)
        before, after = compare(others, [(imitated, False), (network, True)], seed=settings.seed)
    report(f"{name} walks", 1, 1, {"imitation": before, "reinforcement": after})
    return "reinforcement" if after < before else "imitation"


def _checkpoint(folder: Path, stage: str) -> Path:
    return folder / f"{folder.name}-{stage}.safetensors"


def _reading(report: Progress, split: str, done: int, total: int) -> None:
    report(f"reading {split}", done, total, {})


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
