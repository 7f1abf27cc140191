"""Train box agents on a user's own scans with masks or boxes: the whole recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medrl.bundles import save_guard
from medrl.data.targets import parse_target
from medrl.localization.calibrate import calibrate
from medrl.localization.data import LabelledScan, boxes_of, load_labelled, objects_of, read_datalist
from medrl.localization.guard import fit_guard
from medrl.localization.kinds import Objects
from medrl.localization.layout import Layout
from medrl.localization.learner import BoxLearner, LearnerSettings
from medrl.localization.model import BoxModel, ModelSettings
from medrl.localization.proposer_learner import ProposerLearner
from medrl.rl.checkpoint import load_module
from medrl.rl.jobs import Job, run_jobs
from medrl.rl.stage import checkpoint_folder, run_stage
from medrl.systems import Report
from medrl.volume.channels import parse_channel

if TYPE_CHECKING:
    from medrl.engines import Engine


@dataclass(frozen=True)
class TrainSettings:
    """The recipe.

    Attributes:
        name: Name of the model.
        modality: ``MR``, ``CT`` or ``any``; scans that plainly are the other will be refused.
        targets: What the values of masks are called, ``NAME=LABEL,LABEL,...``; as the datalist says
            if left out.
        channels: Images that the model looks at, ``NAME`` or ``NAME:INTENSITY`` with an intensity
            of ``relative`` (the default), ``hounsfield`` or ``suv``; one of any kind if left out.
        proposer_steps: Batches of the network that looks at the whole scan.
        imitation_steps: Batches of imitation of the network that walks.
        dqn_steps: Batches of DQN after that.
        model: What is trained.
        learner: How.
        device: Torch device.
        seed: Fixes every random choice.
        resume: Go on from the checkpoints in the output folder.
    """

    name: str = "my-boxes"
    modality: str = "any"
    targets: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    proposer_steps: int = 2400
    imitation_steps: int = 4000
    dqn_steps: int = 300
    model: ModelSettings = field(default_factory=ModelSettings)
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    device: str = "cpu"
    seed: int = 0
    resume: bool = False

    @property
    def known(self) -> ModelSettings:
        """Settings of the model, with what is said of it here.

        Raises:
            MedrlError: If a channel is not written as it should be.
        """
        channels = tuple(parse_channel(text) for text in self.channels)
        preprocessing = replace(
            self.model.preprocessing, channels=channels, spacing=self.model.spacings[0]
        )
        return replace(self.model, modality=self.modality, preprocessing=preprocessing)


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

    The network that looks at the whole scan and the one that walks are trained by themselves.
    Checkpoints are written to ``out/checkpoints`` and TensorBoard logs to ``out/logs``.

    Args:
        settings: The recipe.
        data: Datalist, see :func:`medrl.localization.data.read_datalist`. Only its training and
            validation scans are looked at.
        out: Output folder.
        card: Model card: what users should know of the data, the licence and the limits.
        report: Called now and then.
        engine: Where both networks are trained side by side, on one CPU thread each; None for this
            process, one after the other.

    Returns:
        The bundle's folder, ``out/<name>``.

    Raises:
        MedrlError: If the data or settings are unusable.
    """
    checkpoints = checkpoint_folder(out, resume=settings.resume)
    report = report or (lambda *_: None)
    known = settings.known
    samples = read_datalist(data, _targets(settings), known.channels)
    objects = objects_of(samples["training"])
    count = len(objects.targets)
    arguments = {"settings": settings, "data": data.absolute(), "logs": out.absolute() / "logs"}
    jobs = [Job(part, train_part, {**arguments, "part": part}) for part in ("walker", "proposer")]
    run_jobs(jobs, checkpoints, engine, report=report)

    walker, proposer = known.build_network(count), known.build_proposer(count)
    load_module(_checkpoint(checkpoints / "walker"), walker)
    load_module(_checkpoint(checkpoints / "proposer"), proposer)
    scans = load_labelled(samples["training"], objects, known.preprocessing)
    spacing = known.spacings[0]
    model = BoxModel(
        objects.targets,
        known,
        walker.eval(),
        proposer.eval(),
        _layout(scans, objects, spacing),
        kinds=objects.kinds,
    )
    if samples["validation"]:
        model = calibrate(
            model,
            load_labelled(samples["validation"], objects, known.preprocessing),
            augmentation=settings.learner.augmentation,
            seed=settings.seed,
            progress=lambda done, total: report("calibration", done, total, {}),
        )
    model = fit_guard(
        model,
        samples["training"],
        scans,
        augmentation=settings.learner.augmentation,
        seed=settings.seed,
        progress=lambda done, total: report("guard", done, total, {}),
    )
    return model.save(out / settings.name, name=settings.name, card=dict(card or {}))


def refit_guard(
    bundle: Path, *, data: Path, out: Path | None = None, report: Report | None = None
) -> Path:
    """See :meth:`medrl.systems.System.refit_guard`."""
    model, _ = BoxModel.load(bundle)
    samples = read_datalist(data, channels=model.settings.channels)["training"]
    scans = load_labelled(samples, objects_of(samples), model.settings.preprocessing)
    told = report or (lambda *_: None)
    guarded = fit_guard(
        model,
        samples,
        scans,
        augmentation=TrainSettings().learner.augmentation,
        progress=lambda done, total: told("guard", done, total, {}),
    )
    seen = {} if guarded.familiarity is None else guarded.familiarity.tensors()
    return save_guard(bundle, guarded.guard, seen, out=out)


def train_part(
    folder: Path, report: Report, *, settings: TrainSettings, part: str, data: Path, logs: Path
) -> None:
    """Train one of the two networks, from its checkpoint if there is one.

    Args:
        folder: For the checkpoint; named after the part.
        report: Called now and then.
        settings: The recipe.
        part: ``walker`` or ``proposer``.
        data: Datalist.
        logs: Folder for TensorBoard.
    """
    known = settings.known
    samples = read_datalist(data, _targets(settings), known.channels)["training"]
    scans = load_labelled(samples, objects_of(samples), known.preprocessing)
    learner: BoxLearner | ProposerLearner
    if part == "walker":
        learner = BoxLearner(
            scans,
            model=known,
            settings=settings.learner,
            imitation_steps=settings.imitation_steps,
            dqn_steps=settings.dqn_steps,
            seed=settings.seed,
            device=settings.device,
        )
    else:
        learner = ProposerLearner(
            scans,
            model=known,
            settings=settings.learner,
            steps=settings.proposer_steps,
            seed=settings.seed + 1000,
            device=settings.device,
        )
    run_stage(learner, _checkpoint(folder), logs=logs, resume=True, report=report)


def _targets(settings: TrainSettings) -> dict[str, tuple[int, ...]]:
    targets = [parse_target(text) for text in settings.targets]
    return {target.name: target.labels for target in targets}


def _checkpoint(folder: Path) -> Path:
    return folder / f"{folder.name}.safetensors"


def _layout(scans: list[LabelledScan], objects: Objects, spacing: float) -> Layout:
    """How targets lie to each other; nothing is known of those of a kind."""
    boxes = np.stack([boxes_of(scan.shapes).double().numpy() for scan in scans]) * spacing
    lie = np.full((len(boxes), len(objects.targets), 2, 3), np.nan)
    for row, target in enumerate(objects.target.tolist()):
        if objects.targets[target] not in objects.kinds:
            lie[:, target] = boxes[:, row]
    return Layout.fit(lie)
