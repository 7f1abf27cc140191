"""Transforms as parameters, against SciPy's rotations and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from medrl.registration.transforms import (
    KINDS,
    PARAMETERS,
    about,
    compose,
    constrain,
    decompose,
    move,
    random_rotations,
    rotation,
    rotation_vector,
)

RNG = np.random.default_rng(0)
ANGLES = np.array([0.0, 1e-7, 1e-3, 1.0, 45.0, 90.0, 179.0, 179.9999])


def vectors(count: int = 50) -> np.ndarray:
    """Rotation vectors in degrees: all angles about many axes."""
    axes = RNG.normal(size=(count, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return (axes[:, None] * ANGLES[:, None]).reshape(-1, 3)


def parameters(**values: float) -> torch.Tensor:
    """Twelve parameters of which some are not zero, as in ``turn_x=3.0``."""
    out = torch.zeros(12, dtype=torch.float64)
    for name, value in values.items():
        out[PARAMETERS.index(name.replace("_", " "))] = value
    return out


def test_rotations_are_those_of_scipy() -> None:
    turns = vectors()
    expected = Rotation.from_rotvec(turns, degrees=True).as_matrix()
    np.testing.assert_allclose(rotation(torch.from_numpy(turns)).numpy(), expected, atol=1e-12)


def test_rotation_vectors_are_those_of_scipy() -> None:
    matrices = Rotation.from_rotvec(vectors(), degrees=True).as_matrix()
    expected = Rotation.from_matrix(matrices).as_rotvec(degrees=True)
    found = rotation_vector(torch.from_numpy(matrices)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, -2, 3]])
def test_half_turns_have_a_rotation_vector(axis: list[int]) -> None:
    unit = np.array(axis) / np.linalg.norm(axis)
    matrix = torch.from_numpy(2 * np.outer(unit, unit) - np.eye(3))
    found = rotation_vector(matrix).numpy()
    assert np.linalg.norm(found) == pytest.approx(180)
    assert abs(found @ unit) == pytest.approx(180)


def test_parameters_by_hand() -> None:
    cases = [
        (parameters(shift_y=-7.0), [[1, 0, 0, 0], [0, 1, 0, -7], [0, 0, 1, 0]]),
        (parameters(turn_z=90.0), [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]),
        (parameters(turn_x=90.0), [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0]]),
        (parameters(turn_y=90.0), [[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 0]]),
        (parameters(scale_y=10.0), [[1, 0, 0, 0], [0, math.exp(0.1), 0, 0], [0, 0, 1, 0]]),
        (parameters(shear_xy=20.0), [[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]),
        (parameters(shear_xz=20.0), [[1, 0, 0.2, 0], [0, 1, 0, 0], [0, 0, 1, 0]]),
        (parameters(shear_yz=20.0), [[1, 0, 0, 0], [0, 1, 0.2, 0], [0, 0, 1, 0]]),
    ]
    for given_parameters, rows in cases:
        expected = torch.tensor([*rows, [0, 0, 0, 1]], dtype=torch.float64)
        torch.testing.assert_close(compose(given_parameters), expected, atol=1e-12, rtol=0)


def test_a_transform_first_shears_and_scales_then_turns_then_shifts() -> None:
    drawn = RNG.uniform(-60, 60, (20, 12))
    for row, matrix in zip(drawn, compose(torch.from_numpy(drawn)).numpy(), strict=True):
        turn = Rotation.from_rotvec(row[3:6], degrees=True).as_matrix()
        upper = np.diag(np.exp(row[6:9] / 100))
        upper[0, 1], upper[0, 2], upper[1, 2] = row[9:] / 100
        point = RNG.normal(size=3) * 100
        np.testing.assert_allclose((matrix @ [*point, 1])[:3], turn @ (upper @ point) + row[:3])


any_parameters = st.tuples(
    *[st.floats(-200, 200)] * 3,
    *[st.floats(-100, 100)] * 3,  # less than half a turn in all
    *[st.floats(-100, 100)] * 6,
)


@given(any_parameters)
@example((0.0,) * 12)
@example((1.0, 2.0, 3.0, 1e-9, 0.0, 0.0, *(0.0,) * 6))
@settings(max_examples=100, deadline=None)
def test_parameters_come_back(drawn: tuple[float, ...]) -> None:
    wanted = torch.tensor(drawn, dtype=torch.float64)
    torch.testing.assert_close(decompose(compose(wanted)), wanted, atol=1e-6, rtol=1e-7)


def test_every_matrix_that_keeps_orientation_comes_back() -> None:
    matrices = np.tile(np.eye(4), (200, 1, 1))
    matrices[:, :3] = RNG.normal(size=(200, 3, 4))
    matrices[np.linalg.det(matrices[:, :3, :3]) < 0, 0] *= -1
    found = decompose(torch.from_numpy(matrices))
    np.testing.assert_allclose(compose(found).numpy(), matrices, atol=1e-9)
    assert (found[:, 3:6].norm(dim=1) <= 180 + 1e-9).all()


def test_single_precision_stays_single() -> None:
    drawn = torch.rand((3, 12), generator=torch.Generator().manual_seed(0))
    assert compose(drawn).dtype == torch.float32
    torch.testing.assert_close(decompose(compose(drawn)), drawn, atol=1e-3, rtol=0)


def test_about_a_pivot() -> None:
    matrix = compose(torch.from_numpy(RNG.uniform(-50, 50, (4, 12))))
    pivot = torch.from_numpy(RNG.uniform(-300, 300, (4, 3)))
    there, back = np.tile(np.eye(4), (2, 4, 1, 1))
    there[:, :3, 3], back[:, :3, 3] = pivot, -pivot
    moved = about(matrix, pivot)
    np.testing.assert_allclose(moved.numpy(), there @ matrix.numpy() @ back, atol=1e-9)
    torch.testing.assert_close(about(moved, -pivot), matrix)
    turn = about(compose(parameters(turn_x=40.0)), pivot[0])
    torch.testing.assert_close(move(turn, pivot[:1])[0], pivot[0])


def test_points_are_moved_as_by_homogeneous_coordinates() -> None:
    matrix = compose(torch.from_numpy(RNG.uniform(-50, 50, (5, 12))))
    points = torch.from_numpy(RNG.uniform(-100, 100, (5, 7, 3)))
    ones = torch.ones((5, 7, 1), dtype=torch.float64)
    expected = torch.einsum("nij,nkj->nki", matrix, torch.cat([points, ones], dim=-1))[..., :3]
    torch.testing.assert_close(move(matrix, points), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_keep_what_they_allow(kind: str) -> None:
    drawn = torch.from_numpy(RNG.uniform(-50, 50, (6, 12)))
    before = drawn.clone()
    kept = constrain(drawn, kind)
    assert (drawn == before).all()
    assert (kept[:, :6] == drawn[:, :6]).all()
    linear = compose(kept)[:, :3, :3]
    gram = linear.transpose(1, 2) @ linear
    if kind == "affine":
        assert (kept == drawn).all()
    else:
        scale = drawn[:, 6:9].mean(dim=1).div(100).exp() if kind == "similarity" else 1.0
        expected = torch.eye(3).double() * torch.as_tensor(scale).double().square().view(-1, 1, 1)
        torch.testing.assert_close(gram, expected.expand(6, 3, 3), atol=1e-9, rtol=0)


def test_random_rotations_are_spread_evenly() -> None:
    turns = random_rotations(4000, generator=torch.Generator().manual_seed(0))
    assert turns.dtype == torch.float64
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).double().expand_as(turns))
    assert (torch.linalg.det(turns) > 0).all()
    # Haar measure: angles have the density (1 - cos a) / pi, and images of any vector are uniform
    # on the sphere, so that each of their coordinates is uniform in -1..1.
    angles = np.radians(rotation_vector(turns).norm(dim=1).numpy())
    assert kstest(angles, lambda a: (a - np.sin(a)) / math.pi).pvalue > 0.01
    for row in range(3):
        for column in range(3):
            entries = (turns[:, row, column].numpy() + 1) / 2
            assert kstest(entries, "uniform").pvalue > 0.001
