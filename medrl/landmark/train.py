"""Train landmark agents on a user's own scans and points: the whole recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medrl.bundles import save_guard
from medrl.errors import MedrlError
from medrl.landmark.calibrate import calibrate
from medrl.landmark.data import (
    Sample,
    landmark_names,
    load_labelled,
    points_array,
    read_datalist,
)
from medrl.landmark.frame import (
    Frame,
    Kind,
    PoseHandling,
    frame_around,
    laid_straight,
    learned_on,
)
from medrl.landmark.guard import fit_guard
from medrl.landmark.judging import Model, load_model, save_model
from medrl.landmark.learner import LearnerSettings, ScaleLearner
from medrl.landmark.model import LandmarkModel, ModelSettings
from medrl.landmark.network import LandmarkNetwork
from medrl.landmark.parts.learner import PartSteps
from medrl.landmark.parts.model import PartSettings
from medrl.landmark.parts.train import PARTS, fine_of, part_jobs, part_model
from medrl.landmark.shape import ShapePrior
from medrl.rl.checkpoint import load_module
from medrl.rl.jobs import Job, run_jobs
from medrl.rl.stage import checkpoint_folder, run_stage
from medrl.systems import Report
from medrl.volume.pose import Pose, PoseTemplate
from medrl.volume.read import read

if TYPE_CHECKING:
    from medrl.engines import Engine

#: With fewer landmarks networks do not say how a scan lies.
_LEAST_LANDMARKS = 8


@dataclass(frozen=True)
class TrainSettings:
    """The recipe; the defaults train ``brain-t1``.

    Attributes:
        name: Name of the model.
        modality: ``MR``, ``CT`` or ``any``; scans that plainly are the other will be refused.
        detector: ``agents`` that walk, or ``parts``: heat maps with a spatial model, see
            :mod:`medrl.landmark.parts`.
        pose: ``given``: scans lie about alike, as heads in scanners do. ``any``: they are turned in
            all ways, as specimens are. Then they are laid straight by their landmarks, and the
            model finds by itself how a scan is turned before it searches.
        mirror: Learn on mirror images, too, of what is alike on both sides, such as a skull; with
            ``pose`` ``any`` only. Which landmarks are partners follows from where they are.
        imitation_steps: Batches of imitation on each scale, finest first.
        dqn_steps: Batches of DQN on each scale after that, finest first.
        parts: Batches of each stage of a part detector.
        learner: Network and learning; of a part detector, its scales, window, learning rate, scans
            in memory and augmentation.
        device: Torch device.
        seed: Fixes every random choice.
        start: Name or folder of a model with the same scales, windows and layers, whose networks
            training begins with; what they know of landmarks of the same names is kept, too.
        blend: Share of the weights of ``start`` in the result, both of which must know the same
            landmarks: models between two trainings are often better than either (Wortsman et al.
            2022, WiSE-FT).
        fine_map: Agents learn the fine map of a part detector, too (``parts.fine`` batches): it
            looks once more where they end.
        resume: Go on from the checkpoints in the output folder.
    """

    name: str = "my-landmarks"
    modality: str = "any"
    detector: Kind = "agents"
    pose: PoseHandling = "given"
    mirror: bool = False
    imitation_steps: tuple[int, ...] = (7500, 4800, 3400)
    dqn_steps: tuple[int, ...] = (1500, 800, 300)
    parts: PartSteps = field(default_factory=PartSteps)
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    device: str = "cpu"
    seed: int = 0
    start: str | None = None
    blend: float = 0.0
    fine_map: bool = False
    resume: bool = False

    def learned_on(
        self, samples: Sequence[Sample], names: Sequence[str]
    ) -> tuple[list[Sample], Frame | None]:
        """See :func:`medrl.landmark.frame.learned_on`."""
        return learned_on(
            samples,
            names,
            pose=self.pose,
            mirror=self.mirror,
            spacings=self.learner.spacings,
            kind=self.detector,
        )


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

    Every scale has its own network, and is trained by itself; a part detector has coarse maps and a
    fine one. Checkpoints are written to ``out/checkpoints`` and TensorBoard logs to ``out/logs``.

    Args:
        settings: The recipe.
        data: Datalist, see :func:`medrl.landmark.data.read_datalist`. Only its training and
            validation scans are looked at.
        out: Output folder.
        card: Model card: what users should know of the data, the licence and the limits.
        report: Called now and then.
        engine: Where scales are trained side by side, on one CPU thread each; None for this
            process, one after the other.

    Returns:
        The bundle's folder, ``out/<name>``.

    Raises:
        MedrlError: If the data or settings are unusable.
    """
    parts = settings.detector == "parts"
    scales = len(settings.learner.spacings)
    if parts:
        PartSettings.of(settings.learner)
    elif len(settings.imitation_steps) != scales or len(settings.dqn_steps) != scales:
        raise MedrlError(
            f"imitation_steps and dqn_steps need one number for each of {scales} scales"
        )
    if not 0 <= settings.blend < 1 or (settings.blend and (settings.start is None or parts)):
        raise MedrlError("blend is a share below 1 of the agents of start")
    if settings.mirror and settings.pose == "given":
        raise MedrlError("mirror images need scans that are laid straight: pose any")
    checkpoints = checkpoint_folder(out, resume=settings.resume)
    samples = read_datalist(data)
    names = landmark_names(samples["training"])
    report = report or (lambda *_: None)
    arguments = {"settings": settings, "data": data.absolute(), "logs": out.absolute() / "logs"}
    jobs = part_jobs(arguments, PARTS) if parts else _scale_jobs(settings, arguments)
    run_jobs(jobs, checkpoints, engine, report=report)
    make = part_model if parts else _agents
    files = [_checkpoint(checkpoints / job.name) for job in jobs]
    model: Model = make(settings, samples["training"], names, files)
    model = replace(model, frame=_frame_of_model(settings, samples["training"], names))
    if samples["validation"]:
        model = calibrate(
            model,
            load_labelled(samples["validation"], names, model.settings.preprocessing),
            augmentation=settings.learner.augmentation,
            seed=settings.seed,
            progress=lambda done, total: report("calibration", done, total, {}),
        )
    model = _guarded(model, data, settings, report)
    return save_model(model, out / settings.name, name=settings.name, card=dict(card or {}))


