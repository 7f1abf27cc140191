"""Baseline: landmarks carried over from labelled heads by affine registration with SimpleITK.

Atlases are the training subjects whose landmark sets are most typical; each is registered to
every head of the split. Finished registrations are kept in results/atlas_baseline.json, so the
script continues where it was stopped and other benchmarks read them; --fresh starts over.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import SimpleITK as sitk
from evaluation import atlas, ixi
from evaluation.results import RESULTS, environment, markdown, read, save
from evaluation.statistics import summarize

PATH = RESULTS / "atlas_baseline.json"
ATLASES = 3


def predictions(split: str) -> tuple[np.ndarray, list[float]]:
    """Registered landmarks on file.

    Args:
        split: The IXI split.

    Returns:
        (S, A, K, 3) RAS mm: subjects of the split, atlases, landmarks; NaN where not on file. And
        the CPU seconds of each registration.
    """
    stored = read(PATH).get("registrations", {})
    subjects = ixi.subjects(split)
    found = np.full((len(subjects), ATLASES, len(ixi.LANDMARKS), 3), np.nan)
    seconds = []
    for s, subject in enumerate(subjects):
        for a, name in enumerate(atlas.typical_subjects(ATLASES)):
            entry = stored.get(subject, {}).get(name)
            if entry:
                found[s, a] = [entry["points_world"][landmark] for landmark in ixi.LANDMARKS]
                seconds.append(entry["cpu_s"])
    return found, seconds


def errors(split: str) -> dict[str, np.ndarray]:
    """Errors in mm of the baselines on a split.

    Args:
        split: The IXI split.

    Returns:
        Errors by baseline, (S, K); for the single atlases (S, A, K), each atlas by itself.

    Raises:
        SystemExit: If registrations are missing.
    """
    found, _ = predictions(split)
    if np.isnan(found).any():
        raise SystemExit(f"run benchmarks/atlas_baseline.py --split {split} first")
    truth = ixi.shapes(split)
    distance = {
        "mean position in the world": ixi.shapes("train").mean(axis=0) - truth,
        "mean position from the scan's centre": atlas.mean_positions(split) - truth,
        "affine, one atlas": found - truth[:, None],
        f"affine, mean position of {ATLASES} atlases": found.mean(axis=1) - truth,
    }
    return {name: np.linalg.norm(offset, axis=-1) for name, offset in distance.items()}


def main() -> None:
    """Register what is missing and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=("val", "holdout"), default="holdout")
    parser.add_argument("--fresh", action="store_true", help="forget finished registrations")
    options = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    result = {} if options.fresh else read(PATH)
    stored = result.setdefault("registrations", {})
    for name in atlas.typical_subjects(ATLASES):
        source = ixi.load(name)
        for subject in ixi.subjects(options.split):
            entries = stored.setdefault(subject, {})
            if name in entries:
                continue
            target = ixi.load(subject)
            began = time.process_time()
            points = atlas.carry_over(source, target.image)
            entries[name] = {"cpu_s": time.process_time() - began, "points_world": points}
            save(PATH, result)

    _, seconds = predictions(options.split)
    summary = {name: summarize(error) for name, error in errors(options.split).items()}
    result[options.split] = {
        "atlases": atlas.typical_subjects(ATLASES),
        "subjects": len(ixi.subjects(options.split)),
        "cpu_s_per_registration_median": float(np.median(seconds)),
        "errors": summary,
    }
    result["environment"] = environment()
    save(PATH, result)
    columns = ["mean_mm", "median_mm", "p95_mm", "max_mm", "above_10_mm_percent"]
    rows = [[name, *[figures[c] for c in columns]] for name, figures in summary.items()]
    print(markdown([f"IXI {options.split}", *columns], rows))


if __name__ == "__main__":
    main()
