"""Blobs where they were put, bright or dark, in pictures and volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medrl.errors import MedrlError
from medrl.tracking.objects.detector import find_blobs


def blobs(places: np.ndarray, shape: tuple[int, int, int], spacing: np.ndarray) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * spacing
    frame = np.zeros(shape)
    for place in places:
        frame += np.linalg.norm(grid - place * spacing, axis=-1) < 4.0
    return frame


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("shape", "spacing"), [((60, 50, 1), (1.0, 1.0, 1.0)), ((40, 36, 20), (1.0, 1.0, 2.0))]
)
def test_blobs_are_found_where_they_are(sign, shape, spacing) -> None:
    rng = np.random.default_rng(0)
    deep = shape[2] > 1
    places = np.array([[10, 12, 6 * deep], [25, 30, 12 * deep], [30, 10, 8 * deep]], float)
    frames = [blobs(places + np.array([n, 0, 0]), shape, np.array(spacing)) for n in range(3)]
    noisy = sign * np.stack(frames) + rng.normal(0, 0.1, (3, *shape))
    found = find_blobs(torch.from_numpy(noisy[:, None]).float(), diameter_mm=8.0, spacing=spacing)
    for frame in range(3):
        middle = found.box[found.frame == frame].mean(axis=1)
        assert len(middle) == 3
        apart = np.linalg.norm(middle[:, None] - (places + np.array([frame, 0, 0]))[None], axis=-1)
        assert apart.min(axis=0).max() <= 1.5
    sides = (found.box[:, 1] - found.box[:, 0])[:, :2]
    assert np.allclose(sides, 8.0)


def test_blobs_of_no_size_are_refused() -> None:
    with pytest.raises(MedrlError, match="voxels wide"):
        find_blobs(torch.zeros(2, 1, 8, 8, 1), diameter_mm=1.0, spacing=(1.0, 1.0, 1.0))
