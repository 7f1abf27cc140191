"""Builds the model `visits`: settings and confidence from bent training scans; 10 minutes."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from medrl.tracking.visits.calibrate import Case, choose_coupling, fit_confidence, make_case
from medrl.tracking.visits.model import VisitModel, VisitSettings
from medrl.tracking.visits.policy import Coupling
from medrl.volume.read import read
from medrl_datasets import ixi_brain_t1, sts_ct_pet

HERE = Path(__file__).parent
#: First and last weight of what neighbours say, of which the best is taken.
COUPLINGS = (
    Coupling(3e-4, 1e-3),
    Coupling(3e-4, 3e-3),
    Coupling(3e-4, 1e-2),
    Coupling(3e-4, 3e-2),
)


def training_scans(root: Path) -> list[Path]:
    """CT of sarcomas and T1 of heads in turn, of the training splits."""
    found = []
    for data in (sts_ct_pet.DATASET, ixi_brain_t1.DATASET):
        folder = root / data.card.name
        found.append([data.files(folder, name)["image"] for name in data.splits(folder)["train"]])
    return [path for pair in zip(*found, strict=False) for path in pair]


def main() -> None:
    """Choose, fit, and write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDRL_DATA", "../shared/data"))
    parser.add_argument("--choose", type=int, default=6, help="pairs for choosing settings")
    parser.add_argument("--fit", type=int, default=20, help="pairs for the confidence")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = VisitSettings()
    scans = training_scans(options.data)

    def case(number: int) -> Case:
        generator = np.random.default_rng(number)
        return make_case(read(scans[number % len(scans)]), settings, generator=generator)

    cases = [case(number) for number in range(options.choose)]
    errors = choose_coupling(cases, settings, COUPLINGS)
    for coupling, error in errors.items():
        print(f"{coupling}: {error:.3f} mm", flush=True)
    settings = replace(settings, coupling=min(errors, key=lambda one: errors[one]))
    numbers = range(options.choose, options.choose + options.fit)
    confidence = fit_confidence(
        (case(n) for n in numbers), settings, report=lambda line: print(line, flush=True)
    )
    print(confidence, flush=True)
    card = json.loads((HERE / "card.json").read_text(encoding="utf-8"))
    licence = (HERE / "LICENSE").read_text(encoding="utf-8")
    model = VisitModel(settings, confidence)
    print(model.save(options.out, name="visits", card=card, licence=licence))


if __name__ == "__main__":
    main()
