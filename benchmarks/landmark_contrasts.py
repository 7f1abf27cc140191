"""How well `head-any` finds the landmarks of `brain-t1` in heads of any contrast.

Where real scans allow it: the T2 and PD templates against what `brain-t1` finds in the T1 template
of the same space; FLAIR, T1 and T2 of one patient against each other through the reference affines;
a CT by what lies before, above and beside what, and by copies that are turned and resampled; and
the IXI holdout as T1, as it is, skull-stripped, and in slices of 3 and 6 mm, next to `brain-t1`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from evaluation import ixi
from evaluation.anatomy import order
from evaluation.images import Array, Corruption, LabelledImage, corrupt, turned
from evaluation.results import RESULTS, save

from medrl.evaluation import plain, summarize
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.detection import Detection
from medrl.landmark.evaluate import AGENTS, Labelled, agents, errors, measure_methods
from medrl.volume.read import read
from medrl.volume.space import lps_to_ras, ras_to_lps
from medrl_datasets import get
from medrl_datasets.skull_strip import brain_mask

#: Copies of the CT that are turned by any angle, and that are resampled to slices of 1 to 6 mm.
TURNS, SLICES_MM = 4, (1, 3, 6)


def points(found: Detection) -> dict[str, Array]:
    """Landmarks that are in the scan."""
    return {lm.name: lm.position_world for lm in found.landmarks if lm.status != "absent"}


def apart(one: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, Any]:
    """Distances between what was found twice, and how much was found only once."""
    both = sorted(set(one) & set(other))
    distances = [float(np.linalg.norm(one[name] - other[name])) for name in both]
    return {**summarize(distances), "only_once": len(set(one) ^ set(other))}


def templates(detector: LandmarkDetector, t1: LandmarkDetector) -> dict[str, Any]:
    """T2 and PD against the answer of `brain-t1` on the T1 of the same space."""
    dataset, root = get("afids_templates"), ixi.data_root() / "afids_templates"

    def head(name: str) -> Path:
        return dataset.files(root, f"MNI152Lin_{name}")["image"]

    truth = points(t1.detect(head("T1w")))
    return {
        f"template, {name[:-1]}": apart(points(detector.detect(head(name))), truth)
        for name in ("T1w", "T2w", "PDw")
    }


def patient(detector: LandmarkDetector) -> dict[str, Any]:
    """T1, T2 and a later FLAIR against the first FLAIR of the same patient."""
    root = ixi.data_root() / "ms_multimodal"
    files = get("ms_multimodal").files(root, "patient01")
    first = points(detector.detect(files["image"]))
    to_common = affine(files["image_to_common"])
    found = {}
    for name, key in (("T1", "t1"), ("T2", "t2")):
        moved = {n: move(affine(files[f"{key}_to_image"]), p) for n, p in first.items()}
        found[f"patient, {name} against FLAIR"] = apart(points(detector.detect(files[key])), moved)
    # Both visits are known in a common space, whose points these transforms map to the scans.
    later = points(detector.detect(files["followup"]))
    back = np.linalg.inv(affine(files["followup_to_common"]))
    here = np.linalg.inv(to_common)
    found["patient, second FLAIR against the first"] = apart(
        {n: move(back, p) for n, p in later.items()}, {n: move(here, p) for n, p in first.items()}
    )
    return found


def affine(path: Path) -> Array:
    """A transform of the set (LPS, fixed to moving points), as (4, 4)."""
    transform = sitk.ReadTransform(str(path))
    center = np.array(transform.GetFixedParameters())
    parameters = np.array(transform.GetParameters())
    matrix = np.eye(4)
    matrix[:3, :3] = parameters[:9].reshape(3, 3)
    matrix[:3, 3] = center + parameters[9:] - matrix[:3, :3] @ center
    return matrix


def move(matrix: Array, point_world: Array) -> Array:
    """A point (3,), RAS mm, by a matrix in LPS."""
    return lps_to_ras(matrix[:3, :3] @ ras_to_lps(point_world) + matrix[:3, 3])


def head_ct(detector: LandmarkDetector) -> dict[str, Any]:
    """Relations in the CT, and how far answers in changed copies are from those in it."""
    files = get("cranium_ct").files(ixi.data_root() / "cranium_ct", "cranium_ct")
    scan = read(files["image"])
    detection = detector.detect(scan)
    found = points(detection)
    image = sitk.ReadImage(str(files["image"]), sitk.sitkFloat32)
    case = LabelledImage("cranium", "cranium", image, found)
    checks = order(found) if len(found) == len(detection.landmarks) else []
    distances, missing = [], 0
    for copy in ct_copies(case):
        here = points(detector.detect(copy.scan()))
        missing += len(found) - len(set(found) & set(here))
        both = set(found) & set(here)
        distances += [float(np.linalg.norm(here[n] - copy.points_world[n])) for n in both]
    return {
        "found": len(found),
        "checks": [{"name": c.name, "mm": c.value, "holds": c.holds} for c in checks],
        "holds": sum(check.holds for check in checks),
        "copies": summarize(distances),
        "copies_missing": missing,
        "warnings": list(detection.warnings),
    }


def ct_copies(case: LabelledImage) -> Iterator[LabelledImage]:
    """The CT turned in any way, and as slices of several thicknesses."""
    for seed in range(TURNS):
        yield turned(case, np.random.default_rng([seed, 5]))
    for thickness in SLICES_MM:
        size, spacing = list(case.image.GetSize()), list(case.image.GetSpacing())
        size[2] = int(size[2] * spacing[2] // thickness)
        spacing[2] = thickness
        resampled = sitk.Resample(
            sitk.SmoothingRecursiveGaussian(case.image, [0.1, 0.1, max(0.1, thickness / 3)]),
            size,
            sitk.Transform(),
            sitk.sitkLinear,
            case.image.GetOrigin(),
            spacing,
            case.image.GetDirection(),
            -1000.0,
        )
        yield replace(case, image=resampled)


def t1_heads(
    detectors: Mapping[str, LandmarkDetector], split: str, conditions: Mapping[str, Any]
) -> dict[str, Any]:
    """Errors of both models on labelled T1 heads."""
    found = {}
    for condition, change in conditions.items():
        measured = measure_methods(
            [change(ixi.load(subject)) for subject in ixi.subjects(split)],
            {name: agents(detector) for name, detector in detectors.items()},
            load=lambda head: Labelled(head.name, head.scan(), head.points_world, head.subject),
            subject=lambda head: head.subject,
            progress=lambda done, total, name: print(f"{done}/{total} {name}", flush=True),
        )
        found[condition] = {name: errors(rows) for name, rows in measured.by("method").items()}
    return found


def stripped(head: LabelledImage) -> LabelledImage:
    """The brain alone."""
    path = ixi.data_root() / "ixi_brain_t1" / "labels" / f"{head.subject}.nii.gz"
    labels = sitk.ReadImage(str(path))
    mask = brain_mask(sitk.GetArrayFromImage(labels).astype(np.int32), grow=1)
    kept = sitk.GetImageFromArray(sitk.GetArrayFromImage(head.image) * mask)
    kept.CopyInformation(head.image)
    return replace(head, image=kept)


def thick(slice_mm: float) -> Callable[[LabelledImage], LabelledImage]:
    """Slices so thick along a random axis, the head as it lies, without noise."""
    how = Corruption(rotation_deg=0, shift_mm=0, slice_mm=slice_mm, bias=0, noise=(0, 0))

    def change(head: LabelledImage) -> LabelledImage:
        return corrupt(head, np.random.default_rng([*head.subject.encode()]), how)

    return change


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="head-any", help="name or folder of the model")
    parser.add_argument("--split", choices=("val", "holdout"), default="holdout")
    parser.add_argument("--out", type=Path, help="JSON file; by default in results/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = LandmarkDetector.load(options.model)
    t1 = LandmarkDetector.load("brain-t1", alone=True)
    result = {
        "model": Path(options.model).name,
        "split": options.split,
        "apart_mm": {**templates(detector, t1), **patient(detector)},
        "ct": head_ct(detector),
        "t1": t1_heads(
            {AGENTS: detector, "brain-t1": t1},
            options.split,
            {
                "as is": lambda head: head,
                "skull-stripped": stripped,
                "slices of 3 mm": thick(3),
                "slices of 6 mm": thick(6),
            },
        ),
    }
    save(options.out or RESULTS / f"landmark_contrasts_{options.split}.json", result, CLAIMS)
    print(in_words(plain(result)), t1_in_words(plain(result)), sep="\n")


def in_words(result: dict[str, Any]) -> str:
    """How far answers are apart, and what holds in the CT."""
    parts = [
        f"{name}: mean {f['mean']:.2f} mm, 95 % {f['p95']:.2f}, max {f['max']:.1f}, "
        f"{f['only_once']} found only once"
        for name, f in result["apart_mm"].items()
    ]
    ct = result["ct"]
    parts.append(
        f"CT: {ct['holds']} of {len(ct['checks'])} relations hold, changed copies "
        f"mean {ct['copies']['mean']:.2f} mm, max {ct['copies']['max']:.1f}"
    )
    return "; ".join(parts)


def t1_in_words(result: dict[str, Any]) -> str:
    """Errors in T1 heads, next to `brain-t1`."""
    return "; ".join(
        f"{condition}: mean {both[AGENTS]['all']['mean']:.2f} mm "
        f"(brain-t1 {both['brain-t1']['all']['mean']:.2f})"
        for condition, both in result["t1"].items()
    )


CLAIMS: dict[str, Callable[[dict[str, Any]], str]] = {
    "`head-any` finds the same points whatever the contrast": in_words,
    "`head-any` in T1 heads kept back": t1_in_words,
}


if __name__ == "__main__":
    main()
