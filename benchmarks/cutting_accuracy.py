"""Dice of objects carried from the true mask of their middle slice, next to what does not walk.

Objects of the holdout that go through eight slices or more: vertebral bodies, left ventricles,
hippocampi, ten regions of the brain. Methods see the same outline: agents of `carry-scans`; the
same agents where they may move their boxes before they cut; registration from slice to slice
(demons, SimpleITK); copies; SeedNet seeded with the slice (`hippocampus-t1`). Then a person
outlines a second and a third slice where the mask is least sure, next to shape interpolation
between the same outlines.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation.results import RESULTS, Claims, print_table, save
from scipy.ndimage import binary_dilation, binary_erosion

import medrl
from medrl.cutting.carry import Carrier
from medrl.cutting.data import Sample
from medrl.cutting.evaluate import (
    AGENTS,
    COPY,
    DEMONS,
    METRICS,
    MOVING,
    SHAPES,
    Mask,
    Method,
    Object,
    agents,
    copying,
    demons,
    dice,
    figures,
    objects_of,
    shapes,
)
from medrl.cutting.samples import WHOLE
from medrl.evaluation import compare, measure
from medrl_datasets import get, root_of
from medrl_datasets.sunnybrook_lv import write_cases

#: The axis that slices follow one another along, and the objects measured, of each cohort.
COHORTS: dict[str, tuple[int, tuple[int, ...]]] = {
    "spine_mr_lumbar": (2, (1, 2, 3, 4, 5)),
    "sunnybrook_lv": (2, (1,)),
    "msd_hippocampus": (1, (WHOLE,)),
    # Thalamus, putamen, hippocampus and caudate of either side, brain stem, fourth ventricle.
    "ixi_brain_t1": (2, (59, 60, 57, 58, 47, 48, 36, 37, 35, 11)),
}
SEEDNET = "SeedNet"
#: Subjects of a cohort that SeedNet and demons are measured on: they take seconds for each object.
SLOW_SUBJECTS = 2
#: Subjects of a cohort for the corrections.
CORRECTED_SUBJECTS = 2
SPLITS = {"val": "val", "holdout": "holdout"}

CLAIMS: Claims = {
    "an outline of one slice, carried through the whole object": lambda r: (
        "Dice "
        + ", ".join(
            f"{name.split('_')[0]} {one['methods'][AGENTS]['dice']:.3f} "
            f"(demons {one['methods'][DEMONS]['dice']:.3f})"
            for name, one in r["cohorts"].items()
        )
    ),
    "slices painted beyond the object's ends and missed inside": lambda r: ", ".join(
        f"{name.split('_')[0]} {_wrong(one, AGENTS):.1f} (copies {_wrong(one, COPY):.1f})"
        for name, one in r["cohorts"].items()
    ),
    "a second and a third outline where it is least sure": lambda r: " -> ".join(
        f"{value:.3f}" for value in r["corrections"][AGENTS]
    ),
}


def _wrong(one: dict[str, Any], method: str) -> float:
    return float(one["methods"][method]["painted_beyond"] + one["methods"][method]["missed"])


def cohort(name: str, split: str, folder: Path) -> list[Object]:
    """The objects of a cohort."""
    root = root_of(name)
    data = get(name)
    axis, values = COHORTS[name]
    written = write_cases(root, folder / name) if name == "sunnybrook_lv" else {}
    found = []
    for subject in data.splits(root)[split]:  # type: ignore[index]
        files = written.get(subject) or data.files(root, subject)
        source = Sample(Path(files["image"]), Path(files["label"])).load()
        found += objects_of(source, axis, values, subject=subject)
    return found


def seeded() -> Method:
    """SeedNet with seeds on the outlined slice, inside and around the object."""
    segmenter = medrl.load("hippocampus-t1")

    def segment(one: Object) -> Mask:
        (number,) = one.outlined
        mask = one.truth[number]
        inside = binary_erosion(mask) if binary_erosion(mask).any() else mask
        around = binary_dilation(mask, iterations=4) & ~binary_dilation(mask, iterations=2)
        seeds = [
            f"{label}:{point}"
            for label, places in (("fg", inside), ("bg", around))
            for point in _points(places, one, number)
        ]
        found = segmenter.segment(one.data, seeds).mask.numpy()[0] > 0
        return np.moveaxis(found, one.axis, 0)

    return segment


def _points(places: Mask, one: Object, number: int) -> list[str]:
    """Some of the pixels of a slice, in millimetres."""
    there = np.argwhere(places)
    there = there[np.linspace(0, len(there) - 1, min(24, len(there))).astype(int)]
    voxels = np.insert(there, one.axis, number, axis=1) * np.array(one.source.spacing)
    return [",".join(f"{value:.3f}" for value in point) for point in voxels]


def corrected(carrier: Carrier, objects: Sequence[Object]) -> dict[str, list[float]]:
    """Mean Dice with one, two and three outlines, each where the agents are least sure."""
    found: dict[str, list[list[float]]] = {AGENTS: [], SHAPES: []}
    for one in objects:
        now, rows = one, {AGENTS: [], SHAPES: []}
        earlier = None
        for _ in range(3):
            earlier = carrier.carry(now.data, now.given, axis=now.axis, earlier=earlier)
            mask = np.moveaxis(earlier.labels.numpy()[0] > 0, now.axis, 0)
            rows[AGENTS].append(dice(now, mask))
            rows[SHAPES].append(dice(now, shapes(now)))
            there = set(np.flatnonzero(now.truth.any(axis=(1, 2))).tolist()) - set(now.outlined)
            quality = earlier.things[0].quality()
            worst = min(there, key=lambda n: (quality.get(n, 0.0), n))
            now = replace(now, outlined=tuple(sorted((*now.outlined, worst))))
        for name, values in rows.items():
            found[name].append(values)
    return {name: np.mean(values, axis=0).tolist() for name, values in found.items()}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--split", choices=SPLITS, default="holdout")
    parser.add_argument("--model", default="carry-scans")
    parser.add_argument("--cohorts", nargs="*", default=list(COHORTS))
    parser.add_argument("--quick", action="store_true", help="without SeedNet and demons")
    options = parser.parse_args()
    torch.set_num_threads(1)
    carrier = Carrier.load(options.model)
    methods: dict[str, Method] = {
        AGENTS: agents(carrier),
        MOVING: agents(carrier, moving=True),
        COPY: copying,
    }
    result: dict[str, Any] = {"model": options.model, "split": options.split, "cohorts": {}}
    some: list[Object] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cohorts:
            began = time.perf_counter()
            objects = cohort(name, options.split, Path(folder))
            measured = measure(objects, methods, METRICS, subject=lambda one: one.subject)
            first = list(dict.fromkeys(one.subject for one in objects))
            if not options.quick:
                part = [one for one in objects if one.subject in first[:SLOW_SUBJECTS]]
                own: dict[str, Method] = {DEMONS: demons, SEEDNET: seeded()}
                measured += measure(part, own, METRICS, subject=lambda one: one.subject)
            by_method = {m: figures(rows) for m, rows in measured.by("method").items()}
            result["cohorts"][name] = {
                "objects": len(objects),
                "subjects": len(first),
                "methods": by_method,
                "dice_agents_minus": {
                    other: compare(measured, "dice", AGENTS, other)
                    for other in methods
                    if other != AGENTS
                },
                "failed": [failure.reason for failure in measured.failures],
            }
            print(f"\n{name}: {len(objects)} objects, {time.perf_counter() - began:.0f} s")
            print_table(
                ["method", "Dice", "carried", "beyond", "missed", "seconds"],
                [
                    [m, *(f[k] for k in ("dice", "carried_dice", "painted_beyond", "missed")),
                     f["seconds"]]
                    for m, f in by_method.items()
                ],
            )  # fmt: skip
            some += [one for one in objects if one.subject in first[:CORRECTED_SUBJECTS]]
        result["corrections"] = corrected(carrier, some)
    print("\noutlines 1, 2, 3:", result["corrections"])
    if options.split == "holdout" and not options.quick:
        save(RESULTS / "cutting_accuracy_holdout.json", result, CLAIMS)


if __name__ == "__main__":
    main()
