"""What each part of the box agents is worth, at the same small number of batches for every arm.

Agents of one network learn to box L1 to L5 and are measured on validation scans, cut at random,
from boxes drawn at random around the true ones: where they stop walking, what a single look at the
start says (one-shot regression by the same network), what the looks of the last steps say together,
and that after looking twice again, which is what ships. The budgets are far below the shipped
model's: compare arms with each other, not with it. An arm that has a result is not run again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from evaluation.arms import run_arms
from evaluation.boxes import samples
from evaluation.results import RESULTS, print_table
from torch import Generator, Tensor

from medrl.agents import rollout
from medrl.data.augment import changed_copies
from medrl.data.datalist import SPLITS
from medrl.localization.data import LabelledScan, boxes_of, load_labelled, objects_of
from medrl.localization.dynamics import BoxDynamics, View
from medrl.localization.kinds import Objects
from medrl.localization.learner import BoxLearner, LearnerSettings
from medrl.localization.model import ModelSettings
from medrl.localization.search import BoxPolicy, looked_again
from medrl.localization.task import Rewards, disturbed, overlap
from medrl.volume.pyramid import build_pyramid

CLAIM = "What each part of the box agents is worth"
OUT = RESULTS / "localization_ablation.json"
#: What is measured, in the order of the table.
WAYS = ("walked", "one look", "last looks", "looked again")


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        imitation: Share of the batches that are imitation; the rest is DQN.
        view: What agents see, and how they step.
        rewards: What actions are worth.
        learner: Fields of the settings that differ.
        dueling: Dueling heads.
        shared: One network for all targets; or one each, at the same number of batches in all.
    """

    imitation: float = 0.75
    view: View = field(default_factory=View)
    rewards: Rewards = field(default_factory=Rewards)
    learner: dict[str, Any] = field(default_factory=dict)
    dueling: bool = True
    shared: bool = True


ARMS = {
    "imitation, then DQN": Arm(),
    "imitation alone": Arm(imitation=1.0),
    "DQN alone": Arm(imitation=0.0, learner={"imitation_weight": 0.0}),
    "no history": Arm(view=View(history=0)),
    "reward: sign": Arm(rewards=Rewards(form="sign")),
    "not guided": Arm(learner={"guided": False}),
    "single DQN, not dueling": Arm(learner={"double": False}, dueling=False),
    "steps of 12 % only": Arm(view=View(shares=(0.12,))),
    "a network each": Arm(shared=False),
}


def scans(split: str) -> list[LabelledScan]:
    """The scans of a split on the grid of the model."""
    own = samples("spine_mr_lumbar", split)
    return load_labelled(own, objects_of(own), ModelSettings().preprocessing)


def only(scan: LabelledScan, row: int) -> LabelledScan:
    """A scan with one of its objects."""
    return replace(scan, shapes=scan.shapes[row : row + 1], objects=Objects.of(["object"]))


def train(arm: Arm, training: Sequence[LabelledScan], batches: int) -> BoxLearner:
    """Train the network of an arm."""
    default = LearnerSettings()
    augmentation = replace(default.augmentation, flip=True)
    settings = replace(default, rewards=arm.rewards, augmentation=augmentation, **arm.learner)
    learner = BoxLearner(
        training,
        model=ModelSettings(view=arm.view, dueling=arm.dueling),
        settings=settings,
        imitation_steps=round(arm.imitation * batches),
        dqn_steps=batches - round(arm.imitation * batches),
        seed=0,
    )
    while learner.step < learner.total_steps:
        learner.train_step()
    return learner


@torch.inference_mode()
def answers(
    learner: BoxLearner, validation: Sequence[LabelledScan]
) -> tuple[dict[str, Tensor], Tensor]:
    """Overlaps by way, and the actions, of agents from the same starts whatever the arm."""
    policy = BoxPolicy(learner.network.for_inference())
    found: dict[str, list[Tensor]] = {way: [] for way in WAYS}
    actions = []
    copied = changed_copies(
        validation,
        learner.settings.augmentation,
        spacing=learner.model.spacings[0],
        repeats=6,
        seed=0,
    )
    for number, (scan, points) in enumerate(copied):
        truth = boxes_of(points.view(validation[0].shapes.shape)).double()
        shape = torch.tensor(scan.shape[1:])
        center = truth.mean(dim=1)
        rows = torch.nonzero(((center >= 0) & (center <= shape - 1)).all(dim=1))[:, 0]
        if not len(rows):
            continue
        pyramid = build_pyramid(
            learner.model.preprocessing.normalize()(scan), spacings=learner.model.spacings
        )
        dynamics = BoxDynamics([pyramid], targets=learner.targets, view=learner.model.view)
        starts = disturbed(truth, Generator().manual_seed(number))[rows]
        target = rows if learner.targets > 1 else torch.zeros_like(rows)
        state = dynamics.reset(torch.zeros_like(target), target, starts)
        estimate = policy.look(dynamics, state).estimate
        end = rollout(dynamics, policy, state)
        answer = dynamics.answer(end.state)
        boxes = {
            "walked": end.state.box,
            "one look": state.box + estimate[:, 0].double(),
            "last looks": answer.box,
            "looked again": looked_again(dynamics, policy, end.state, answer)[0].box,
        }
        for way, box in boxes.items():
            found[way].append(overlap(box, truth[rows]))
        actions.append(end.state.steps.double())
    return {way: torch.cat(own) for way, own in found.items()}, torch.cat(actions)


def figures(name: str, *, batches: int) -> dict[str, Any]:
    """Train an arm and measure it."""
    torch.set_num_threads(1)
    arm, training, validation = ARMS[name], scans(SPLITS[0]), scans(SPLITS[1])
    if arm.shared:
        parts = [answers(train(arm, training, batches), validation)]
    else:
        count = len(training[0].shapes)
        parts = [
            answers(
                train(arm, [only(one, row) for one in training], batches // count),
                [only(one, row) for one in validation],
            )
            for row in range(count)
        ]
    return {
        "iou": {way: float(np.mean(np.concatenate([p[0][way] for p in parts]))) for way in WAYS},
        "median_actions": float(np.median(np.concatenate([p[1] for p in parts]))),
    }


def measured(result: dict[str, Any]) -> str:
    """Overlap where agents of every arm stop, and after they have looked again."""
    arms = result["arms"].items()
    parts = [
        f"{name} {arm['iou']['walked']:.2f}, then {arm['iou']['looked again']:.2f}"
        for name, arm in arms
    ]
    return "IoU on spine val, small budget: " + "; ".join(parts)


def main() -> None:
    """Run the arms that have no result yet, and write all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=300, help="for every arm")
    parser.add_argument("--workers", type=int, default=1, help="arms at a time")
    options = parser.parse_args()
    arms = run_arms(
        OUT,
        ARMS,
        figures,
        workers=options.workers,
        claims={CLAIM: measured},
        batches=options.batches,
    )
    print_table(
        ["arm", *WAYS, "actions"],
        [[n, *(one["iou"][way] for way in WAYS), one["median_actions"]] for n, one in arms.items()],
    )


if __name__ == "__main__":
    main()
