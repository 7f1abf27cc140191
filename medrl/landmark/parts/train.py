"""The recipe of a part detector: coarse maps and spatial model in one job, fine map in another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from medrl.landmark.data import Sample, landmark_names, load_labelled, read_datalist
from medrl.landmark.parts.learner import FineLearner, MapLearner
from medrl.landmark.parts.model import PartModel, PartSettings
from medrl.landmark.parts.network import FineNetwork
from medrl.rl.checkpoint import load_module
from medrl.rl.jobs import Job
from medrl.rl.stage import run_stage
from medrl.systems import Report

if TYPE_CHECKING:
    from medrl.landmark.train import TrainSettings

_LEARNERS = {"maps": MapLearner, "fine": FineLearner}
#: What a part detector is made of.
PARTS = tuple(_LEARNERS)


def part_jobs(arguments: dict[str, Any], parts: Sequence[str]) -> list[Job]:
    """What may be trained side by side; arguments of :func:`train_part`."""
    return [Job(part, train_part, {**arguments, "part": part}) for part in parts]


def train_part(
    folder: Path,
    report: Report,
    *,
    settings: TrainSettings,
    part: Literal["maps", "fine"],
    data: Path,
    logs: Path,
) -> None:
    """Train the coarse maps or the fine one, from its checkpoint if there is one.

    Args:
        folder: For the checkpoint.
        report: Called now and then.
        settings: The recipe.
        part: Which.
        data: Datalist.
        logs: Folder for TensorBoard.
    """
    samples = read_datalist(data)["training"]
    names = landmark_names(samples)
    preprocessing = settings.learner.model_settings().preprocessing
    training, frame = settings.learned_on(samples, names)
    learner = _LEARNERS[part](
        load_labelled(training, names, preprocessing, frame=frame),
        settings=settings.learner,
        steps=settings.parts,
        seed=settings.seed + 1000 * list(_LEARNERS).index(part),
        device=settings.device,
    )
    run_stage(learner, folder / f"{folder.name}.safetensors", logs=logs, resume=True, report=report)


def part_model(
    settings: TrainSettings, training: Sequence[Sample], names: tuple[str, ...], files: list[Path]
) -> PartModel:
    """The detector by the checkpoints of its jobs, without confidence and frame."""
    made = PartSettings.of(settings.learner, modality=settings.modality)
    maps, fine_file = files
    detector = made.build_detector(len(names))
    nothing = torch.zeros((len(names), len(names), 3))
    spatial = made.build_spatial(nothing, nothing + 1)
    load_module(maps, detector)
    load_module(maps, spatial, "spatial")
    for network in (detector, spatial):
        network.eval().to(settings.device)
    return PartModel(names, made, detector, fine_of(settings, names, fine_file), spatial)


def fine_of(settings: TrainSettings, names: tuple[str, ...], file: Path) -> FineNetwork:
    """The fine map by its checkpoint."""
    network = FineNetwork(len(names))
    load_module(file, network)
    return network.eval().to(settings.device)
