"""`brain-t1` on templates of the human head: other scanners, averages, no labels of its own kind.

Five T1 templates with AFIDs fiducials. No ground truth exists for the model's landmarks there, so
the checks are relations that anatomy fixes (in the frame of the anterior and posterior commissure,
AC and PC), distances to the one fiducial with the same definition (genu), and to what the model
itself says of turned copies. T2- and PD-weighted templates, which the model is not for, show what
happens then.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from evaluation.anatomy import CommissureFrame, anatomy
from evaluation.images import Array, Corruption, LabelledImage, corrupt
from evaluation.ixi import data_root
from evaluation.results import RESULTS, save

from medrl.errors import MedrlError
from medrl.evaluation import Table
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.detection import Detection
from medrl_datasets import afids_templates

CLAIM = "It finds the structures in templates from other scanners"
OUT_OF_SCOPE = ("MNI152Lin_T2w", "MNI152Lin_PDw")


def load(template: str) -> LabelledImage:
    """A template with its fiducials."""
    root = data_root() / "afids_templates"
    image = sitk.ReadImage(str(root / "images" / f"{template}.nii.gz"))
    return LabelledImage(
        template, template, image, afids_templates.DATASET.landmarks(root)[template]
    )


def turned_copies(
    detector: LandmarkDetector, case: LabelledImage, found: dict[str, Array]
) -> Array:
    """Distances (mm) between detections in turned copies, mapped back, and in the template.

    Args:
        detector: The model.
        case: The template.
        found: Its landmarks as found in the template as it is, carried along as the truth.
    """
    calm = Corruption(rotation_deg=20, shift_mm=10, slice_mm=1, bias=0, noise=(0, 0))
    distances = []
    for seed in range(2):
        copy = corrupt(replace(case, points_world=found), np.random.default_rng([seed, 3]), calm)
        for landmark in detector.detect(copy.scan()).landmarks:
            if landmark.status != "absent" and landmark.name in found:
                truth = copy.points_world[landmark.name]
                distances.append(float(np.linalg.norm(landmark.position_world - truth)))
    return np.array(distances)


def examine(
    detector: LandmarkDetector, case: LabelledImage, detection: Detection
) -> dict[str, Any]:
    """Everything that can be said about one T1 template."""
    points = {lm.name: lm.position_world for lm in detection.landmarks if lm.status != "absent"}
    frame = CommissureFrame.of(case.points_world)
    turned = turned_copies(detector, case, points)
    result: dict[str, Any] = {
        **statuses(detection),
        "commissure_frame_mm": {name: frame(point) for name, point in points.items()},
        "ac_world": case.points_world["AC"],
        "pc_world": case.points_world["PC"],
        "turned_copies": {
            "compared": len(turned),
            "mean_mm": float(turned.mean()) if len(turned) else None,
            "max_mm": float(turned.max()) if len(turned) else None,
        },
    }
    checks = anatomy(points, case.points_world)
    result["checks_held"] = sum(check.holds for check in checks)
    result["checks"] = [
        {"name": c.name, "mm": c.value, "low": c.low, "high": c.high, "holds": c.holds}
        for c in checks
    ]
    return result


def statuses(detection: Detection) -> dict[str, Any]:
    """Counts of what was found, and how sure the model is of it."""
    there = [lm for lm in detection.landmarks if lm.status != "absent"]
    return {
        "found": sum(lm.status == "found" for lm in detection.landmarks),
        "corrected": [lm.name for lm in detection.landmarks if lm.status == "corrected"],
        "absent": [lm.name for lm in detection.landmarks if lm.status == "absent"],
        "mean_confidence": float(np.mean([lm.confidence for lm in there])) if there else None,
        "least_confident": min(there, key=lambda lm: lm.confidence).name if there else None,
        "warnings": list(detection.warnings),
    }


def attempt(detector: LandmarkDetector, case: LabelledImage) -> Detection | str:
    """Detect, or say in words why not."""
    try:
        return detector.detect(case.scan())
    except MedrlError as error:
        return str(error)


def measured(result: dict[str, Any]) -> str:
    """Checks on the T1 templates."""
    told = [t for t in result["templates"].values() if "checks" in t]
    held, all_checks = sum(t["checks_held"] for t in told), sum(len(t["checks"]) for t in told)
    turned = [t["turned_copies"]["mean_mm"] for t in told]
    return (
        f"{held} of {all_checks} anatomical relations hold in {len(told)} templates; "
        f"turned copies agree to {min(turned):.1f}-{max(turned):.1f} mm"
    )


def main() -> None:
    """Run the model on every template and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="brain-t1", help="name or folder of the model")
    parser.add_argument("--out", type=Path, default=RESULTS / "landmark_templates.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = LandmarkDetector.load(options.model, alone=True)

    result: dict[str, Any] = {"model": Path(options.model).name, "templates": {}}
    detections: dict[str, Detection] = {}
    for template in afids_templates.TEMPLATES:
        case = load(template)
        detection = attempt(detector, case)
        if isinstance(detection, str):
            result["templates"][template] = {"refused": detection}
            continue
        detections[template] = detection
        if template in OUT_OF_SCOPE:
            result["templates"][template] = {"out_of_scope": True, **statuses(detection)}
        else:
            result["templates"][template] = examine(detector, case, detection)
    reference = detections.get("MNI152Lin_T1w")
    for template in OUT_OF_SCOPE:
        if reference is not None and template in detections:
            result["templates"][template]["distance_to_t1_mm"] = _between(
                detections[template], reference
            )
    save(options.out, result, {CLAIM: measured})
    print(report(result))


def report(result: dict[str, Any]) -> str:
    """The result as a table, and the checks that failed."""
    rows: list[list[object]] = []
    failed = []
    for name, figures in result["templates"].items():
        if "refused" in figures:
            rows.append([name, "refused", "", "", "", figures["refused"]])
            continue
        turned = figures.get("turned_copies", {}).get("mean_mm")
        checks = figures.get("checks", [])
        remark = ""
        if "distance_to_t1_mm" in figures:
            gap = figures["distance_to_t1_mm"]
            remark = f"out of scope; {gap['mean']:.1f} mm (max {gap['max']:.1f}) from T1"
        rows.append(
            [
                name,
                f"{figures['found']} + {len(figures['corrected'])} corrected",
                figures["mean_confidence"],
                f"{figures['checks_held']}/{len(checks)}" if checks else "",
                turned if turned is not None else "",
                remark,
            ]
        )
        failed += [
            f"{name}: {c['name']} {c['mm']:.1f} mm, not in {c['low']:g} to {c['high']:g}"
            for c in checks
            if not c["holds"]
        ]
    header = ["template", "found", "confidence", "checks held", "turned copies (mm)", "remark"]
    return "\n".join([Table("", header, rows).markdown(), "", *failed])


def _between(detection: Detection, reference: Detection) -> dict[str, float]:
    """Distances between two detections on the same grid, mm."""
    gaps = [
        float(np.linalg.norm(lm.position_world - reference[lm.name].position_world))
        for lm in detection.landmarks
        if lm.status != "absent" and reference[lm.name].status != "absent"
    ]
    return {"compared": len(gaps), "mean": float(np.mean(gaps)), "max": float(np.max(gaps))}


if __name__ == "__main__":
    main()
