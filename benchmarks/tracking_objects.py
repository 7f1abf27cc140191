"""Tracking agents against trackers without learning, on the same detections.

Films kept back (flies, cell nuclei) with detections given, and with 20 % of them missed and all of
them jittered; simulated cells in 3D with divisions; speed on one core; what parts are worth.
Needs trackeval, py-ctcmetrics, laptrack and tifffile; btrack where its library loads.

    python benchmarks/tracking_objects.py [--ablation]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation.results import RESULTS, print_table, save
from evaluation.tracking_cells import as_tracks, btrack, laptrack
from evaluation.tracking_metrics import ctc_figures, mot_figures
from evaluation.tracking_peers import bytetrack, centre_overlap, greedy, sort

from medrl.tracking.objects.detections import Detections
from medrl.tracking.objects.follow import FollowSettings, Tracker
from medrl.tracking.objects.learner import LearnerSettings
from medrl.tracking.objects.policy import HandMade
from medrl.tracking.objects.simulated import Film, Flaws, World, detected, simulate
from medrl.tracking.objects.task import Rewards
from medrl.tracking.objects.tracks import Tracks
from medrl.tracking.objects.train import TrainSettings, train
from medrl.tracking.objects.walk import Finish, Log, finished
from medrl_datasets import tracking_video as videos

FLAWS = Flaws(missed=0.2, jitter=0.08)
SEEDS = range(10)
CELLS = World(
    shape=(160, 160, 32),
    frames=30,
    objects=30,
    size=12,
    spacing=(1.0, 1.0, 2.0),
    speed=0.2,
    variety=0.1,
    divisions=0.01,
    comings=0.1,
)
CELL_SEEDS = range(101, 106)

Peer = Callable[[Detections], Any]


class HandMadeModel:
    """The same agents with values by hand in place of the network."""

    def __init__(self, tracker: Tracker) -> None:
        self.settings = tracker.model.settings
        self.values = HandMade(self.settings.view)
        self.sure = tracker.model.sure


def hand_made(tracker: Tracker) -> Tracker:
    """A tracker without learning."""
    return Tracker(HandMadeModel(tracker), name="by hand", manifest={})  # type: ignore[arg-type]


PEERS: dict[str, Peer] = {
    "greedy IoU": lambda d: greedy(d.frame, d.box),
    "greedy IoU, patience 30": lambda d: greedy(d.frame, d.box, patience=30),
    "SORT": lambda d: sort(d.frame, d.box),
    "SORT, patience 30": lambda d: sort(d.frame, d.box, patience=30, warm_up=1),
    "ByteTrack": lambda d: bytetrack(d.frame, d.box, d.score),
    "ByteTrack, wide gate": lambda d: bytetrack(d.frame, d.box, d.score, similarity=centre_overlap),
}


def interpolated(detections: Detections, track: Any) -> tuple[Any, Any, Any]:
    """Frames, identities and boxes of a peer's tracks with their gaps filled."""
    rows = np.flatnonzero(track >= 0)
    frames, names, boxes, found = [], [], [], []
    for one in np.unique(track[rows]):
        mine = rows[track[rows] == one]
        mine = mine[np.argsort(detections.frame[mine])]
        span = np.arange(detections.frame[mine[0]], detections.frame[mine[-1]] + 1)
        at = np.full(len(span), -1)
        at[detections.frame[mine] - span[0]] = mine
        frames.append(span)
        names.append(np.full(len(span), one))
        boxes.append(detections.box[np.where(at >= 0, at, 0)])
        found.append(at)
    log = Log(*(np.concatenate(x) for x in (frames, names, boxes, found)), np.ones(1), {})
    log = log._replace(sure=np.ones(len(log.frame)))
    done = finished(log, detections.box, Finish(least=1))
    return done.frame, done.track, done.box


def films(tracker: Tracker, root: Path) -> list[dict[str, Any]]:
    """Films kept back: rows of film, detections, method and figures."""
    out = []
    settings = FollowSettings(divides=False)
    for name in videos.DATASET.splits(root)["holdout"]:
        frames, truth = videos.film(root, name), videos.tracks(root, name)
        shape, length = (len(frames), *frames.shape[2:]), len(frames)
        for how, flaws, seeds in (
            ("given", Flaws(0.0, 0.0), range(1)),
            ("20 % missed, jitter", FLAWS, SEEDS),
        ):
            found: dict[str, list[dict[str, float]]] = {}
            for seed in seeds:
                seen = detected(truth, flaws, seed, shape)
                for method, one in (("medrl", tracker), ("medrl, by hand", hand_made(tracker))):
                    tracks = one.follow(frames, seen, settings=settings)
                    figures = mot_figures(truth, tracks.frame, tracks.track, tracks.box, length)
                    found.setdefault(method, []).append(figures)
                    only = tracks.detection >= 0
                    figures = mot_figures(
                        truth, tracks.frame[only], tracks.track[only], tracks.box[only], length
                    )
                    if method == "medrl":
                        found.setdefault("medrl, gaps left", []).append(figures)
                for method, peer in PEERS.items():
                    track = peer(seen)
                    kept = track >= 0
                    figures = mot_figures(
                        truth, seen.frame[kept], track[kept], seen.box[kept], length
                    )
                    found.setdefault(method, []).append(figures)
                    figures = mot_figures(truth, *interpolated(seen, track), length)
                    found.setdefault(f"{method}, gaps filled", []).append(figures)
            for method, rows in found.items():
                means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
                out.append({"film": name, "detections": how, "method": method, **means})
    return out


