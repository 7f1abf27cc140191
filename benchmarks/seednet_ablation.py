"""What each part of the seed agent's recipe buys, at the same small budget for every arm.

All arms share the shipped model's perception and train a new value head on top of it: by imitation
alone, by DQN alone, by both; with each reward; on a walker with learned edges or plain intensities,
with the network's prior or without. Where the walker has the prior, there is little left for an
agent to do, even if it pulls a hundred times less than as shipped; the arms that compare rewards
and learners therefore do without it, as the method's paper did. Measured on validation cases from
one click. An arm that has a result already is not run again.
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
from evaluation.arms import run_arms
from evaluation.results import RESULTS, print_table
from evaluation.seeds import load
from torch import Generator, Tensor

from medrl.bundles import find, load_weights, read_manifest
from medrl.seednet.baselines import INTENSITY_BETA
from medrl.seednet.data import LabelledGrid
from medrl.seednet.learner import AgentLearner, AgentSettings
from medrl.seednet.model import AgentDynamics, EncodedWindows, ModelSettings, SeedModel
from medrl.seednet.network import STRIDE
from medrl.seednet.rewards import RewardKind, RewardSettings
from medrl.seednet.sampling import Sampler, Sampling
from medrl.seednet.simulated_user import let_agent, starts
from medrl.walker.edges import intensity_edges
from medrl.walker.segmenter import RandomWalker, System

CLAIM = "What each part of the seed agent's recipe buys"
OUT = RESULTS / "seednet_ablation.json"


@dataclass(frozen=True)
class Arm:
    """One way to train, on one walker.

    Attributes:
        imitation: Share of the batches that imitate; the rest is DQN.
        reward: Of DQN.
        prior: How much the walker is pulled towards the network's prior; 0 for none.
        learned: Edges are learned, not from intensities.
    """

    imitation: float = 0.5
    reward: RewardKind = "dice"
    prior: float = 0.0
    learned: bool = True


ARMS = {
    "imitation": Arm(1.0),
    "dqn": Arm(0.0),
    "imitation + dqn": Arm(),
    "reward iou": Arm(reward="iou"),
    "reward exp_iou": Arm(reward="exp_iou"),
    "reward regions": Arm(reward="regions"),
    "intensity edges": Arm(learned=False),
    "prior as shipped": Arm(prior=3.0),
    "prior, a hundred times weaker": Arm(prior=0.03),
}


class Walker(RandomWalker):
    """The random walker without its prior."""

    def solve(self, system: System, seeds: Tensor, **options: Any) -> Tensor:
        """Solve as if no prior had been given."""
        return super().solve(system, seeds, start=options.get("start"))


@dataclass(frozen=True, eq=False)
class ArmModel(SeedModel):
    """A model on the walker of an arm."""

    arm: Arm = Arm()

    def __post_init__(self) -> None:
        """Build the dynamics around that walker."""
        s = self.settings
        walker = RandomWalker(prior_weight=s.prior_weight) if self.arm.prior else Walker()
        dynamics = AgentDynamics(
            walker,
            stride=STRIDE,
            max_seeds=s.max_seeds,
            seed_radius=s.seed_radius,
            exclusion_radius=s.exclusion_radius,
        )
        object.__setattr__(self, "dynamics", dynamics)

    @torch.no_grad()
    def encode(self, image: Tensor, target: Tensor) -> EncodedWindows:
        """Look at windows, with the arm's edges."""
        if self.arm.learned:
            return super().encode(image, target)
        features = self.network.encode(image)
        weights = intensity_edges(image, beta=INTENSITY_BETA)
        return EncodedWindows(features, self.dynamics.segmenter.prepare(weights), target)


def build(arm: Arm, folder: Path) -> ArmModel:
    """The shipped perception with a new value head, on the arm's walker."""
    settings = replace(
        ModelSettings.from_json(read_manifest(folder)["settings"]),
        prior_weight=arm.prior,
        # Without a prior, seeds are all there is: they paint as much as in the reference trial.
        seed_radius=1.0 if arm.prior else 2.0,
        stop_threshold=0.0,
    )
    torch.manual_seed(0)
    network = settings.build_network()
    fresh = {k: v.clone() for k, v in network.state_dict().items()}
    weights = {k: v.float() for k, v in load_weights(folder).items()}
    kept = {k: v for k, v in weights.items() if not k.startswith("value_head.")}
    network.load_state_dict({**fresh, **kept})
    return ArmModel(settings, network.eval(), arm)


def train(model: ArmModel, cases: list[LabelledGrid], steps: int) -> float:
    """Train an arm's value head; returns its CPU minutes."""
    imitation = round(steps * model.arm.imitation)
    settings = AgentSettings(
        imitation_steps=imitation,
        dqn_steps=steps - imitation,
        imitation_weight=0.05 if imitation else 0.0,
        reward=RewardSettings(kind=model.arm.reward),
        radii=(2,) if model.arm.prior >= 1 else (2, 4, 8),
    )
    generator = Generator().manual_seed(0)
    sampler = Sampler(cases, Sampling(window=(32, 48, 40)), generator)
    learner = AgentLearner(model, sampler, settings, generator=generator)
    begin = time.process_time()
    while learner.step < learner.total_steps:
        learner.train_step()
    return (time.process_time() - begin) / 60


def measure(model: ArmModel, cases: list[LabelledGrid]) -> dict[str, Any]:
    """Dice from one click: at the agent's own stop, and with every number of seeds."""
    own, fixed, seeds = [], [], []
    for start in starts(cases, half_width=model.settings.half_width, seed=0, targets=[0]):
        answer = let_agent(model, start)
        own.append(answer.dice[-1])
        seeds.append(len(answer.dice) - 1)
        every = let_agent(model, start, stop_threshold=-np.inf).dice
        fixed.append(every + (every[-1],) * (model.settings.max_seeds + 1 - len(every)))
    return {
        "own_stop": float(np.mean(own)),
        "seeds": float(np.mean(seeds)),
        "by_seeds": np.mean(fixed, axis=0),
    }


def measured(result: dict[str, Any]) -> str:
    """Dice of every arm from one click."""
    arms = result["arms"].items()
    return "hippocampus val, small budget: " + ", ".join(
        f"{name} {arm['own_stop']:.3f}" for name, arm in arms
    )


def figures(name: str, *, model: str, steps: int) -> dict[str, Any]:
    """Train an arm's value head, and measure it."""
    folder = find(model)
    settings = ModelSettings.from_json(read_manifest(folder)["settings"])
    built = build(ARMS[name], folder)
    minutes = train(built, load("hippocampus-t1", "train", settings), steps)
    validation = load("hippocampus-t1", "val", settings)
    return {**measure(built, validation), "cpu_minutes": minutes}


def main() -> None:
    """Run the arms that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hippocampus-t1")
    parser.add_argument("--steps", type=int, default=120, help="batches for every arm")
    parser.add_argument("--arm", action="append", choices=ARMS, help="all by default")
    parser.add_argument("--workers", type=int, default=2, help="arms at a time")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    arms = run_arms(
        options.out,
        options.arm or ARMS,
        figures,
        workers=options.workers,
        claims={CLAIM: measured},
        model=options.model,
        steps=options.steps,
    )
    rows: list[list[object]] = []
    for name, f in arms.items():
        first, last = (f"{f['by_seeds'][n]:.3f}" for n in (0, -1))
        rows.append([name, first, f"{f['own_stop']:.3f}", f["seeds"], last])
    print_table(["arm", "one click", "own stop", "seeds", "ten seeds"], rows)


if __name__ == "__main__":
    main()
