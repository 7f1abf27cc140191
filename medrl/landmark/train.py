"""Train landmark agents on a user's own scans and points: the whole recipe."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch

from medrl.errors import MedrlError
from medrl.landmark.calibrate import calibrate
from medrl.landmark.data import landmark_names, load_labelled, points_array, read_datalist
from medrl.landmark.learner import LearnerSettings, ScaleLearner
from medrl.landmark.model import LandmarkModel
from medrl.landmark.shape import ShapePrior
from medrl.rl.checkpoint import load_module
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
        workers: Scales trained at a time, one process and one CPU thread each; 0 trains them one
            after the other in this process.
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
) -> Path:
    """Train a model and save it as a bundle.

    Every scale has its own network and its own process. Checkpoints are written to
    ``out/checkpoints`` and TensorBoard logs to ``out/logs``.

    Args:
        settings: The recipe.
        data: Datalist, see :func:`medrl.landmark.data.read_datalist`. Only its training and
            validation scans are looked at.
        out: Output folder.
        card: Model card: what users should know of the data, the licence and the limits.
        progress: Called now and then.

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
    out.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda *_: None)
    if settings.workers == 0:
        _train_here(settings, data=data, out=out, report=report)
    else:
        _train_in_processes(settings, data=data, out=out, report=report)

    model_settings = settings.learner.model_settings(modality=settings.modality)
    networks = []
    for level in range(scales):
        network = model_settings.build_network(len(names))
        load_module(_checkpoint(out, settings.learner.spacings[level]), network)
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


def _shape_prior(shapes_world: np.ndarray[Any, np.dtype[np.float64]]) -> ShapePrior | None:
    """A prior where there are enough landmarks and complete training shapes for one."""
    complete = (~np.isnan(shapes_world).any(axis=(1, 2))).sum()
    if shapes_world.shape[1] < 8 or complete < 20:
        return None
    return ShapePrior.fit(shapes_world)


# One process a scale ---------------------------------------------------------------------------


def _checkpoint(out: Path, spacing: float) -> Path:
    return out / "checkpoints" / f"{spacing:g}mm.safetensors"


def _train_here(settings: TrainSettings, *, data: Path, out: Path, report: Progress) -> None:
    """Train one scale after the other."""
    for level, spacing in enumerate(settings.learner.spacings):

        def send(
            done: int, total: int, numbers: Mapping[str, float], what: str = f"{spacing:g} mm"
        ) -> None:
            report(what, done, total, numbers)

        _learn(settings, level, data, out, send)


def _train_in_processes(
    settings: TrainSettings, *, data: Path, out: Path, report: Progress
) -> None:
    """Train all scales, at most ``workers`` at a time, finest first."""
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    waiting = list(range(len(settings.learner.spacings)))
    running: dict[int, Any] = {}
    try:
        while waiting or running:
            while waiting and len(running) < max(1, settings.workers):
                level = waiting.pop(0)
                worker = context.Process(
                    target=_train_scale, args=(settings, level, data, out, messages), daemon=True
                )
                worker.start()
                running[level] = worker
            try:
                level, done, total, numbers = messages.get(timeout=1.0)
            except Empty:
                for level, worker in running.items():
                    if worker.exitcode not in (None, 0):
                        raise MedrlError(
                            f"training of scale {level} died (exit code {worker.exitcode}); "
                            "resume to go on from its last checkpoint"
                        ) from None
                continue
            if isinstance(numbers, str):
                raise MedrlError(numbers)
            report(f"{settings.learner.spacings[level]:g} mm", done, total, numbers)
            if done == total:
                running.pop(level).join()
    finally:
        for worker in running.values():
            worker.terminate()


def _train_scale(settings: TrainSettings, level: int, data: Path, out: Path, messages: Any) -> None:
    """Body of a worker process."""
    try:
        torch.set_num_threads(1)
        _learn(settings, level, data, out, lambda *event: messages.put((level, *event)))
    except MedrlError as error:
        messages.put((level, 0, 1, str(error)))
    except KeyboardInterrupt:
        pass


def _learn(
    settings: TrainSettings,
    level: int,
    data: Path,
    out: Path,
    send: Callable[[int, int, Mapping[str, float]], None],
) -> None:
    """Train one scale; ``send`` gets steps done, all steps and mean losses."""
    cases = read_datalist(data)["training"]
    names = landmark_names(cases)
    scans = load_labelled(cases, names, Preprocessing(spacing=settings.learner.spacings[0]))
    learner = ScaleLearner(
        scans,
        level=level,
        settings=settings.learner,
        imitation_steps=settings.imitation_steps[level],
        dqn_steps=settings.dqn_steps[level],
        seed=settings.seed + 1000 * level,
        device=settings.device,
    )
    run_stage(
        learner,
        _checkpoint(out, settings.learner.spacings[level]),
        logs=out / "logs",
        resume=settings.resume,
        report=lambda _, *event: send(*event),
    )
