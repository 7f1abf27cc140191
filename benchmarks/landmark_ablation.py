"""What each part of the landmark recipe buys, at the same small CPU budget for every arm.

Arms: imitation alone; DQN alone, from scratch, learning only from its own walks; both; one scale
instead of three. Every arm is measured on validation heads, as they are and corrupted, with and
without the shape prior. The budgets are far below the shipped model's: compare arms with each
other, not with it. An arm that has a result already is not run again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation import ixi
from evaluation.arms import run_arms
from evaluation.images import LabelledImage, corrupt
from evaluation.results import RESULTS, print_table

from medrl.evaluation import summarize
from medrl.landmark.data import LabelledScan
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.learner import LearnerSettings, ScaleLearner
from medrl.landmark.model import LandmarkModel
from medrl.landmark.shape import ShapePrior
from medrl.volume.itk import from_sitk
from medrl.volume.prepare import ResampleIsotropic
from medrl.volume.space import world_to_voxel

CLAIM = "What each part of the recipe buys"
OUT = RESULTS / "landmark_ablation.json"
#: CPU seconds that a batch of each phase takes, only to plan the learning-rate schedule.
IMITATION_S, DQN_S = 0.25, 0.5


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        imitation: Share of the budget spent on imitation; the rest is DQN.
        own_states: Weight of imitation on own states in the DQN phase.
        spacings: Scales.
    """

    imitation: float
    own_states: float = 1.0
    spacings: tuple[float, ...] = (2.0, 4.0, 8.0)


ARMS = {
    "imitation": Arm(1.0),
    "dqn": Arm(0.0, own_states=0.0),
    "imitation+dqn": Arm(0.7),
    "imitation, 2 mm only": Arm(1.0, spacings=(2.0,)),
}


def training_scans() -> list[LabelledScan]:
    """The training heads on the 2 mm grid."""
    resample = ResampleIsotropic(spacing=2.0)
    scans = []
    for subject in ixi.subjects("train"):
        case = ixi.load(subject)
        grid = resample(from_sitk(case.image))
        points = np.stack([case.points_world[name] for name in ixi.LANDMARKS])
        voxel = torch.from_numpy(world_to_voxel(points, grid.affine)).float()
        scans.append(LabelledScan(subject, grid.as_tensor() - grid.as_tensor().min(), voxel))
    return scans


def train(arm: Arm, scans: list[LabelledScan], minutes: float) -> tuple[LandmarkModel, float]:
    """Train an arm's networks within its CPU budget; returns the model and the CPU minutes."""
    settings = replace(LearnerSettings(), spacings=arm.spacings, imitation_weight=arm.own_states)
    seconds = 60 * minutes / len(arm.spacings)
    networks = []
    began = time.process_time()
    for level in range(len(arm.spacings)):
        learner = ScaleLearner(
            scans,
            level=level,
            settings=settings,
            imitation_steps=round(arm.imitation * seconds / IMITATION_S),
            dqn_steps=round((1 - arm.imitation) * seconds / DQN_S),
            seed=level,
        )
        for _ in range(learner.total_steps):
            learner.train_step()
        networks.append(learner.network.eval())
    spent = (time.process_time() - began) / 60
    model = LandmarkModel(
        ixi.LANDMARKS, replace(settings.model_settings(), max_steps=96), tuple(networks)
    )
    return model, spent


def measure(model: LandmarkModel, cases: list[LabelledImage]) -> dict[str, float | None]:
    """Error summary over cases."""
    detector = LandmarkDetector(model)
    errors = []
    for case in cases:
        found = detector.candidates(from_sitk(case.image))
        truth = np.stack([case.points_world[name] for name in model.names])
        errors.append(np.linalg.norm(found.positions_world - truth, axis=1))
    return summarize(np.concatenate(errors), above=(10,))


def measured(result: dict[str, Any]) -> str:
    """Mean error of every arm, heads as they are."""
    arms = result["arms"].items()
    parts = [f"{name} {arm['with prior']['as is']['mean']:.2f} mm" for name, arm in arms]
    return "IXI val, small budget: " + ", ".join(parts)


def figures(name: str, *, minutes: float) -> dict[str, Any]:
    """Train an arm, and measure it with and without the shape prior."""
    heads = [ixi.load(subject) for subject in ixi.subjects("val")]
    rng = np.random.default_rng(0)
    conditions = {"as is": heads, "corrupted": [corrupt(head, rng) for head in heads]}
    model, spent = train(ARMS[name], training_scans(), minutes)
    found: dict[str, Any] = {"cpu_minutes": spent}
    for label, shape in (
        ("without prior", None),
        ("with prior", ShapePrior.fit(ixi.shapes("train"))),
    ):
        complete = replace(model, shape=shape)
        found[label] = {kind: measure(complete, some) for kind, some in conditions.items()}
    return found


def main() -> None:
    """Run the arms that have no result yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes an arm")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--workers", type=int, default=2, help="arms at a time")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    arms = run_arms(
        options.out,
        options.arms,
        figures,
        workers=options.workers,
        claims={CLAIM: measured},
        minutes=options.minutes,
    )
    columns = ("mean", "p95", "above_10")
    rows = [
        [name, arm["cpu_minutes"], prior, kind, *(arm[prior][kind][c] for c in columns)]
        for name, arm in arms.items()
        for prior in ("without prior", "with prior")
        for kind in ("as is", "corrupted")
    ]
    print_table(["arm", "CPU min", "shape prior", "heads", "mean", "95 %", "> 10 mm"], rows)


if __name__ == "__main__":
    main()
