"""LapTrack and btrack on the same detections, as tables of identities and mothers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrl.tracking.objects.detections import Detections
from medrl.tracking.objects.tracks import Tracks

Floats = NDArray[np.float64]


def as_tracks(
    detections: Detections, track: NDArray[np.int64], parent: dict[int, int], length: int
) -> Tracks:
    """Tracks of whoever gives each detection an identity (N,), -1 for none."""
    rows = np.flatnonzero(track >= 0)
    rows = rows[np.lexsort((detections.frame[rows], track[rows]))]
    names = track[rows] + 1
    known = set(names.tolist())
    return Tracks(
        frame=detections.frame[rows],
        track=names,
        box=detections.box[rows],
        detection=rows,
        confidence=np.ones(len(rows)),
        label=detections.label[rows],
        parent={t + 1: p + 1 for t, p in parent.items() if t + 1 in known and p + 1 in known},
        length=length,
        detections=detections,
    )


def laptrack(
    detections: Detections, spacing: tuple[float, ...], *, reach: float, divides: bool
) -> tuple[NDArray[np.int64], dict[int, int]]:
    """LapTrack (Fukai and Kawaguchi 2023) with gap closing, and splitting where cells divide.

    Args:
        detections: N of them.
        spacing: In mm.
        reach: Largest distance between frames, in mm.
        divides: Look for divisions.

    Returns:
        Identities (N,), and mothers.
    """
    import pandas as pd
    from laptrack import LapTrack

    middle = detections.box.mean(axis=1) * np.array(spacing)
    table = pd.DataFrame({"frame": detections.frame, **dict(zip("xyz", middle.T, strict=True))})
    tracker = LapTrack(
        cutoff=reach**2,
        gap_closing_cutoff=reach**2,
        gap_closing_max_frame_count=3,
        splitting_cutoff=reach**2 if divides else False,
    )
    found, splits, _ = tracker.predict_dataframe(
        table, ["x", "y", "z"], frame_col="frame", only_coordinate_cols=False, index_offset=0
    )
    found = found.reset_index()
    order = np.lexsort((found["z"], found["y"], found["x"], found["frame"]))
    mine = np.lexsort((middle[:, 2], middle[:, 1], middle[:, 0], detections.frame))
    frames = found["frame"] if "frame" in found else found["frame_y"]
    assert (np.asarray(frames)[order] == detections.frame[mine]).all()
    track = np.empty(len(detections), np.int64)
    track[mine] = found["track_id"].to_numpy()[order]
    parent = {}
    if len(splits):
        pairs = zip(splits["child_track_id"], splits["parent_track_id"], strict=True)
        parent = {int(c): int(p) for c, p in pairs}
    return track, parent


def btrack(
    detections: Detections,
    spacing: tuple[float, ...],
    *,
    reach: float,
    extent: Floats,
    divides: bool,
) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Btrack (Ulicna et al. 2021): Bayesian belief matrix, then global hypotheses.

    Args:
        detections: N of them.
        spacing: In mm.
        reach: Largest distance between frames, in mm.
        extent: (3,), sides of the film in mm.
        divides: Look for divisions.

    Returns:
        Identities (N,), and mothers.
    """
    import logging

    import btrack as package
    from btrack.btypes import PyTrackObject

    logging.getLogger("btrack").setLevel(logging.ERROR)
    middle = detections.box.mean(axis=1) * np.array(spacing)
    objects = []
    for n, (frame, place) in enumerate(zip(detections.frame, middle, strict=True)):
        one = PyTrackObject()
        one.ID, one.t = n, int(frame)
        one.x, one.y, one.z = (float(value) for value in place)
        objects.append(one)
    with package.BayesianTracker(verbose=False) as tracker:
        tracker.configure(_cell_settings(reach, divides=divides))
        tracker.max_search_radius = reach
        tracker.append(objects)
        tracker.volume = tuple((-1.0, float(side) + 1) for side in extent)
        tracker.track(step_size=100)
        tracker.optimize(options={"tm_lim": 60_000})
        tracks = list(tracker.tracks)
    track = np.full(len(detections), -1)
    mothers = {}
    for one in tracks:
        rows = [r for r, dummy in zip(one.refs, one.dummy, strict=True) if not dummy and r >= 0]
        track[rows] = one.ID
        if one.parent and one.parent != one.ID:
            mothers[int(one.ID)] = int(one.parent)
    names = {name: n for n, name in enumerate(sorted({int(t) for t in track if t >= 0}))}
    renamed = np.array([names[int(t)] if t >= 0 else -1 for t in track])
    return renamed, {names[c]: names[p] for c, p in mothers.items() if c in names and p in names}


def _cell_settings(reach: float, *, divides: bool) -> dict[str, Any]:
    """The settings that btrack's documentation gives for cells; distances scaled to the reach."""
    step = np.eye(6)
    step[:3, 3:] = np.eye(3)
    hypotheses = ["P_FP", "P_init", "P_term", "P_link", *(["P_branch"] if divides else [])]
    return {
        "name": "cells",
        "version": "1.0",
        "verbose": False,
        "motion_model": {
            "name": "cell_motion",
            "dt": 1.0,
            "measurements": 3,
            "states": 6,
            "accuracy": 7.5,
            "prob_not_assign": 0.1,
            "max_lost": 5,
            "A": step.ravel().tolist(),
            "H": np.eye(3, 6).ravel().tolist(),
            "P": np.diag([0.1, 0.1, 0.1, 1.0, 1.0, 1.0]).ravel().tolist(),
            "R": (np.eye(3) * (0.2 * reach) ** 2 / 5).ravel().tolist(),
            "G": [7.5 * reach / 50] * 3 + [15.0 * reach / 50] * 3,
        },
        "object_model": None,
        "hypothesis_model": {
            "name": "cell_hypothesis",
            "hypotheses": hypotheses,
            "lambda_time": 5.0,
            "lambda_dist": 3.0 * reach / 50,
            "lambda_link": 10.0 * reach / 50,
            "lambda_branch": 50.0 * reach / 50,
            "eta": 1e-10,
            "theta_dist": reach,
            "theta_time": 5.0,
            "dist_thresh": reach,
            "time_thresh": 3.0,
            "apop_thresh": 5,
            "segmentation_miss_rate": 0.1,
            "apoptosis_rate": 0.001,
            "relax": True,
        },
    }
