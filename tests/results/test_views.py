"""Which slice a picture shows, and where its labels go."""

import numpy as np

from medrl.results.views import busiest_slice, spread_labels


def test_slice_with_most_landmarks():
    assert busiest_slice(np.array([10.0, 50, 51, 53, 90]), 100) == 51
    assert busiest_slice(np.array([]), 100) == 50
    assert busiest_slice(np.array([-20.0, 300]), 100) == 50


def test_labels_keep_apart():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 60, (12, 2))
    spots = spread_labels(points, points, size=(60, 60))
    gaps = np.linalg.norm(spots[:, None] - spots[None], axis=2) + 1e3 * np.eye(12)
    assert gaps.min() > 3
    assert np.linalg.norm(spots - points, axis=1).max() < 20
    assert spots.min() > 2
    assert spots.max() < 58
