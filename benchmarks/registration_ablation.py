"""What each part of the registration agents is worth: learning, looking ahead, knowing the view.

Learning: the coarse level's agents walk eight steps on validation pairs, without looking ahead:
after imitation alone, after more imitation with the recurrent core, and after actor-critic with it,
at the same number of batches from the same weights (``--run``: the folder of a training).
Search: the shipped model on whole heads of the validation split in the two hardest bands, with one
thing changed at a time, before refinement. An arm that has a result already is not run again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation.registration_pairs import ScanPair, heads
from evaluation.results import RESULTS, print_table, save
from torch import Generator

from medrl.bundles import find
from medrl.evaluation import read_json
from medrl.registration.actor_critic import ActorCriticLearner, ActorCriticSettings
from medrl.registration.data import load_sources, read_datalist
from medrl.registration.dynamics import FieldOfView, RegistrationDynamics
from medrl.registration.model import COARSE, FINE, PreparedScan, RegistrationModel
from medrl.registration.network import RegistrationNetwork
from medrl.registration.pairs import PairSampler, PoseDistribution
from medrl.registration.register import Registrar
from medrl.registration.synthesis import Synthesis
from medrl.registration.train import compare
from medrl.registration.transforms import Kind
from medrl.rl.checkpoint import load_module

CLAIM = "What each part of the registration agents is worth"
OUT = RESULTS / "registration_ablation.json"
LEARNING = {"GRU + imitation": 0.0, "GRU + actor-critic": ActorCriticSettings().actor_weight}
BANDS = ("60", "any")


@dataclass(frozen=True, eq=False)
class Blind(RegistrationModel):
    """A model that takes what is out of view for air."""

    def dynamics(
        self, fixed: PreparedScan, moving: PreparedScan, *, kind: Kind = "rigid"
    ) -> RegistrationDynamics:
        """Without anything out of view."""
        seeing = super().dynamics(fixed, moving, kind=kind)
        lit = FieldOfView(torch.full((1, 1, 4), torch.inf), torch.ones(1, dtype=torch.bool))
        views = [replace(view, fixed=view.fixed.clamp(min=0), fov=lit) for view in seeing.views]
        return RegistrationDynamics(views, seeing.pivot, seeing.rules)


Change = Callable[[RegistrationModel], RegistrationModel]


def searching(**changes: Any) -> Change:
    """A model that searches in another way."""

    def change(model: RegistrationModel) -> RegistrationModel:
        search = replace(model.settings.search, **changes)
        return replace(model, settings=replace(model.settings, search=search))

    return change


SEARCH: dict[str, Change] = {
    "as shipped": lambda model: model,
    "no lookahead: the network's steps, agents compared by mutual information": searching(
        lookahead=False
    ),
    "no lookahead, agents compared by the predicted error": searching(
        lookahead=False, scorer="error"
    ),
    "lookahead by the predicted error (the value head)": searching(scorer="error"),
    "lookahead by mutual information without the network": searching(shares=()),
    "in-view mask off": lambda model: Blind(model.settings, model.networks),
}


def learn(run: Path, batches: int) -> dict[str, dict[str, float]]:
    """Errors of walks after each way to learn, mm."""
    scans = read_datalist(run / "data" / "datalist.json")
    sources = {
        split: load_sources(scans[split], spacing=FINE.spacing, seed=0)
        for split in ("training", "validation")
    }
    rigid = PoseDistribution(resize=0.0)

    def sampler(split: str, seed: int) -> PairSampler:
        return PairSampler(
            sources[split],
            COARSE,
            working=FINE.spacing,
            synthesis=Synthesis(),
            poses=rigid,
            size=32,
            generator=Generator().manual_seed(seed),
        )

    checkpoint = run / "checkpoints" / "coarse-imitation.safetensors"
    imitated = RegistrationNetwork(COARSE)
    load_module(checkpoint, imitated)
    networks = [(imitated, False)]
    for weight in LEARNING.values():
        network = RegistrationNetwork(COARSE)
        load_module(checkpoint, network)
        settings = ActorCriticSettings(steps=batches, actor_weight=weight)
        generator = Generator().manual_seed(0)
        learner = ActorCriticLearner(network, sampler("training", 0), settings, generator=generator)
        while learner.step < learner.total_steps:
            learner.train_step()
        networks.append((network, True))
    errors = compare(sampler("validation", 1), networks, seed=1)
    names = ("imitation alone", *LEARNING)
    return {
        name: {"error_mm": float(np.expm1(value))}
        for name, value in zip(names, errors, strict=True)
    }


def measure(registrar: Registrar, cases: list[ScanPair]) -> dict[str, float]:
    """Errors of the agents alone, and what they cost."""
    errors, begin = [], time.process_time()
    for case in cases:
        found = registrar.candidates(case.fixed, case.moving, refine=False)[0]
        errors.append(case.error_mm(found.agent_world))
    seconds = (time.process_time() - begin) / len(cases)
    return {
        "below_2_mm": int(np.sum(np.array(errors) < 2)),
        "below_10_mm": int(np.sum(np.array(errors) < 10)),
        "cases": len(cases),
        "median_mm": float(np.median(errors)),
        "cpu_s": seconds,
    }


def measured(result: dict[str, Any]) -> str:
    """Errors of walks after learning, and of the search with one thing changed."""
    learning = ", ".join(f"{k} {v['error_mm']:.1f} mm" for k, v in result["learning"].items())
    search = ", ".join(
        f"{k}: {v['below_2_mm']}/{v['cases']}, {v['median_mm']:.2f} mm"
        for k, v in result["search"].items()
    )
    return f"coarse walks without lookahead: {learning}; search: {search}"


def main() -> None:
    """Run the arms that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="rigid-head")
    parser.add_argument("--run", type=Path, help="folder of a training, for the learning arms")
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = read_json(options.out) or {"split": "IXI val", "learning": {}, "search": {}}
    if options.run and not result["learning"]:
        result["learning"] = learn(options.run, options.batches)
        result["batches"] = options.batches
        save(options.out, result, {CLAIM: measured})
    model, _ = RegistrationModel.load(find(options.model))
    cases = [planned.make() for planned in heads("val") if planned.band in BANDS]
    for name, change in SEARCH.items():
        if name not in result["search"]:
            result["search"][name] = measure(Registrar(change(model)), cases)
            save(options.out, result, {CLAIM: measured})
            print(name, result["search"][name], flush=True)
    rows: list[list[object]] = [
        [name, f"{f['error_mm']:.1f}"] for name, f in result["learning"].items()
    ]
    print_table(["learning, coarse level", "error after 8 steps, mm"], rows)
    rows = [
        [name, *(f"{f[k]} of {f['cases']}" for k in ("below_2_mm", "below_10_mm")),
         f"{f['median_mm']:.2f}", f"{f['cpu_s']:.2f}"]
        for name, f in result["search"].items()
    ]  # fmt: skip
    print_table(["search", "below 2 mm", "below 10 mm", "median mm", "CPU-s"], rows)


if __name__ == "__main__":
    main()
