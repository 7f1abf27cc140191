"""Train cutting agents on a user's own scans or films with masks: the whole recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.bundles import find
from medrl.cutting.data import load_sources, read_datalist
from medrl.cutting.learner import CutLearner, LearnerSettings
from medrl.cutting.model import CutModel, ModelSettings
from medrl.cutting.policy_learner import PolicyLearner
from medrl.errors import MedrlError
from medrl.rl.stage import checkpoint_folder, reproducible, run_stage
from medrl.systems import Report

if TYPE_CHECKING:
    from medrl.engines import Engine


@dataclass(frozen=True)
class TrainSettings:
    """The recipe.

    Attributes:
        name: Name of the model.
        start: Name or folder of a model of the same settings whose networks the training begins
            with; at random if left out.
        cut_steps: Batches of the network that cuts.
        policy_steps: Batches of the network that decides, after that.
        threads: CPU threads; the bits of a training depend on them.
        model: What is trained.
        learner: How.
        device: Torch device.
        seed: Fixes every random choice.
        resume: Go on from the checkpoints in the output folder.
    """

    name: str = "my-cutter"
    start: str | None = None
    cut_steps: int = 6000
    policy_steps: int = 1200
    threads: int = 1
    model: ModelSettings = field(default_factory=ModelSettings)
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    device: str = "cpu"
    seed: int = 0
    resume: bool = False


def train(
    settings: TrainSettings,
    *,
    data: Path,
    out: Path,
    card: Mapping[str, Any] | None = None,
    report: Report | None = None,
    engine: Engine | None = None,
) -> Path:
    """Train a model and save it as a bundle.

    What cuts is trained first, then fixed, and what decides learns with it (Han et al. 2018).
    Checkpoints are written to ``out/checkpoints`` and TensorBoard logs to ``out/logs``.

    Args:
        settings: The recipe.
        data: Datalist, see :func:`medrl.cutting.data.read_datalist`. Only its training scans are
            looked at.
        out: Output folder.
        card: Model card: what users should know of the data, the licence and the limits.
        report: Called now and then.
        engine: Not used: both stages need each other.

    Returns:
        The bundle's folder, ``out/<name>``.

    Raises:
        MedrlError: If the data or settings are unusable.
    """
    checkpoints = checkpoint_folder(out, resume=settings.resume)
    checkpoints.mkdir(parents=True, exist_ok=True)
    told = report or (lambda *_: None)
    samples = read_datalist(data)
    sources = load_sources(
        samples["training"], lambda done, total: told("reading", done, total, {})
    )
    with reproducible(settings.seed, threads=settings.threads):
        cutter = CutLearner(
            sources,
            model=settings.model,
            settings=settings.learner,
            steps=settings.cut_steps,
            seed=settings.seed,
            device=settings.device,
        )
        begun = None if settings.start is None else CutModel.load(find(settings.start))[0]
        if begun is not None:
            if replace(begun.settings, modality="") != replace(settings.model, modality=""):
                raise MedrlError(f"{settings.start} is a model of other settings")
            cutter.network.load_state_dict(begun.network.state_dict())
        run_stage(
            cutter,
            checkpoints / "cut.safetensors",
            logs=out.absolute() / "logs",
            resume=settings.resume,
            report=told,
        )
        learner = PolicyLearner(
            cutter.network,
            sources,
            model=settings.model,
            settings=settings.learner,
            steps=settings.policy_steps,
            seed=settings.seed + 1,
            device=settings.device,
        )
        if begun is not None:
            learner.network.load_state_dict(begun.policy.state_dict())
        run_stage(
            learner,
            checkpoints / "policy.safetensors",
            logs=out.absolute() / "logs",
            resume=settings.resume,
            report=told,
        )
    model = CutModel(settings.model, cutter.network.eval(), learner.network.eval())
    return model.save(out / settings.name, name=settings.name, card=dict(card or {}))
