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
from evaluation.arms import run_arms
from evaluation.registration_pairs import heads
from evaluation.results import RESULTS, print_table
from torch import Generator

from medrl.bundles import find
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
#: Weight of the actor's loss; None for the imitation that all begin with.
LEARNING: dict[str, float | None] = {
    "imitation alone": None,
    "GRU + imitation": 0.0,
    "GRU + actor-critic": ActorCriticSettings().actor_weight,
}
BANDS = ("60", "any")


@dataclass(frozen=True, eq=False)
class Blind(RegistrationModel):
    """A model that takes what is out of view for air."""

    def dynamics(
        self, fixed: PreparedScan, moving: PreparedScan, *, kind: Kind = "rigid"
    ) -> RegistrationDynamics:
        """Without anything out of view."""
        seeing = super().dynamics(fixed, moving, kind=kind)
        no_face = torch.tensor([[[0.0, 0.0, 0.0, torch.inf]]], dtype=torch.float64)
        lit = FieldOfView(no_face, torch.ones(1, dtype=torch.bool))
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


def learn(weight: float | None, run: Path, batches: int) -> dict[str, float]:
    """Errors of walks after learning with a weight of the actor; None for imitation alone."""
    scans = read_datalist(run / "data" / "datalist.json")

    def sampler(split: str, seed: int) -> PairSampler:
        return PairSampler(
            load_sources(scans[split], spacing=FINE.spacing, seed=0),
            COARSE,
            working=FINE.spacing,
            synthesis=Synthesis(),
            poses=PoseDistribution(resize=0.0),
            size=32,
            generator=Generator().manual_seed(seed),
        )

    network = RegistrationNetwork(COARSE)
    load_module(run / "checkpoints" / "coarse" / "coarse-imitation.safetensors", network)
    if weight is not None:
        learner = ActorCriticLearner(
            network,
            sampler("training", 0),
            ActorCriticSettings(steps=batches, actor_weight=weight),
            generator=Generator().manual_seed(0),
        )
        while learner.step < learner.total_steps:
            learner.train_step()
    (error,) = compare(sampler("validation", 1), [(network, weight is not None)], seed=1)
    return {"error_mm": float(np.expm1(error))}


def search(change: Change, model: str) -> dict[str, float]:
    """Errors of the agents alone, and what they cost."""
    loaded, _ = RegistrationModel.load(find(model))
    registrar = Registrar(change(loaded))
    pairs = [planned.make() for planned in heads("val") if planned.band in BANDS]
    errors, begin = [], time.process_time()
    for pair in pairs:
        found = registrar.candidates(pair.fixed, pair.moving, refine=False)[0]
        errors.append(pair.error_mm(found.agent_world))
    seconds = (time.process_time() - begin) / len(pairs)
    return {
        "below_2_mm": int(np.sum(np.array(errors) < 2)),
        "below_10_mm": int(np.sum(np.array(errors) < 10)),
        "cases": len(pairs),
        "median_mm": float(np.median(errors)),
        "cpu_s": seconds,
    }


def figures(name: str, *, model: str, run: str | None, batches: int) -> dict[str, float]:
    """Measure an arm of either kind."""
    if name in SEARCH:
        return search(SEARCH[name], model)
    return learn(LEARNING[name], Path(str(run)), batches)


def measured(result: dict[str, Any]) -> str:
    """Errors of walks after learning, and of the search with one thing changed."""
    arms = result["arms"].items()
    learning = [f"{name} {f['error_mm']:.1f} mm" for name, f in arms if name in LEARNING]
    searching = [
        f"{name}: {f['below_2_mm']}/{f['cases']}, {f['median_mm']:.2f} mm"
        for name, f in arms
        if name in SEARCH
    ]
    return f"coarse walks without lookahead: {', '.join(learning)}; search: {', '.join(searching)}"


def main() -> None:
    """Run the arms that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="rigid-head")
    parser.add_argument("--run", help="folder of a training, for the learning arms")
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--workers", type=int, default=2, help="arms at a time")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    arms = run_arms(
        options.out,
        [*(LEARNING if options.run else ()), *SEARCH],
        figures,
        workers=options.workers,
        claims={CLAIM: measured},
        model=options.model,
        run=options.run,
        batches=options.batches,
    )
    rows = [[name, f["error_mm"]] for name, f in arms.items() if name in LEARNING]
    print_table(["learning, coarse level", "error after 8 steps, mm"], rows)
    keys = ("below_2_mm", "below_10_mm", "cases", "median_mm", "cpu_s")
    rows = [[name, *(f[key] for key in keys)] for name, f in arms.items() if name in SEARCH]
    print_table(["search", "below 2 mm", "below 10 mm", "of", "median mm", "CPU-s"], rows)


if __name__ == "__main__":
    main()
