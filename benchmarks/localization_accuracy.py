"""How well `spine-boxes` and `brain-boxes` box scans that they were not trained on.

Each scan is cut and padded at random, its place in the world is moved, and halves are cut off:
overlap, wall distance, right name, presence and CPU time of the agents, next to the one look of the
network that they begin with and to the mean box. Of the spine also vertebrae without names and
actions; of the brain large and small structures apart. Figures for tuning come from --split val.
"""

from __future__ import annotations

import os

# Times are given for one thread: set before PyTorch and Numba load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation.boxes import halved, samples, shifted_and_cropped
from evaluation.results import RESULTS, print_table, save
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.data.datalist import SPLITS
from medrl.evaluation import Measurements, compare, confusion, measure, plain, summarize
from medrl.localization.answer import Box
from medrl.localization.baselines import BoxAtlas, ConstantBox
from medrl.localization.data import Sample
from medrl.localization.evaluate import (
    AGENTS,
    METRICS,
    ONE_SHOT,
    Labelled,
    Method,
    agents,
    average_precision,
    figures,
    one_shot,
)
from medrl.localization.localize import Localizer
from medrl.seednet.baselines import suv_region
from medrl.volume.read import read, read_labels
from medrl.volume.space import apply_affine, as_affine, depth_inside

Array = NDArray[np.float64]

#: Data sets by what is to be boxed; the models are called after it, too.
SETS = {"spine": "spine_mr_lumbar", "brain": "ixi_brain_t1", "sarcoma": "sts_ct_pet"}
#: The same agents with as many steps as they like, in place of the one that ships.
WALKING = "agents that walk on"
#: Structures of this much and more, ml, are large.
LARGE_ML = 20.0


def _in_words(result: dict[str, Any]) -> str:
    own = result["shifted_and_cropped"]
    lines = [
        f"{name}: IoU {one['iou']['mean']:.2f}, wall {one['wall_mm']['mean']:.2f} mm, "
        f"right name {one['right_name']:.1%}, {one['iou']['missed']} missed"
        for name, one in own.items()
    ]
    if told := result.get("without_names"):
        lines.append(f"AP without names {told['average_precision_0.5']:.2f}")
    for size, one in result.get("by_size", {}).items():
        lines.append(f"{size}: IoU {one['iou']['mean']:.2f}, {one['iou']['missed']} missed")
    shares = []
    for half in (result["halves"]["presence"], result["halves_beyond_4_mm"]):
        right = half["true_positive"] + half["true_negative"]
        shares.append(f"{right / sum(half.values()):.1%}")
    lines.append(
        f"presence in halves {shares[0]} right, {shares[1]} of what lies 4 mm from the cut or more"
    )
    lines.append(f"{result['cpu_s'][AGENTS]['mean']:.2f} CPU-s a scan")
    return "; ".join(lines)


CLAIMS = {
    "spine": {"Agents box vertebrae in scans that are cut and shifted at random": _in_words},
    "sarcoma": {"Agents box tumours in cut and shifted PET and CT": _in_words},
    "brain": {"Agents box brain structures in cut and shifted heads": _in_words},
}


def copies(sample: Sample, count: int) -> Iterator[Labelled]:
    """Cut and shifted copies of a scan, the same ones in every run."""
    scan, boxes = read(sample.image), sample.boxes_world()
    for index in range(count):
        rng = np.random.default_rng([_number(sample), index, 1])
        cut, moved, content = shifted_and_cropped(scan, rng)
        own = {name: box + moved for name, box in boxes.items()}
        images = _others(sample, cut, moved)
        yield Labelled(f"{sample.name} {index}", cut, own, sample.name, content, images)


def halves(sample: Sample) -> Iterator[Labelled]:
    """Halves of a scan: each axis and side, the plane at random."""
    scan, boxes = read(sample.image), sample.boxes_world()
    rng = np.random.default_rng([_number(sample), 2])
    for axis in range(3):
        for keep_low in (True, False):
            part = halved(scan, rng, axis=axis, keep_low=keep_low)
            images = _others(sample, part, np.zeros(3))
            name = f"{sample.name} {axis} {keep_low}"
            yield Labelled(name, part, boxes, sample.name, images=images)


