"""Train tracking agents on simulated films and a user's own: the whole recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrl.agents.rollout import Transition
from medrl.rl.stage import Progress, checkpoint_folder, reproducible, run_stage
from medrl.tracking.objects.dynamics import TrackState
from medrl.tracking.objects.learner import LearnerSettings, TrackLearner, confidence_of
from medrl.tracking.objects.model import ModelSettings, TrackModel
from medrl.tracking.objects.policy import Together
from medrl.tracking.objects.simulated import Film
from medrl.tracking.objects.walk import walk


@dataclass(frozen=True)
class TrainSettings:
    """The recipe.

    Attributes:
        name: Name of the model.
        imitation_steps: Rounds of learning what is right.
        value_steps: Rounds of learning values after that; none leaves the second stage out.
        calibration: Rounds of films on which the confidence is fitted.
        threads: CPU threads; the bits of a training depend on them.
        model: What is trained.
        learner: How.
        seed: Fixes every random choice.
        resume: Go on from the checkpoints in the output folder.
    """

    name: str = "my-tracker"
    imitation_steps: int = 150
    value_steps: int = 150
    calibration: int = 12
    threads: int = 1
    model: ModelSettings = field(default_factory=ModelSettings)
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    seed: int = 0
    resume: bool = False


def train(
    settings: TrainSettings,
    *,
    out: Path,
    films: Sequence[Film] = (),
    card: Mapping[str, Any] | None = None,
    licence: str | None = None,
    report: Progress | None = None,
) -> Path:
    """Train a model and save it as a bundle.

    First agents learn which decision is right, then what decisions are worth (double DQN next to
    the first loss), on films that are simulated on the way and on some of the user's own.
    Checkpoints are written to ``out/checkpoints``.

    Args:
        settings: The recipe.
        out: Output folder.
        films: Films with the truth about them; there may be none.
        card: Model card.
        licence: Text of the model's licence.
        report: Called now and then.

    Returns:
        The bundle's folder, ``out/<name>``.

    Raises:
        MedrlError: If the settings do not fit the checkpoints.
    """
    checkpoints = checkpoint_folder(out, resume=settings.resume)
    checkpoints.mkdir(parents=True, exist_ok=True)
    told = report or (lambda *_: None)
    with reproducible(settings.seed, threads=settings.threads):
        network = settings.model.build_network()
        for number, (name, steps) in enumerate(
            (("imitation", settings.imitation_steps), ("values", settings.value_steps))
        ):
            if not steps:
                continue
            learner = TrackLearner(
                films,
                model=settings.model,
                settings=settings.learner,
                steps=steps,
                seed=settings.seed + number,
                network=network,
                q_learning=name == "values",
            )
            run_stage(
                learner,
                checkpoints / f"{name}.safetensors",
                resume=settings.resume,
                report=told,
                checkpoint_every=50,
            )
        model = calibrated(TrackModel(settings.model, network.eval()), settings, films)
    return model.save(
        out / settings.name, name=settings.name, card=dict(card or {}), licence=licence
    )


def calibrated(model: TrackModel, settings: TrainSettings, films: Sequence[Film]) -> TrackModel:
    """The model with a confidence fitted on films that it was not trained on, drawn alike.

    The event is that a matched detection is of the object that the track had matched before.

    Args:
        model: Trained.
        settings: The recipe.
        films: As in training.
    """
    margins, right = [], []
    source = TrackLearner(
        films,
        model=settings.model,
        settings=replace(settings.learner, pool=6),
        steps=1,
        seed=settings.seed + 1000,
        network=model.network,
    )
    for _ in range(settings.calibration):
        dynamics, task = source.fresh_scenes()
        policy = Together(model.values)

        def on_step(
            transition: Transition[TrackState], task: Any = task, policy: Together = policy
        ) -> None:
            before, after = transition.before, transition.after
            rows = torch.nonzero(after.matched & ~before.birth)[:, 0]
            was, now = task.identity[before.row[rows]], task.identity[after.row[rows]]
            margins.append(policy.margin[rows].numpy())
            right.append(((was == now) & (now >= 0)).numpy())

        walk(dynamics, policy, on_step=on_step)
    slope, offset = confidence_of(np.concatenate(margins).clip(0, 50), np.concatenate(right))
    return TrackModel(replace(model.settings, slope=slope, offset=offset), model.network)
