"""J on films of DAVIS from the mask of the first frame: agents that cut, and that move before.

The two holdout films, by the model that ships; others by models that were trained without them
(`recipes/carry-films/datalist.py --without`), whose folders --folds names. J leaves out the first
frame, which is given, and the last. Frames a second are those of one thread, as it was measured.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation.results import RESULTS, Claims, print_table, save

from medrl.cutting.carry import Carrier
from medrl.cutting.data import Sample
from medrl.cutting.evaluate import (
    AGENTS,
    COPY,
    DEMONS,
    METRICS,
    MOVING,
    Method,
    Object,
    agents,
    copying,
    demons,
)
from medrl.evaluation import measure
from medrl_datasets import get, root_of

NAME = "davis2016_small"
CLAIMS: Claims = {
    "J on films that were held out": lambda r: (
        f"{r['holdout'][AGENTS]:.3f} (moving {r['holdout'][MOVING]:.3f}, "
        f"demons {r['holdout'][DEMONS]:.3f}, copy {r['holdout'][COPY]:.3f})"
    ),
    "frames a second, one thread": lambda r: f"{r['frames_per_second']:.1f}",
}


def film(name: str) -> Object:
    """A film, outlined in its first frame."""
    files = get(NAME).files(root_of(NAME), name)
    source = Sample(files["image"], files["label"]).load()
    return Object(name, source, source.values[0], 0, (0,), name)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="carry-films")
    parser.add_argument("--folds", nargs="*", type=Path, default=[], metavar="FILM+FILM=MODEL")
    options = parser.parse_args()
    torch.set_num_threads(1)
    splits = get(NAME).splits(root_of(NAME))
    models: dict[str, str | Path] = dict.fromkeys(splits["holdout"], options.model)
    for fold in options.folds:
        names, _, model = str(fold).partition("=")
        models |= dict.fromkeys(names.split("+"), model)
    films: dict[str, dict[str, float]] = {}
    speeds = []
    for name, model in models.items():
        carrier = Carrier.load(model)
        one = film(name)
        methods: dict[str, Method] = {
            AGENTS: agents(carrier),
            MOVING: agents(carrier, moving=True),
            DEMONS: demons,
            COPY: copying,
        }
        measured = measure([one], methods, METRICS)
        films[name] = {m: measured.column("region", m)[name, ""] for m in methods}
        seconds = measured.column("seconds", AGENTS)[name, ""]
        speeds.append((len(one.truth) - 1) / seconds)
        print(name, films[name], f"{speeds[-1]:.1f} frames/s", flush=True)

    def mean(names: Any) -> dict[str, float]:
        return {
            m: float(np.mean([films[n][m] for n in names])) for m in (AGENTS, MOVING, DEMONS, COPY)
        }

    result = {
        "films": films,
        "holdout": mean(splits["holdout"]),
        "left_out": mean(films),
        "frames_per_second": float(np.mean(speeds)),
    }
    rows = [[name, *one.values()] for name, one in films.items()]
    rows += [["holdout", *result["holdout"].values()], ["all", *result["left_out"].values()]]
    print_table(["film", AGENTS, MOVING, DEMONS, COPY], rows)
    save(RESULTS / "cutting_films.json", result, CLAIMS)


if __name__ == "__main__":
    main()