def _quiet(function: Callable[[], Any]) -> Any:
    """Packages that print whatever they do."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return function()


def _cell_methods(
    tracker: Tracker,
    film: Film,
    seen: Detections,
    *,
    reach: float,
    divides: bool,
    labels: Any = None,
) -> dict[str, Tracks]:
    """Tracks of medrl and of its peers; what cannot run is left out."""
    settings = FollowSettings(divides=divides)
    given = (film.frames, seen)
    out = {
        "medrl": tracker.follow(*given, spacing=film.spacing, settings=settings),
        "medrl, by hand": hand_made(tracker).follow(
            *given, spacing=film.spacing, settings=settings
        ),
    }
    track, parent = _quiet(lambda: laptrack(seen, film.spacing, reach=reach, divides=divides))
    out["LapTrack"] = as_tracks(seen, track, parent, film.shape[0])
    out["LapTrack, gaps filled"] = _filled(out["LapTrack"], seen, track)
    extent = np.array(film.shape[1:]) * np.array(film.spacing)
    try:
        track, parent = _quiet(
            lambda: btrack(seen, film.spacing, reach=reach, extent=extent, divides=divides)
        )
        out["btrack"] = as_tracks(seen, track, parent, film.shape[0])
        out["btrack, gaps filled"] = _filled(out["btrack"], seen, track)
    except Exception as error:
        print(f"btrack does not run here: {type(error).__name__} {error}", flush=True)
    for name in ("SORT", "ByteTrack, wide gate"):
        track = PEERS[name](seen)
        out[name] = as_tracks(seen, track, {}, film.shape[0])
        out[f"{name}, gaps filled"] = _filled(out[name], seen, track)
    return out


def _filled(tracks: Tracks, seen: Detections, track: Any) -> Tracks:
    """A peer's tracks with boxes in their gaps."""
    frame, names, box = interpolated(seen, track)
    names = names + 1
    row = np.full(len(frame), -1)
    where = {(int(f), int(t)): n for n, (f, t) in enumerate(zip(frame, names, strict=True))}
    for f, t, d in zip(tracks.frame, tracks.track, tracks.detection, strict=True):
        row[where[int(f), int(t)]] = d
    return replace(
        tracks,
        frame=frame,
        track=names,
        box=box,
        detection=row,
        confidence=np.ones(len(row)),
        label=np.where(row >= 0, seen.label[row], 0),
    )


def cells(tracker: Tracker, root: Path) -> list[dict[str, Any]]:
    """TRA of the film of cell nuclei, and of simulated cells."""
    out = []
    frames, truth, labels = (
        read(root, "cells") for read in (videos.film, videos.tracks, videos.masks)
    )
    truth = replace(truth, label=truth.track)
    shape = (len(frames), *labels.shape[1:])
    film = Film(truth, {}, frames, (1.0, 1.0, 1.0), shape)
    whole = as_tracks(truth, truth.track - 1, {}, shape[0])
    for how, flaws, seeds in (
        ("given", Flaws(0.0, 0.0), range(1)),
        ("20 % missed, jitter", FLAWS, range(5)),
    ):
        found: dict[str, list[dict[str, float]]] = {}
        for seed in seeds:
            seen = detected(truth, flaws, seed, shape)
            methods = _cell_methods(tracker, film, seen, reach=20.0, divides=False)
            for method, tracks in methods.items():
                masks = tracks.masks(labels=labels)
                figures = _quiet(lambda m=masks, t=tracks: ctc_figures(whole, labels, t, m))
                found.setdefault(method, []).append(figures)
        out += _means("cells", how, found)
    found = {}
    for seed in CELL_SEEDS:
        film = simulate(CELLS, seed)
        seen = detected(film.truth, FLAWS, seed, film.shape)
        parent = {child - 1: mother - 1 for child, mother in film.parent.items()}
        whole = as_tracks(film.truth, film.truth.track - 1, parent, film.shape[0])
        true_masks = whole.masks(shape=CELLS.shape)
        for method, tracks in _cell_methods(tracker, film, seen, reach=12.0, divides=True).items():
            masks = tracks.masks(shape=CELLS.shape)
            figures = _quiet(
                lambda w=whole, tm=true_masks, m=masks, t=tracks: ctc_figures(w, tm, t, m)
            )
            right = sum(tracks.parent.get(c) is not None for c in tracks.parent)
            found.setdefault(method, []).append({**figures, "daughters": float(right)})
    return out + _means("simulated cells in 3D", "20 % missed, jitter", found)