def _others(sample: Sample, first: MetaTensor, moved: Array) -> dict[str, MetaTensor] | None:
    """The changed first image of a patient with the other ones, which have only moved with it."""
    if not sample.images:
        return None
    images = {name: read(path) for name, path in sample.images.items()}
    for image in images.values():
        image.affine[:3, 3] += torch.from_numpy(moved)
    return {**images, next(iter(images)): first}


def hottest_component(labelled: Labelled) -> dict[str, Box]:
    """The box of what takes up at least 41 % of the most, around where that is; a method."""
    uptake = labelled.scan.as_tensor()[0]
    at = np.unravel_index(int(uptake.argmax()), tuple(uptake.shape))
    inside = torch.nonzero(suv_region(uptake, (int(at[0]), int(at[1]), int(at[2])))).numpy()
    corners = np.stack([inside.min(axis=0) - 0.5, inside.max(axis=0) + 0.5])
    world = apply_affine(as_affine(labelled.scan.affine), corners)
    (name,) = labelled.boxes_world
    return {name: Box(name, np.sort(world, axis=0), "found", float("nan"))}


def depth_mm(labelled: Labelled, answer: Mapping[str, Box]) -> dict[str, float]:
    """How deep in the scan the middle of each true box is; negative outside."""
    affine, shape = as_affine(labelled.scan.affine), tuple(labelled.scan.shape[1:])
    return {
        name: float(depth_inside(box.mean(axis=0), affine, shape))
        for name, box in labelled.boxes_world.items()
    }


def presence_beyond(measured: Measurements, mm: float) -> dict[str, Any]:
    """Presence told by the agents, of what has its middle farther than this from a face."""
    told = measured.select(method=AGENTS, metric="said_present").rows
    there, depth = (measured.column(name, AGENTS) for name in ("is_present", "depth_mm"))
    far = [row for row in told if abs(depth[row.case, row.group]) > mm]
    known = [there[row.case, row.group] > 0 for row in far]
    return asdict(confusion(known, [row.value > 0 for row in far]))


def run(scans: Sequence[Labelled], methods: dict[str, Method]) -> Measurements:
    """Measure methods; seconds are the processor's."""
    return measure(
        scans,
        methods,
        {**METRICS, "depth_mm": depth_mm},
        groups=lambda one: [*one.present],
        subject=lambda one: one.subject,
        clock=time.process_time,
        progress=lambda done, total, name: print(f"{done}/{total} {name}", flush=True),
    )


def large(training: Sequence[Sample]) -> set[str]:
    """Targets whose median volume is at least :data:`LARGE_ML`."""
    volumes: dict[str, list[float]] = {}
    for sample in training:
        assert sample.mask is not None
        labels = read_labels(sample.mask)
        counts = np.bincount(labels.as_tensor().ravel().numpy())
        voxel_ml = abs(float(np.linalg.det(as_affine(labels.affine)[:3, :3]))) / 1000
        for name, values in sample.targets.items():
            voxels = sum(int(counts[value]) for value in values if value < len(counts))
            volumes.setdefault(name, []).append(voxels * voxel_ml)
    return {name for name, own in volumes.items() if np.median(own) >= LARGE_ML}


def by_size(measured: Measurements, large_names: set[str]) -> dict[str, Any]:
    """Figures of the agents for large targets and for the others."""
    own = measured.select(method=AGENTS)
    names = set(own.unique("group")) - {""}
    parts = {
        f"{LARGE_ML:g} ml and more": names & large_names,
        "smaller": names - large_names,
    }
    return {size: figures(own.select(group=sorted(part))) for size, part in parts.items() if part}


