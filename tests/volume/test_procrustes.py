"""Points fitted onto each other, against SciPy, and points of which the partners are known."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from medrl.volume.procrustes import fit_points, lay_straight, mirror_partners
from medrl.volume.space import apply_affine


def test_rigid_fits_are_scipys():
    random = np.random.default_rng(0)
    source, target = random.normal(0, 10, (9, 3)), random.normal(0, 10, (9, 3))
    matrix = fit_points(source, target, scale=False)
    middle = source.mean(axis=0), target.mean(axis=0)
    expected = Rotation.align_vectors(target - middle[1], source - middle[0])[0].as_matrix()
    np.testing.assert_allclose(matrix[:3, :3], expected, atol=1e-6)
    np.testing.assert_allclose(apply_affine(matrix, middle[0]), middle[1])


def test_shapes_are_laid_straight_with_points_missing():
    random = np.random.default_rng(1)
    shape = random.normal(0, 10, (12, 3))
    shapes = []
    for _ in range(5):
        turn = Rotation.random(random_state=random).as_matrix()
        shapes.append(shape @ turn.T + random.normal(0, 50, 3))
    shapes = np.stack(shapes)
    shapes[2, 4] = np.nan
    matrices, mean = lay_straight(shapes)
    for matrix, own in zip(matrices, shapes, strict=True):
        off = apply_affine(matrix, own) - mean
        assert np.nanmax(np.abs(off)) < 1e-6
    np.testing.assert_allclose(mean.mean(axis=0), 0, atol=1e-9)


def test_shapes_that_lie_alike_keep_their_way():
    random = np.random.default_rng(2)
    shape = random.normal(0, 10, (12, 3))
    shapes = np.stack([shape + random.normal(0, 0.3, (12, 3)) + 40 * n for n in range(4)])
    for matrix in lay_straight(shapes)[0]:
        assert np.degrees(Rotation.from_matrix(matrix[:3, :3]).magnitude()) < 3


def test_partners_are_those_on_the_other_side():
    random = np.random.default_rng(3)
    left = random.normal(0, 10, (6, 3)) - (15, 0, 0)
    middle = random.normal(0, 10, (3, 3)) * (0, 1, 1)
    points = np.concatenate([left, left * (-1, 1, 1), middle, [[9.0, 30.0, -20.0]]])
    turn = Rotation.random(random_state=random).as_matrix()
    points = points @ turn.T + random.normal(0, 0.05, points.shape)
    matrix, partner = mirror_partners(points)
    assert partner.tolist() == [*range(6, 12), *range(6), 12, 13, 14, -1]
    assert np.linalg.det(matrix[:3, :3]) < 0
    known = partner >= 0
    off = apply_affine(matrix, points[known]) - points[partner[known]]
    assert np.linalg.norm(off, axis=1).max() < 1.0
