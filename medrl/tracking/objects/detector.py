"""A simple detector for films whose objects nobody has detected: blobs of about one size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medrl.errors import MedrlError
from medrl.tracking.objects.detections import Detections

#: Objects are those whose response reaches this share of that of the strongest tenth.
_SHARE = 0.35
#: Voxels that a blob must be wide.
_LEAST = 2.0


def find_blobs(
    frames: Tensor, *, diameter_mm: float, spacing: tuple[float, float, float]
) -> Detections:
    """Find blobs that are brighter or darker than what is around them.

    Maxima of the Laplacian of Gaussians at the scale of the blobs (Lindeberg 1998), bright or dark,
    whichever stand out more in the film.

    Args:
        frames: (T, C, I, J, K); colours are added up.
        diameter_mm: Of the blobs, in millimetres.
        spacing: Millimetres of a voxel along each axis.

    Returns:
        A box of that diameter around each, with its response as the score.

    Raises:
        MedrlError: If the blobs would be smaller than two voxels, or larger than a frame.
    """
    grey = frames.float().mean(dim=1).numpy()
    sizes = np.array(grey.shape[1:])
    flat = sizes == 1
    wide = diameter_mm / np.array(spacing)
    if (wide[~flat] < _LEAST).any() or (wide[~flat] > sizes[~flat]).any():
        raise MedrlError(
            f"blobs of {diameter_mm:g} mm are {wide.min():.1f} voxels wide: they must be two or "
            "more, and fit into a frame"
        )
    sigma = np.where(flat, 0.0, wide / (2 * np.sqrt(np.count_nonzero(~flat))))
    found = {sign: [_peaks(sign * frame, sigma, wide) for frame in grey] for sign in (1, -1)}
    strength = {
        sign: np.concatenate([response for _, response in peaks]) for sign, peaks in found.items()
    }
    sign = max(found, key=lambda one: _highest(strength[one]))
    least = _SHARE * _highest(strength[sign])
    number, boxes, scores = [], [], []
    half = np.where(flat, 0.5, wide / 2)
    for frame, (places, response) in enumerate(found[sign]):
        for place, value in zip(places, response, strict=True):
            if value >= least > 0:
                number.append(frame)
                boxes.append([place - half, place + half])
                scores.append(min(1.0, value / (least / _SHARE)))
    box = np.array(boxes, dtype=np.float64).reshape(-1, 2, 3)
    return Detections.of(number, box, score=np.array(scores, dtype=np.float64))


def _peaks(
    frame: NDArray[np.float32], sigma: NDArray[np.float64], wide: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places (N, 3) where the response is highest within half a blob, and how high it is."""
    response = -ndimage.gaussian_laplace(frame.astype(np.float64), sigma)
    around = np.where(sigma > 0, np.maximum(2 * (wide // 4) + 1, 3), 1).astype(int)
    highest = ndimage.maximum_filter(response, size=tuple(around))
    places = np.argwhere((response == highest) & (response > 0))
    return places, response[tuple(places.T)]


def _highest(strength: NDArray[np.float64]) -> float:
    """The mean response of the strongest tenth of the maxima."""
    if not len(strength):
        return 0.0
    return float(np.sort(strength)[-max(1, len(strength) // 10) :].mean())
