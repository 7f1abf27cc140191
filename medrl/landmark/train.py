"""Train landmark agents on a user's own scans and points: the whole recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medrl.engines import Engine
from medrl.engines.local import LocalEngine
from medrl.errors import MedrlError
from medrl.landmark.calibrate import calibrate
from medrl.landmark.data import landmark_names, load_labelled, points_array, read_datalist
from medrl.landmark.learner import LearnerSettings, ScaleLearner
from medrl.landmark.model import LandmarkModel
from medrl.landmark.shape import ShapePrior
from medrl.rl.checkpoint import load_module
from medrl.rl.jobs import Job, run_jobs
from medrl.rl.stage import Progress, run_stage
from medrl.volume.prepare import Preprocessing


@dataclass(frozen=True)
class TrainSettings:
    """The recipe; the defaults train ``brain-t1``.

    Attributes:
        name: Name of the model.
        modality: ``MR``, ``CT`` or ``any``; scans that plainly are the other will be refused.
        imitation_steps: Batches of imitation on each scale, finest first.
        dqn_steps: Batches of DQN on each scale after that, finest first.
        learner: Network and learning.
        workers: Scales trained at a time, one process each; 0 trains them one after the other in
            this process.
        device: Torch device.
        seed: Fixes every random choice.
        resume: Go on from the checkpoints in the output folder.
    """

    name: str = "my-landmarks"
    modality: str = "any"
    imitation_steps: tuple[int, ...] = (7500, 4800, 3400)
    dqn_steps: tuple[int, ...] = (1500, 800, 300)
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    workers: int = 2
    device: str = "cpu"
    seed: int = 0
    resume: bool = False


def train(
    settings: TrainSettings,
    *,
    data: Path,
    out: Path,
    card: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Path:
    """Train a model and save it as a bundle.

    Every scale has its own network, and is trained on one CPU thread or the device. Checkpoints
    are written to ``out/checkpoints`` and TensorBoard logs to ``out/logs``.

    Args:
        settings: The recipe.
        data: Datalist, see :func:`medrl.landmark.data.read_datalist`. Only its training and
            validation scans are looked at.
        out: Output folder.
        card: Model card: what users should know of the data, the licence and the limits.
        progress: Called now and then.
        engine: Where scales are trained, such as a Ray cluster that sees the data and ``out``;
            processes on this machine if left out.

    Returns:
        The bundle's folder, ``out/<name>``.

    Raises:
        MedrlError: If the data or settings are unusable.
    """
    scales = len(settings.learner.spacings)
    if len(settings.imitation_steps) != scales or len(settings.dqn_steps) != scales:
        raise MedrlError(
            f"imitation_steps and dqn_steps need one number for each of {scales} scales"
        )
    if (out / "checkpoints").exists() and not settings.resume:
        raise MedrlError(f"{out} holds checkpoints already: resume, or choose another folder")
    cases = read_datalist(data)
    names = landmark_names(cases["training"])
    report = progress or (lambda *_: None)
    if engine is None and settings.workers > 0:
        engine = LocalEngine(settings.workers)
    given = {"settings": settings, "data": data.absolute(), "logs": (out / "logs").absolute()}
    jobs = [
        Job(f"{spacing:g}mm", train_scale, {"level": level, **given})
        for level, spacing in enumerate(settings.learner.spacings)
    ]
    checkpoints = run_jobs(jobs, out / "checkpoints", engine, report=report)

    model_settings = settings.learner.model_settings(modality=settings.modality)
    networks = []
    for name, checkpoint in checkpoints.items():
        network = model_settings.build_network(len(names))
        load_module(out / "checkpoints" / name / checkpoint, network)
        networks.append(network.eval().to(settings.device))
    shape = _shape_prior(np.stack([points_array(c, names) for c in cases["training"]]))
    model = LandmarkModel(names, model_settings, tuple(networks), shape)
    if cases["validation"]:
        scans = load_labelled(cases["validation"], names, model.settings.preprocessing)
        model = calibrate(
            model,
            scans,
            augmentation=settings.learner.augmentation,
            seed=settings.seed,
            progress=lambda done, total: report("calibration", done, total, {}),
        )
    return model.save(out / settings.name, name=settings.name, card=dict(card or {}))


def train_scale(
    folder: Path, report: Progress, *, level: int, settings: TrainSettings, data: Path, logs: Path
) -> str:
    """Train the network of one scale: a job (:class:`medrl.rl.jobs.Job`).

    Args:
        folder: For its checkpoint; it goes on from one that is there.
        report: Told how it goes.
        level: Which scale; 0 is the finest.
        settings: The recipe.
        data: Datalist.
        logs: Folder for TensorBoard.

    Returns:
        Name of the checkpoint.
    """
    samples = read_datalist(data)["training"]
    names = landmark_names(samples)
    scans = load_labelled(samples, names, Preprocessing(spacing=settings.learner.spacings[0]))
    learner = ScaleLearner(
        scans,
        level=level,
        settings=settings.learner,
        imitation_steps=settings.imitation_steps[level],
        dqn_steps=settings.dqn_steps[level],
        seed=settings.seed + 1000 * level,
        device=settings.device,
    )
    spacing = settings.learner.spacings[level]
    path = folder / f"{spacing:g}mm.safetensors"
    run_stage(
        learner,
        path,
        logs=logs,
        resume=True,
        report=lambda _, *event: report(f"{spacing:g} mm", *event),
    )
    return path.name


def _shape_prior(shapes_world: np.ndarray[Any, np.dtype[np.float64]]) -> ShapePrior | None:
    """A prior where there are enough landmarks and complete training shapes for one."""
    complete = (~np.isnan(shapes_world).any(axis=(1, 2))).sum()
    if shapes_world.shape[1] < 8 or complete < 20:
        return None
    return ShapePrior.fit(shapes_world)
