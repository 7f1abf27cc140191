"""CPU seconds of the random walker next to scikit-image's, one pinned thread each, in one run.

Cold at 64^3; ten seeds added one by one at 32^3; seeds added on real hippocampus crops. The peer is
``skimage.segmentation.random_walker`` in its mode ``cg_j`` at its default tolerance; how far both
are from a tight solution is given beside.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time
from typing import Any

import numpy as np
import torch
from evaluation.results import RESULTS, print_table, save
from evaluation.seeds import load
from numpy.typing import NDArray
from skimage.segmentation import random_walker

from medrl.seednet.baselines import INTENSITY_BETA, PLAIN_RADIUS, painted
from medrl.seednet.model import ModelSettings
from medrl.seednet.oracle import oracle_seeds
from medrl.seednet.windows import normalize
from medrl.volume.channels import Channel
from medrl.walker.edges import intensity_edges
from medrl.walker.segmenter import RandomWalker

CLAIM = "The random walker answers sooner than scikit-image's"
TARGETS = {"cold, 64^3": 3.5, "added seed, 32^3": 15.0, "added seed, hippocampus": 5.0}
NOISE, SEEDS, BETA, CROPS, ADDED = 0.1, 30, 130.0, 2, 3


def problem(side: int) -> tuple[torch.Tensor, NDArray[np.bool_], NDArray[np.int8]]:
    """A noisy ball, its mask, and seeds at random places with true labels."""
    random = np.random.default_rng(0)
    axis = np.linspace(-1, 1, side)
    i, j, k = np.meshgrid(axis, axis, axis, indexing="ij")
    truth = i**2 + j**2 + k**2 < 0.4
    image = truth + NOISE * random.standard_normal(truth.shape)
    seeds = np.full(truth.shape, -1, dtype=np.int8)
    places = tuple(random.integers(0, side, SEEDS) for _ in range(3))
    seeds[places] = truth[places]
    seeds[(side // 2,) * 3], seeds[0, 0, 0] = 1, 0
    return torch.from_numpy(image).float()[None, None], truth, seeds


def theirs(image: torch.Tensor, seeds: NDArray[np.int8], beta: float) -> tuple[Any, float]:
    """Scikit-image's probability of foreground and its CPU seconds."""
    labels = np.where(seeds < 0, 0, 2 - seeds)
    volume = image[0, 0].numpy()
    start = time.process_time()
    full = random_walker(volume, labels, beta=beta, mode="cg_j", return_full_prob=True)
    return full[0], time.process_time() - start


def episode(
    image: torch.Tensor, seeds: NDArray[np.int8], places: list[tuple[Any, int]], beta: float
) -> dict[str, Any]:
    """Seeds added one by one: seconds of both, and how far apart they are in the end."""
    walker = RandomWalker()
    system = walker.prepare(intensity_edges(image, beta=beta))
    current = torch.from_numpy(seeds)[None]
    probability = walker.solve(system, current)
    ours, peer, apart, same = [], [], 0.0, 1.0
    for place, label in places:
        current = current.clone()
        current[(0, *place)] = label
        start = time.process_time()
        probability = walker.solve(system, current, start=probability)
        ours.append(time.process_time() - start)
        other, seconds = theirs(image, current[0].numpy(), beta)
        peer.append(seconds)
        apart = max(apart, float(np.abs(probability[0].numpy() - other).max()))
        same = min(same, float(((probability[0].numpy() > 0.5) == (other > 0.5)).mean()))
    return {"ours_s": ours, "scikit_image_s": peer, "apart": apart, "masks_equal": same}


def crops() -> dict[str, Any]:
    """Corrections on real crops by a person who knows the truth, as painted balls."""
    settings = ModelSettings()
    cases = load("hippocampus-t1", "train", settings)[:CROPS]
    total: dict[str, Any] = {"ours_s": [], "scikit_image_s": []}
    for case in cases:
        image = normalize(case.grid.volumes[0], Channel("MR"))[None, None]
        truth = case.truth[:1]
        walker = RandomWalker()
        system = walker.prepare(intensity_edges(image, beta=INTENSITY_BETA))
        seeds = torch.full(tuple(truth.shape), -1, dtype=torch.int8)
        inside = truth[0].nonzero()
        seeds[(0, *inside[len(inside) // 2])] = 1
        seeds[0, 0, 0, 0] = 0
        balls = painted(seeds, radius=PLAIN_RADIUS)
        probability = walker.solve(system, balls)
        for _ in range(ADDED):
            (voxel,), (label,) = oracle_seeds(probability > 0.5, truth)
            seeds[(0, *voxel.tolist())] = int(label)
            balls = painted(seeds, radius=PLAIN_RADIUS)
            start = time.process_time()
            probability = walker.solve(system, balls, start=probability)
            total["ours_s"].append(time.process_time() - start)
            total["scikit_image_s"].append(theirs(image, balls[0].numpy(), INTENSITY_BETA)[1])
    return total


def measured(result: dict[str, Any]) -> str:
    """Times scikit-image's speed."""
    return ", ".join(
        f"{name}: {case['times_scikit_image']:.1f}x" for name, case in result["cases"].items()
    )


def main() -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    image, truth, seeds = problem(16)
    RandomWalker().solve(
        RandomWalker().prepare(intensity_edges(image)), torch.from_numpy(seeds)[None]
    )
    image, truth, seeds = problem(64)
    start = time.process_time()
    walker = RandomWalker()
    system = walker.prepare(intensity_edges(image, beta=BETA))
    found = walker.solve(system, torch.from_numpy(seeds)[None])[0].numpy()
    seconds = time.process_time() - start
    other, peer = theirs(image, seeds, BETA)
    results: dict[str, Any] = {
        "cold, 64^3": {
            "ours_s": [seconds],
            "scikit_image_s": [peer],
            "apart": float(np.abs(found - other).max()),
            "masks_equal": float(((found > 0.5) == (other > 0.5)).mean()),
        }
    }
    image, truth, seeds = problem(32)
    random = np.random.default_rng(1)
    places = [tuple(random.integers(0, 32, 3)) for _ in range(10)]
    labelled = [(place, int(truth[place])) for place in places]
    results["added seed, 32^3"] = episode(image, seeds, labelled, BETA)
    results["added seed, hippocampus"] = crops()
    rows: list[list[object]] = []
    for name, result in results.items():
        ours, theirs_s = (np.mean(result[key]) for key in ("ours_s", "scikit_image_s"))
        result["times_scikit_image"] = float(theirs_s / ours)
        result["target"] = TARGETS[name]
        rows.append([name, f"{1000 * ours:.1f}", f"{1000 * theirs_s:.1f}", float(theirs_s / ours)])
    print_table(["case", "medrl, CPU-ms", "scikit-image cg_j", "ratio"], rows)
    save(RESULTS / "random_walker.json", {"cases": results}, {CLAIM: measured})


if __name__ == "__main__":
    main()
