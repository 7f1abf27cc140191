"""Overlap of the seed models that ship with experts' masks, from one click, next to what they face.

Every case gets one foreground click on any voxel of the target; everything is measured on the
scan's own grid. Methods: the agent (at most ten seeds, its own stop), the network and the
walker without agent, the network alone, random seeds with the true labels, an oracle on the plain
intensity walker, and a one-click threshold (41 % of the local SUV maximum on PET). Then a person
who knows the truth corrects: clicks on the agent's answer, on the network, on the plain walker and
on geodesic segmentation. Differences are paired; intervals are bootstrapped by subject. What a
click on the target's border gives is told apart, from further clicks.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
from pathlib import Path
from typing import Any

import torch
from evaluation.results import RESULTS, Claims, save
from evaluation.seeds import cases

import medrl
from medrl.seednet.evaluate import evaluate, figures, tables
from medrl.seednet.segment import SeedSegmenter

#: Channels seen, and the modality whose contour is the truth. One patient is clicked several
#: times where patients are few.
SARCOMA = {"PET + CT": (("PET", "CT"), "PET"), "PET": (("PET",), "PET"), "CT": (("CT",), "CT")}
CLICKS_PER_PATIENT = 3
#: Further clicks on the border of each target.
BORDER_CLICKS = 3


def hippocampus(segmenter: SeedSegmenter, split: str, clicks: int) -> dict[str, Any]:
    """All targets; corrections on the whole."""
    samples = cases("hippocampus-t1", split)
    border = BORDER_CLICKS
    whole = evaluate(segmenter, samples, clicks=clicks, border_clicks=border, targets=[0])
    parts = evaluate(segmenter, samples, clicks=0, border_clicks=border, targets=[1, 2])
    return figures(whole + parts)


def sarcoma(segmenter: SeedSegmenter, split: str, clicks: int) -> dict[str, Any]:
    """On both images, on PET, on CT; means over clicks, then over patients."""
    out = {}
    for name, (channels, mask) in SARCOMA.items():
        samples = cases("sarcoma-pet-ct", split, mask=mask)
        measured = evaluate(
            segmenter,
            samples,
            clicks=clicks,
            repeats=CLICKS_PER_PATIENT,
            border_clicks=BORDER_CLICKS,
            channels=channels,
        )
        out[name] = {**figures(measured)["tumour"], "patients": len(samples)}
    return out


def one_click_in_words(result: dict[str, Any]) -> str:
    """Dice of the agent from one click, and from one on the border, next to the other methods."""
    parts = []
    for target, own in result["figures"].items():
        values, border = own["one_click"], own["border_clicks"]["one_click"]["agent"]
        others = ", ".join(
            f"{name} {values[name]['mean_dice']:.3f}" for name in ("network", "one-click threshold")
        )
        mean, worst = (values["agent"][f"{kind}_dice"] for kind in ("mean", "worst"))
        rim = f"on the border {border['mean_dice']:.3f}, worst {border['worst_dice']:.2f}"
        parts.append(f"{target} {mean:.3f} (worst {worst:.2f}; {rim}; {others})")
    return "Dice: " + "; ".join(parts)


def corrections_in_words(result: dict[str, Any]) -> str:
    """Dice after each correction, and clicks to 0.90."""
    whole = result["figures"]["whole"]
    path = " ".join(f"{value:.3f}" for value in whole["dice_by_corrections"]["agent"])
    clicks = whole["clicks_to_goal"]["mean"]
    needed = ", ".join(f"{name} {value:.1f}" for name, value in clicks.items())
    return f"Dice {path}; clicks to 0.90: {needed}"


CLAIMS: dict[str, Claims] = {
    "hippocampus-t1": {
        "One click segments a hippocampus": one_click_in_words,
        "It answers to corrections": corrections_in_words,
    },
    "sarcoma-pet-ct": {"One click segments a sarcoma": one_click_in_words},
}


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
        segmenter = medrl.load(name)
        one_image = len(segmenter.model.settings.channels) == 1
        measure = hippocampus if one_image else sarcoma
        found = measure(segmenter, options.split, options.clicks)
        for table in tables(found):
            print(f"\n{table.title}\n\n{table.markdown()}", flush=True)
        model = str(segmenter.manifest["name"])
        result = {
            "model": model,
            "split": options.split,
            "weights_sha256": segmenter.manifest["weights"]["sha256"],
            "figures": found,
        }
        out = options.out or RESULTS / f"seednet_{model}_{options.split}.json"
        save(out, result, CLAIMS.get(model))


if __name__ == "__main__":
    main()
