"""Does the confidence tell wrong registrations from right ones?

The search from 24 orientations is hardly ever wrong, so answers that are wrong are brought about:
whole heads of the IXI holdout, posed in any orientation, are also registered from one single start
with the centres together in a random orientation, which mostly ends in the best of the wrong
places.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation.registration_cases import heads
from evaluation.results import RESULTS, print_table, save
from torch import Generator

from medrl.registration.calibrate import RIGHT_MM
from medrl.registration.register import Registrar
from medrl.registration.transforms import random_rotations
from medrl.volume.space import apply_affine

OUT = RESULTS / "registration_confidence.json"
STARTS = 2
"""Single starts a case."""


def main() -> None:
    """Register, and count what is flagged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="rigid-head")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    registrar = Registrar.load(options.model)
    generator = Generator().manual_seed(2026)
    answers: list[dict[str, Any]] = []
    for planned in heads("holdout"):
        if planned.band != "any":
            continue
        case = planned.make()
        middle = case.points_world.mean(axis=0)
        target = case.targets_world.mean(axis=0)
        for number in range(1 + STARTS):
            start = None
            if number:
                start = np.eye(4)
                start[:3, :3] = random_rotations(1, generator=generator)[0].numpy()
                start[:3, 3] = target - apply_affine(start, middle)
            found = registrar.register(case.fixed, case.moving, initial_world=start)
            answers.append(
                {
                    "case": case.name,
                    "start": "24 orientations" if start is None else "one, astray",
                    "error_mm": case.error_mm(found.transform_world),
                    "predicted_error_mm": found.predicted_error_mm,
                    "confidence": found.confidence,
                    "trusted": found.trusted,
                }
            )
            print(answers[-1], flush=True)
    errors = np.array([a["error_mm"] for a in answers])
    flagged = np.array([not a["trusted"] for a in answers])
    wrong = errors >= RIGHT_MM
    predicted = np.array([a["predicted_error_mm"] for a in answers])
    result = {
        "split": "IXI holdout",
        "wrong": int(wrong.sum()),
        "wrong_flagged": int(flagged[wrong].sum()),
        "right": int((~wrong).sum()),
        "right_flagged": int(flagged[~wrong].sum()),
        "median_predicted_error_mm": {
            "of right": float(np.median(predicted[~wrong])),
            "of wrong": float(np.median(predicted[wrong])),
        },
        "median_error_mm": {
            "of right": float(np.median(errors[~wrong])),
            "of wrong": float(np.median(errors[wrong])),
        },
        "answers": answers,
    }
    save(options.out, result)
    rows: list[list[object]] = [
        [kind, f"{result[kind + '_flagged']} of {result[kind]}"] for kind in ("wrong", "right")
    ]
    print_table(["answers", "flagged"], rows)


if __name__ == "__main__":
    main()