def _scale_jobs(settings: TrainSettings, arguments: dict[str, Any]) -> list[Job]:
    scales = [
        Job(f"{spacing:g}mm", train_scale, {**arguments, "level": level})
        for level, spacing in enumerate(settings.learner.spacings)
    ]
    return [*scales, *(part_jobs(arguments, ["fine"]) if settings.fine_map else [])]


def _agents(
    settings: TrainSettings, training: Sequence[Sample], names: tuple[str, ...], files: list[Path]
) -> LandmarkModel:
    """Agents by the checkpoints of their scales, and of the fine map, if there is one."""
    model_settings = settings.learner.model_settings(modality=settings.modality)
    networks = []
    for file in files[: len(model_settings.spacings)]:
        network = model_settings.build_network(len(names))
        load_module(file, network)
        networks.append(network.eval().to(settings.device))
    if settings.blend:
        start = _agents_of(str(settings.start))
        if start.names != names:
            raise MedrlError(f"{settings.start} cannot be blended with: it has other landmarks")
        for network, other in zip(networks, start.networks, strict=True):
            _blend(network, other, settings.blend)
    shapes = np.stack([points_array(s, names) for s in training])
    shape = _shape_prior(shapes, model_settings)
    fine = fine_of(settings, names, files[-1]) if settings.fine_map else None
    return LandmarkModel(names, model_settings, tuple(networks), shape, fine)


def refit_guard(
    bundle: Path, *, data: Path, out: Path | None = None, report: Report | None = None
) -> Path:
    """See :meth:`medrl.systems.System.refit_guard`."""
    model, _ = load_model(bundle)
    made = model.settings
    learner = replace(LearnerSettings(), spacings=made.spacings, window=made.window)
    specimens = model.frame is not None and model.frame.template is not None
    pose: PoseHandling = "any" if specimens else "given"
    guarded = _guarded(model, data, TrainSettings(pose=pose, learner=learner), report)
    seen = {} if guarded.familiarity is None else guarded.familiarity.tensors()
    return save_guard(bundle, guarded.guard, seen, out=out)


def _guarded(model: Model, data: Path, settings: TrainSettings, report: Report | None) -> Model:
    """The model with a guard, fitted on the training scans of a datalist."""
    report = report or (lambda *_: None)
    training, frame = settings.learned_on(read_datalist(data)["training"], model.names)
    return fit_guard(
        model,
        load_labelled(training, model.names, model.settings.preprocessing, frame=frame),
        augmentation=settings.learner.augmentation,
        seed=settings.seed,
        progress=lambda done, total: report("guard", done, total, {}),
    )