def without_names(localizer: Localizer, scans: Sequence[Labelled]) -> dict[str, float]:
    """Average precision of all boxes as vertebrae, and the actions that they took."""
    found, truth, steps = [], [], []
    for one in scans:
        answer = localizer.localize(one.given)
        there = [box for box in answer.boxes if box.status == "found"]
        found.append([(box.confidence, box.corners_world) for box in there])
        truth.append(list(one.present.values()))
        steps += [len(path.positions_world) - 1 for path in answer.trajectory.agents]
    return {
        "average_precision_0.5": average_precision(found, truth, least_iou=0.5),
        "average_precision_0.7": average_precision(found, truth, least_iou=0.7),
        "median_actions": float(np.median(steps)),
    }


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=tuple(SETS), default="spine", help="what is boxed")
    parser.add_argument("--model", help="name or folder of the model; by default that of the set")
    parser.add_argument("--split", choices=("val", "holdout"), default="holdout")
    parser.add_argument("--copies", type=int, default=8, help="cut and shifted copies a scan")
    parser.add_argument("--save", action="store_true", help="write the result to results/")
    parser.add_argument("--out", type=Path, help="JSON file to write instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    part = "" if options.set == "spine" else f"{options.set}_"
    out = options.out or RESULTS / f"localization_accuracy_{part}{options.split}.json"
    model, dataset = options.model or f"{options.set}-boxes", SETS[options.set]
    own = samples(dataset, {"val": SPLITS[1], "holdout": SPLITS[2]}[options.split])
    localizer = Localizer.load(model)
    localizer.localize(own[0].scan())  # compiles what is compiled on first use
    training = samples(dataset, SPLITS[0])
    constant = ConstantBox(training, localizer.target_names)
    many = replace(localizer.model.settings, steps=localizer.model.settings.view.max_steps)
    methods: dict[str, Method] = {
        AGENTS: agents(localizer),
        WALKING: agents(Localizer(replace(localizer.model, settings=many))),
        ONE_SHOT: one_shot(localizer),
        constant.name: constant,
    }
    if options.set == "sarcoma":
        methods["41 % component"] = hottest_component
    else:
        atlas = BoxAtlas(training, localizer.target_names, count=1, spacing=2.0)
        methods[atlas.name] = atlas
    scans = [one for sample in own for one in copies(sample, options.copies)]
    cut = run(scans, methods)
    halved_scans = run([one for sample in own for one in halves(sample)], {AGENTS: methods[AGENTS]})
    by_method = {name: figures(rows) for name, rows in cut.by("method").items()}
    result: dict[str, Any] = {
        "model": Path(model).name,
        "split": options.split,
        "subjects": len(own),
        "scans": len(scans),
        "shifted_and_cropped": by_method,
        "agents_minus": {
            name: compare(cut, "iou", AGENTS, name) for name in by_method if name != AGENTS
        },
        "halves": figures(halved_scans),
        "halves_beyond_4_mm": presence_beyond(halved_scans, 4.0),
        "cpu_s": {
            name: summarize(rows.values)
            for name, rows in cut.select(metric="seconds").by("method").items()
        },
    }
    if options.set == "spine":
        result["without_names"] = without_names(localizer, scans)
    elif options.set == "brain":
        result["by_size"] = by_size(cut, large(training))
    if options.save or options.out:
        other = "" if Path(model).name == f"{options.set}-boxes" else f", by {Path(model).name}"
        claims = {f"{claim}{other}": words for claim, words in CLAIMS[options.set].items()}
        save(out, result, claims)
    print_table(
        ["method", "IoU", "wall mm", "median", "right name"],
        [
            [n, f["iou"]["mean"], f["wall_mm"]["mean"], f["wall_mm"]["median"], f["right_name"]]
            for n, f in by_method.items()
        ],
    )
    print(_in_words(plain(result)))


def _number(sample: Sample) -> int:
    """The subject's number, as a seed."""
    return int(re.findall(r"\d+", sample.name)[0])


if __name__ == "__main__":
    main()
