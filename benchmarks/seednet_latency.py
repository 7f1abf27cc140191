"""How long a user waits for the answer to one more seed, on real scans, one thread.

The answer is all of it: the network's prior from the user's seeds, and the random walker from the
earlier probabilities. Windows of 40^3 and 64^3 voxels around hippocampi of the training split,
corrected click by click by a person who knows the truth. ``random_walker.py`` compares the walker
with scikit-image's.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation.results import RESULTS, print_table, save
from evaluation.seeds import load
from torch import Tensor

from medrl.bundles import find
from medrl.evaluation import summarize
from medrl.seednet.dynamics import SeedState
from medrl.seednet.model import EncodedWindows, SeedModel
from medrl.seednet.oracle import oracle_seeds
from medrl.seednet.windows import normalize
from medrl.walker.segmenter import NONE

CLAIM = "The answer to a seed comes while one clicks"
SIZES = (40, 64)
CASES, CLICKS = 3, 4
#: Milliseconds that an answer may take.
TARGETS = {40: 60.0, 64: 250.0}


def window(volume: Tensor, truth: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """A cube of an image and a mask around its middle; the scan's border is repeated."""
    where = truth.nonzero()
    middle = (where.amin(dim=0) + where.amax(dim=0)) // 2
    cut = tuple(slice(m + side // 2, m + side // 2 + side) for m in middle.tolist())
    image = np.pad(volume.numpy(), side, mode="edge")[cut]
    mask = np.pad(truth.numpy(), side)[cut]
    return torch.from_numpy(image.copy()), torch.from_numpy(mask.copy())


def timed(work: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, float]:
    """What a call returns, and the CPU milliseconds it took."""
    start = time.process_time()
    result = work(*args, **options)
    return result, 1000 * (time.process_time() - start)


def measure(model: SeedModel, side: int) -> dict[str, Any]:
    """CPU milliseconds of every answer in windows of one size."""
    cases = load("hippocampus-t1", "train", model.settings)[:CASES]
    ours, walker_only, first = [], [], []
    for case in cases:
        volume = normalize(case.grid.volumes[0], model.settings.channels[0])
        image, truth = window(volume, case.truth[0], side)
        seeds = torch.full((1, side, side, side), -1, dtype=torch.int8)
        inside = truth.nonzero()
        seeds[(0, *inside[len(inside) // 2])] = 1
        (encoded, state), spent = timed(begin, model, image, seeds)
        first.append(spent)
        for _ in range(CLICKS):
            voxel, label = oracle_seeds(state.mask, truth[None])
            if int(label[0]) < 0:
                break
            i, j, k = voxel[0].tolist()
            seeds[0, i, j, k] = int(label[0])
            before = state
            state, spent = timed(answer, model, encoded, before, seeds)
            ours.append(spent)
            prior = model.prior(encoded, seeds)
            solver = model.dynamics.segmenter
            options = {"prior": prior, "start": before.probability}
            _, spent = timed(solver.solve, encoded.system, seeds, **options)
            walker_only.append(spent)
    return {
        "answers": len(ours),
        "answer_ms": summarize(ours),
        "walker_alone_ms": summarize(walker_only),
        "first_look_ms": summarize(first),
        "target_ms": TARGETS.get(side),
    }


def begin(model: SeedModel, image: Tensor, seeds: Tensor) -> tuple[EncodedWindows, SeedState]:
    """Everything that is done at the first click."""
    encoded = model.encode(image[None, None], torch.zeros(1, dtype=torch.int64))
    return encoded, model.on(encoded, model.prior(encoded, seeds)).reset(seeds)


def answer(
    model: SeedModel, encoded: EncodedWindows, before: SeedState, seeds: Tensor
) -> SeedState:
    """Everything that is done at a further seed."""
    dynamics = model.on(encoded, model.prior(encoded, seeds))
    placed = dynamics.repaint(before, seeds)
    return dynamics.reset(placed, user=seeds != NONE, start=before.probability)


def measured(result: dict[str, Any]) -> str:
    """Milliseconds of an answer."""
    return "; ".join(
        f"{side}^3: {f['answer_ms']['median']:.0f} CPU-ms (median), walker alone "
        f"{f['walker_alone_ms']['median']:.0f}"
        for side, f in result["sizes"].items()
    )


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hippocampus-t1")
    parser.add_argument("--out", type=Path, default=RESULTS / "seednet_latency.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, manifest = SeedModel.load(find(options.model))
    measure(model, 24)  # compiles what has to be compiled
    sizes = {str(side): measure(model, side) for side in SIZES}
    rows: list[list[object]] = []
    for side, f in sizes.items():
        others = [f[n]["median"] for n in ("walker_alone_ms", "first_look_ms")]
        ours = [f["answer_ms"]["median"], f["answer_ms"]["p95"]]
        rows.append([f"{side}^3", *ours, *others, f["target_ms"]])
    header = ["window", "answer, ms", "95 %", "walker alone", "first look", "target"]
    print_table(header, rows)
    save(options.out, {"model": manifest["name"], "sizes": sizes}, {CLAIM: measured})


if __name__ == "__main__":
    main()