def train_scale(
    folder: Path, report: Report, *, settings: TrainSettings, level: int, data: Path, logs: Path
) -> None:
    """Train the network of one scale, from its checkpoint if there is one.

    Args:
        folder: For the checkpoint; named after the scale.
        report: Called now and then.
        settings: The recipe.
        level: Which scale.
        data: Datalist.
        logs: Folder for TensorBoard.
    """
    samples = read_datalist(data)["training"]
    names = landmark_names(samples)
    preprocessing = settings.learner.model_settings().preprocessing
    training, frame = settings.learned_on(samples, names)
    learner = ScaleLearner(
        load_labelled(training, names, preprocessing, frame=frame),
        level=level,
        settings=settings.learner,
        imitation_steps=settings.imitation_steps[level],
        dqn_steps=settings.dqn_steps[level],
        seed=settings.seed + 1000 * level,
        device=settings.device,
    )
    if settings.start is not None:
        _begin_with(settings.start, learner, names, level)
    run_stage(learner, _checkpoint(folder), logs=logs, resume=True, report=report)


def _agents_of(start: str) -> LandmarkModel:
    """The model that a training begins with."""
    from medrl.bundles import find

    model, _ = load_model(find(start))
    if not isinstance(model, LandmarkModel):
        raise MedrlError(f"{start} cannot be begun with: it has no agents")
    return model


def _blend(network: LandmarkNetwork, other: LandmarkNetwork, share: float) -> None:
    """Move a network's weights and statistics towards another's."""
    theirs = other.state_dict()
    with torch.no_grad():
        for name, own in network.state_dict().items():
            if own.is_floating_point():
                own.lerp_(theirs[name].to(own), share)


def _begin_with(start: str, learner: ScaleLearner, names: Sequence[str], level: int) -> None:
    """Take over the encoder of a model, and the heads of the landmarks that both know."""
    model = _agents_of(start)
    own, other = learner.settings.model_settings(), model.settings
    alike = ("spacings", "window", "channels", "features", "dueling")
    differ = [key for key in alike if getattr(own, key) != getattr(other, key)]
    if differ:
        raise MedrlError(f"{start} cannot be begun with: it has other {', '.join(differ)}")
    network = model.networks[level]
    learner.network.encoder.load_state_dict(network.encoder.state_dict())
    known = [(names.index(name), k) for k, name in enumerate(model.names) if name in names]
    for layer in ("actions", "state", "finish"):
        mine, theirs = getattr(learner.network, layer), getattr(network, layer)
        for which in ("weight", "bias") if mine is not None and known else ():
            to, of = getattr(mine, which), getattr(theirs, which)
            rows, source = to.detach().unflatten(0, (len(names), -1)), of.detach()
            source = source.unflatten(0, (len(model.names), -1)).to(rows)
            here, there = zip(*known, strict=True)
            rows[list(here)] = source[list(there)]


def _frame_of_model(
    settings: TrainSettings, samples: Sequence[Sample], names: Sequence[str]
) -> Frame | None:
    """How scans are laid straight before they are searched; None if too little is known of it.

    Agents' networks that have seen whole scans that lie alike say themselves how one is turned;
    those that know specimens from nearby only need a template, and so do maps.
    """
    spacings, kind = settings.learner.spacings, settings.detector
    complete = [one for one in samples if not np.isnan(points_array(one, names)).any()]
    if settings.pose == "given":
        if len(names) < _LEAST_LANDMARKS or not complete or kind == "parts":
            return None
        return frame_around(laid_straight(complete, names)[1], spacings, kind)
    straight, expected = laid_straight(samples, names)
    frame = frame_around(expected, spacings, kind)
    scans = (Pose(one.straight).straightened(read(one.image)) for one in straight)
    normalize = settings.learner.model_settings().preprocessing.normalize()
    return replace(frame, template=PoseTemplate.fit(scans, normalize))


def _checkpoint(folder: Path) -> Path:
    return folder / f"{folder.name}.safetensors"


def _shape_prior(
    shapes_world: np.ndarray[Any, np.dtype[np.float64]], settings: ModelSettings
) -> ShapePrior | None:
    """A prior where there are enough landmarks and complete training shapes for one."""
    complete = (~np.isnan(shapes_world).any(axis=(1, 2))).sum()
    if shapes_world.shape[1] < 8 or complete < 20:
        return None
    return ShapePrior.fit(shapes_world, noise_mm=0.75 * settings.spacings[0])
