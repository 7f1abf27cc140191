"""Figures of tracks by the packages that the field uses: trackeval, and py-ctcmetrics for cells."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrl.tracking.objects.detections import Detections
from medrl.tracking.objects.tracks import Tracks

from .tracking_peers import overlap


def mot_figures(
    truth: Detections, frame: Any, track: Any, box: Any, length: int
) -> dict[str, float]:
    """IDF1, HOTA, MOTA and identity switches of boxes with identities, by trackeval.

    Args:
        truth: Every object.
        frame: (N,) of the answer.
        track: (N,) identities.
        box: (N, 2, 3).
        length: Frames of the film.
    """
    import trackeval

    names = [np.unique(x, return_inverse=True) for x in (truth.track, track)]
    data: dict[str, Any] = {
        "num_gt_dets": len(truth),
        "num_tracker_dets": len(frame),
        "num_gt_ids": len(names[0][0]),
        "num_tracker_ids": len(names[1][0]),
        "num_timesteps": length,
        "gt_ids": [names[0][1][truth.frame == t] for t in range(length)],
        "tracker_ids": [names[1][1][frame == t] for t in range(length)],
        "similarity_scores": [
            overlap(truth.box[truth.frame == t], box[frame == t]) for t in range(length)
        ],
    }
    options = {"PRINT_CONFIG": False}
    hota = trackeval.metrics.HOTA().eval_sequence(data)
    clear = trackeval.metrics.CLEAR(options).eval_sequence(data)
    identity = trackeval.metrics.Identity(options).eval_sequence(data)
    return {
        "IDF1": 100 * float(identity["IDF1"]),
        "HOTA": 100 * float(np.mean(hota["HOTA"])),
        "AssA": 100 * float(np.mean(hota["AssA"])),
        "MOTA": 100 * float(clear["MOTA"]),
        "IDSW": float(clear["IDSW"]),
        "FP": float(clear["CLR_FP"]),
        "FN": float(clear["CLR_FN"]),
    }


def ctc_figures(
    truth: Tracks, truth_masks: NDArray[Any], answer: Tracks, masks: NDArray[Any]
) -> dict[str, float]:
    """TRA, DET and LNK by py-ctcmetrics, from files in the form of the Cell Tracking Challenge.

    Args:
        truth: The true tracks.
        truth_masks: (T, I, J, K).
        answer: Tracks.
        masks: (T, I, J, K).
    """
    import tifffile
    from ctc_metrics.scripts.evaluate import evaluate_sequence

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gt, res = folder / "01_GT" / "TRA", folder / "01_RES"
        for out, tracks, labels, kind in (
            (gt, truth, truth_masks, "man_track"),
            (res, answer, masks, "mask"),
        ):
            out.mkdir(parents=True)
            labels, spans = _whole(tracks, labels)
            lines = [" ".join(str(v) for v in row) for row in spans]
            text = "man_track.txt" if kind == "man_track" else "res_track.txt"
            (out / text).write_text("\n".join(lines) + "\n")
            for t, mask in enumerate(labels):
                # A volume is put side by side as a plane: the measures only count voxels.
                plane = np.concatenate(list(np.moveaxis(mask, 2, 0)), axis=1)
                tifffile.imwrite(out / f"{kind}{t:03d}.tif", plane.astype(np.uint16))
        found = evaluate_sequence(str(res), str(folder / "01_GT"), ["TRA", "DET", "LNK"], threads=1)
    return {key: float(found[key]) for key in ("TRA", "DET", "LNK")}


def _whole(
    tracks: Tracks, labels: NDArray[Any]
) -> tuple[NDArray[Any], list[tuple[int, int, int, int]]]:
    """Masks and L B E P of tracks without gaps, as the challenge wants them.

    A track that is not in some frame, or covered there by others, is cut: what follows is a new
    track whose mother it is.
    """
    seen: dict[int, list[int]] = {}
    for t, mask in enumerate(labels):
        for value in np.unique(mask[mask > 0]):
            seen.setdefault(int(value), []).append(t)
    new, out, spans = max(seen, default=0) + 1, labels.copy(), []
    final: dict[int, int] = {}
    for one, frames in sorted(seen.items()):
        cuts = [0, *(n + 1 for n, gap in enumerate(np.diff(frames)) if gap > 1), len(frames)]
        name, mother = one, -tracks.parent.get(one, 0)
        for first, past in pairwise(cuts):
            if first:
                for t in frames[first:past]:
                    out[t][labels[t] == one] = new
                mother, name, new = name, new, new + 1
            spans.append((name, frames[first], frames[past - 1], mother))
        final[one] = name
    # Mothers by the last piece of each.
    return out, [(a, b, e, final.get(-p, 0) if p < 0 else p) for a, b, e, p in spans]
