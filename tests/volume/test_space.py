import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medrl import MedrlError
from medrl.volume.space import (
    affine_to_lps,
    as_affine,
    inside,
    lps_to_ras,
    ras_to_lps,
    spacing_of,
    voxel_to_world,
    world_to_voxel,
)

Array = NDArray[np.float64]


@st.composite
def affines(draw: st.DrawFn) -> Array:
    """Rotated, anisotropic, flipped and sheared."""
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-3, 3)] * 3))).as_matrix()
    sizes = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    shear = np.eye(3)
    shear[0, 1] = draw(st.floats(-0.5, 0.5))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(np.multiply(sizes, signs)) @ shear
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


POINTS = arrays(np.float64, (4, 2, 3), elements=st.floats(-300, 300))


@settings(deadline=None)
@given(affine=affines(), points=POINTS)
def test_there_and_back(affine: Array, points: Array) -> None:
    world = voxel_to_world(points, affine)
    assert world.shape == points.shape
    np.testing.assert_allclose(world, nib.affines.apply_affine(affine, points), atol=1e-9)
    np.testing.assert_allclose(world_to_voxel(world, affine), points, atol=1e-6)
    np.testing.assert_allclose(spacing_of(affine), nib.affines.voxel_sizes(affine), rtol=1e-12)
    np.testing.assert_allclose(
        voxel_to_world(points, affine_to_lps(affine)), ras_to_lps(world), atol=1e-9
    )
    np.testing.assert_array_equal(lps_to_ras(ras_to_lps(world)), world)
    np.testing.assert_allclose(affine_to_lps(affine_to_lps(affine)), affine)


def test_lps_turns_x_and_y_around() -> None:
    np.testing.assert_array_equal(ras_to_lps([1.0, 2.0, 3.0]), [-1, -2, 3])


def test_inside_reaches_to_the_outer_faces() -> None:
    affine = nib.affines.from_matvec(np.diag([-2.0, 3.0, 4.0]), [10, 20, 30])
    voxels = [[0, 0, 0], [4, 5, 6], [-0.49, 5.49, 3], [-0.51, 0, 0], [0, 5.51, 0], [0, 0, 99]]
    world = nib.affines.apply_affine(affine, voxels)
    assert inside(world, affine, (5, 6, 7)).tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    "bad",
    [
        np.eye(3),
        np.diag([1.0, 0.0, 1.0, 1.0]),
        np.diag([1.0, np.nan, 1.0, 1.0]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.ones((4, 4)),
    ],
)
def test_what_is_no_affine_is_refused(bad: Array) -> None:
    with pytest.raises(MedrlError):
        as_affine(bad)