def _means(film: str, how: str, found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    return [
        {
            "film": film,
            "detections": how,
            "method": method,
            **{key: float(np.mean([row[key] for row in rows])) for key in rows[0]},
        }
        for method, rows in found.items()
    ]


def speed(tracker: Tracker) -> dict[str, float]:
    """Frames a second with 50 objects on one thread, images looked at, everything included."""
    out = {}
    for name, shape, spacing in (
        ("flat", (512, 512, 1), (1.0, 1.0, 1.0)),
        ("volume", (192, 192, 32), (1.0, 1.0, 2.0)),
    ):
        world = replace(CELLS, shape=shape, spacing=spacing, objects=50, frames=60, divisions=0.0)
        film = simulate(world, 7)
        seen = detected(film.truth, FLAWS, 7, film.shape)
        began = time.process_time()
        tracker.follow(film.frames, seen, spacing=spacing)
        out[name] = film.shape[0] / (time.process_time() - began)
        out[f"{name}, objects"] = len(film.truth) / film.shape[0]
    return out


def ablation(root: Path, steps: int) -> list[dict[str, Any]]:
    """What learning, and whose reward, is worth: simulated films that nobody was trained on."""
    from evaluation.tracking_arms import compare

    return compare(
        steps, train=train, base=TrainSettings(), learner=LearnerSettings(), rewards=Rewards()
    )


def claims(result: dict[str, Any]) -> dict[str, Callable[[dict[str, Any]], str]]:
    """What the README says."""

    def films_line(r: dict[str, Any]) -> str:
        kept = ("medrl", "ByteTrack, gaps filled", "SORT, gaps filled")
        return ". ".join(
            f"{row['film']}, {row['method']}: IDF1 {row['IDF1']:.1f}, HOTA {row['HOTA']:.1f}, "
            f"{row['IDSW']:.1f} switches"
            for row in r["films"]
            if row["method"] in kept and row["detections"] != "given"
        )

    def cells_line(r: dict[str, Any]) -> str:
        kept = ("medrl", "LapTrack, gaps filled", "btrack, gaps filled")
        return ". ".join(
            f"{row['film']}, {row['method']}: TRA {row['TRA']:.3f}"
            for row in r["cells"]
            if row["method"] in kept and row["detections"] != "given"
        )

    def speed_line(r: dict[str, Any]) -> str:
        s = r["speed"]
        return (
            f"50 objects: {s['flat']:.0f} frames a second flat, {s['volume']:.0f} in 3D, one core"
        )

    lines = {
        "Objects of films with 20 % of the detections missed and all jittered": films_line,
        "Cells likewise, with divisions": cells_line,
        "Tracking agents keep up with a camera": speed_line,
    }
    if "ablation" in result:
        lines["What each part of the tracking agents is worth"] = lambda r: "; ".join(
            f"{row['arm']}: {row['switches']:.1f} switches a film, IDF1 {row['IDF1']:.1f}"
            for row in r["ablation"]
        )
    return lines


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tracks")
    parser.add_argument("--ablation", type=int, default=0, metavar="STEPS")
    parser.add_argument("--out", type=Path, default=RESULTS / "tracking_objects.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(os.environ.get("MEDRL_DATA", "../shared/data")) / videos.CARD.name
    tracker = Tracker.load(options.model)
    result: dict[str, Any] = {"films": films(tracker, root)}
    keys = ("IDF1", "HOTA", "AssA", "MOTA", "IDSW", "FP", "FN")
    print_table(
        ("film", "detections", "method", *keys),
        [[r["film"], r["detections"], r["method"], *(r[k] for k in keys)] for r in result["films"]],
    )
    result["speed"] = speed(tracker)
    print(result["speed"], flush=True)
    result["cells"] = cells(tracker, root)
    keys = ("TRA", "DET", "LNK")
    print_table(
        ("film", "detections", "method", *keys),
        [
            [r["film"], r["detections"], r["method"], *(f"{r[k]:.4f}" for k in keys)]
            for r in result["cells"]
        ],
    )
    if options.ablation:
        result["ablation"] = ablation(root, options.ablation)
    save(options.out, result, claims(result))


if __name__ == "__main__":
    main()
