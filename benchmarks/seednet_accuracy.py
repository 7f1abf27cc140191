"""Overlap of the seed models that ship with experts' masks, from one click, next to what they face.

Every case gets one foreground click at a random place inside the target and a window around that
click, so the object lies anywhere in it. Methods: the agent (at most ten seeds, its own stop), the
network and the walker without agent, the network alone, random seeds with the true labels, an
oracle on the plain intensity walker, and a one-click threshold (41 % of the local SUV maximum on
PET). Then a person who knows the truth corrects: clicks on the agent's answer, on the network, on
the plain walker and on geodesic segmentation. Differences are paired; intervals are bootstrapped.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
from pathlib import Path
from typing import Any

import torch
from evaluation.results import RESULTS, save
from evaluation.seeds import load

from medrl.bundles import find
from medrl.evaluation import Table
from medrl.seednet.evaluate import Evaluation, evaluate
from medrl.seednet.model import SeedModel

#: Channels seen, and the modality whose contour is the truth. One patient is clicked several
#: times where patients are few.
SARCOMA = {"PET + CT": (None, "PET"), "PET": ([0], "PET"), "CT": ([1], "CT")}
CLICKS_PER_PATIENT = 3


def hippocampus(model: SeedModel, split: str, clicks: int) -> dict[str, Any]:
    """All targets; corrections on the whole."""
    cases = load("hippocampus-t1", split, model.settings)
    whole = evaluate(model, cases, clicks=clicks, targets=[0])
    parts = evaluate(model, cases, clicks=0, targets=[1, 2])
    return {**whole.summary(), **parts.summary()}


def sarcoma(model: SeedModel, split: str, clicks: int) -> dict[str, Any]:
    """On both images, on PET, on CT; means over clicks, then over patients."""
    out = {}
    for name, (channels, mask) in SARCOMA.items():
        cases = load("sarcoma-pet-ct", split, model.settings, mask=mask)
        records = []
        for seed in range(CLICKS_PER_PATIENT):
            part = evaluate(model, cases, seed=10_000 * seed, clicks=clicks, channels=channels)
            records += part.records
        out[name] = {
            **Evaluation(tuple(records)).summary()["tumour"],
            "patients": len(cases),
        }
    return out


def show(figures: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    parts = []
    for target, result in figures.items():
        rows: list[list[object]] = []
        for method, value in result["one_click"].items():
            gap = value["agent_minus_this"]
            ahead = (
                ""
                if gap is None
                else f"{gap['mean']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})"
            )
            rows.append([method, f"{value['mean_dice']:.3f}", f"{value['worst_dice']:.3f}", ahead])
        parts.append(f"{target}, {result['cases']} cases, {result['agent_seeds_mean']:.1f} seeds")
        header = ["from one click", "mean Dice", "worst", "agent minus this"]
        parts.append(Table("", header, rows).markdown())
        fixed = ", ".join(f"{value:.4f}" for value in result["dice_by_fixed_seeds"])
        parts.append(f"agent with 0, 1, ... seeds: {fixed}")
        for method, path in result.get("dice_by_corrections", {}).items():
            reached = result["clicks_to_goal"]["mean"][method]
            curve = ", ".join(f"{value:.3f}" for value in path)
            parts.append(f"corrected, {method}: {curve}; clicks to 0.90: {reached:.1f}")
    return "\n\n".join(parts)


def main() -> None:
    """Measure both models and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("val", "holdout"), default="holdout")
    parser.add_argument("--model", action="append", help="name or folder; both by default")
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.model or ("hippocampus-t1", "sarcoma-pet-ct"):
        model, manifest = SeedModel.load(find(name))
        measure = hippocampus if model.settings.channels[0].name == "MR" else sarcoma
        figures = measure(model, options.split, options.clicks)
        print(f"\n{manifest['name']}, {options.split}\n\n{show(figures)}", flush=True)
        stem = f"seednet_{manifest['name']}_{options.split}.json"
        result = {
            "model": manifest["name"],
            "split": options.split,
            "weights_sha256": manifest["weights"]["sha256"],
            "figures": figures,
        }
        save(options.out or RESULTS / stem, result)


if __name__ == "__main__":
    main()
