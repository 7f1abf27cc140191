"""The shape prior, against scikit-image, SciPy and sets that were spoilt on purpose."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skimage.transform import SimilarityTransform

from medrl.landmark.shape import ShapePrior
from medrl.volume.procrustes import fit_points


def random_shapes(count=80, landmarks=12, seed=0):
    """Shapes with correlated variation, each in a pose and size of its own."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(landmarks, 3)) * 30
    modes = rng.normal(size=(4, landmarks, 3)) * 2.0
    shapes = []
    for _ in range(count):
        shape = mean + np.tensordot(rng.normal(size=4), modes, axes=1)
        shape = shape + rng.normal(size=shape.shape) * 0.5
        turn = Rotation.from_euler("xyz", rng.uniform(-30, 30, 3), degrees=True).as_matrix()
        shapes.append(rng.uniform(0.9, 1.1) * shape @ turn.T + rng.normal(size=3) * 40)
    return np.stack(shapes)


def test_similarity_agrees_with_scikit_image():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(9, 3)) * 20
    target = (
        source @ Rotation.random(random_state=2).as_matrix() * 1.3 + 7 + rng.normal(size=(9, 3))
    )
    expected = SimilarityTransform.from_estimate(source, target).params
    np.testing.assert_allclose(fit_points(source, target, scale=True), expected, atol=1e-9)


def test_prediction_beats_carrying_the_mean_over():
    shapes = random_shapes()
    prior = ShapePrior.fit(shapes[:60])
    errors, baseline = [], []
    for shape in shapes[60:]:
        assessment = prior.assess(shape)
        assert not assessment.outlier.any()
        errors.append(assessment.residual_mm)
        back = np.linalg.inv(fit_points(shape, prior.mean, scale=True))
        carried = prior.mean @ back[:3, :3].T + back[:3, 3]
        baseline.append(np.linalg.norm(carried - shape, axis=1))
    assert np.mean(errors) < 0.7 * np.mean(baseline)


@pytest.mark.parametrize("spoilt", [1, 3])
def test_outliers_are_rejected_and_no_others(spoilt):
    shapes = random_shapes()
    prior = ShapePrior.fit(shapes[:60])
    rng = np.random.default_rng(3)
    errors = []
    for shape in shapes[60:]:
        wrong = rng.choice(len(shape), size=spoilt, replace=False)
        moved = shape.copy()
        push = rng.normal(size=(spoilt, 3))
        moved[wrong] += 25 * push / np.linalg.norm(push, axis=1, keepdims=True)
        assessment = prior.assess(moved)
        assert sorted(np.flatnonzero(assessment.outlier)) == sorted(wrong)
        errors.extend(np.linalg.norm(assessment.expected_world[wrong] - shape[wrong], axis=1))
    assert np.mean(errors) < 6


def test_missing_landmarks_are_expected_but_not_judged():
    shapes = random_shapes()
    prior = ShapePrior.fit(shapes[:60])
    partial = shapes[60].copy()
    partial[[2, 5]] = np.nan
    assessment = prior.assess(partial)
    assert np.isnan(assessment.residual_mm[[2, 5]]).all()
    assert not assessment.outlier[[2, 5]].any()
    assert np.linalg.norm(assessment.expected_world[2] - shapes[60, 2]) < 8


def test_too_few_points_reject_nothing():
    prior = ShapePrior.fit(random_shapes()[:60])
    few = np.full((12, 3), np.nan)
    few[:4] = np.random.default_rng(0).normal(size=(4, 3)) * 100
    assert not prior.assess(few).outlier.any()
