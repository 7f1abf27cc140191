"""Trains the network that may decide instead of the fixed rule, and compares both.

On bent scans of the validation splits, which neither has seen. Two rounds: states of teams that
walk by the rule, then of teams that walk by the network (DAgger, Ross et al. 2011).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from medrl.rl.stage import reproducible, run_stage
from medrl.tracking.visits.calibrate import Case, make_case
from medrl.tracking.visits.learner import Imitation, ImitationSettings, states_of
from medrl.tracking.visits.model import VisitModel
from medrl.tracking.visits.network import BeliefNetwork, BeliefPolicy
from medrl.tracking.visits.walk import walk
from medrl.volume.read import read
from medrl_datasets import ixi_brain_t1, sts_ct_pet


def scans_of(root: Path, split: str) -> list[Path]:
    """CT of sarcomas and T1 of heads in turn, of a split."""
    found = []
    for data in (sts_ct_pet.DATASET, ixi_brain_t1.DATASET):
        folder = root / data.card.name
        found.append([data.files(folder, name)["image"] for name in data.splits(folder)[split]])
    return [path for pair in zip(*found, strict=False) for path in pair]


def main() -> None:
    """Train and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDRL_DATA", "../shared/data"))
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--steps", type=int, default=900)
    options = parser.parse_args()
    model, _ = VisitModel.load(options.model)
    settings = model.settings

    def case(split: str, number: int) -> Case:
        scans = scans_of(options.data, split)
        generator = np.random.default_rng(1000 + number)
        return make_case(read(scans[number % len(scans)]), settings, generator=generator)

    with reproducible(1, threads=1):
        generator = Generator().manual_seed(1)
        network = BeliefNetwork(levels=len(settings.spacings))
        rule, learned = model.policy(), BeliefPolicy(network)
        training = [case("train", n) for n in range(options.cases)]
        states = {}
        for turn, policy in enumerate((rule, learned)):
            policies = [policy] * len(training)
            more = states_of(training, policies, settings, each=4000, generator=generator)
            states = {n: torch.cat([states[n], v]) if states else v for n, v in more.items()}
            print(f"round {turn}: {len(states['level'])} states", flush=True)
            learner = Imitation(
                network, states, ImitationSettings(steps=options.steps), generator=generator
            )
            run_stage(
                learner,
                options.out / f"round{turn}.pt",
                report=lambda *told: print(*told, flush=True) if told[1] % 100 == 0 else None,
            )
        errors: dict[str, list[float]] = {"rule": [], "network": []}
        for number in range(6):
            one = case("val", number)
            for name, policy in (("rule", rule), ("network", learned)):
                walked = walk(
                    one.pair,
                    one.points_world,
                    view=settings.view,
                    policy=policy,
                    neighbours=settings.neighbours,
                )
                off = np.linalg.norm(walked.later_world - one.truth_world, axis=1)[: one.asked]
                errors[name].append(float(off.clip(max=10.0).mean()))
            print({name: round(values[-1], 2) for name, values in errors.items()}, flush=True)
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    print(means, flush=True)
    (options.out / "compared.json").write_text(json.dumps({"mean_mm": means, "cases": errors}))


if __name__ == "__main__":
    main()
