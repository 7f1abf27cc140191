"""Coordinate spaces, and the only place where RAS and LPS meet.

Convention: *world* is RAS+ in millimetres, float64. *Voxel* coordinates are (i, j, k) in array
order, whole numbers at voxel centres. An *affine* is the 4x4 matrix that maps voxel to world.
ITK and 3D Slicer files are LPS: x and y change sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError

Points = NDArray[np.float64]

#: Diagonal of the matrix that maps RAS to LPS, and LPS to RAS.
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

#: Cosine between two axes beyond which ITK opens no NIfTI file.
_MOST_SHEAR = 2e-4


def as_affine(affine: Any) -> NDArray[np.float64]:
    """Check a voxel-to-world matrix and return it as float64.

    Args:
        affine: 4x4 matrix (array or tensor), voxel to world, millimetres.

    Returns:
        The matrix, shape (4, 4), float64.

    Raises:
        MedrlError: If it is not a finite, invertible 4x4 affine matrix.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise MedrlError(f"the affine must be a 4x4 matrix, not of shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise MedrlError("the affine must be finite: it holds numbers that are NaN or infinite")
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise MedrlError("the affine's last row must be 0 0 0 1")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if (lengths <= 0).any() or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6:
        raise MedrlError("the affine is singular: the scan's axes do not span a volume")
    return matrix


def as_transform(matrix: ArrayLike) -> NDArray[np.float64]:
    """Check a world transform and return it as float64.

    Args:
        matrix: 4x4, fixed to moving, RAS mm.

    Returns:
        The matrix, shape (4, 4), float64.

    Raises:
        MedrlError: If it is not a finite, invertible 4x4 matrix with the last row 0 0 0 1.
    """
    try:
        return as_affine(matrix)
    except (MedrlError, TypeError, ValueError):
        raise MedrlError(
            "a transform must be an invertible 4x4 matrix of finite numbers, its last row 0 0 0 1"
        ) from None


def apply_affine(affine: ArrayLike, points: ArrayLike) -> Points:
    """Map points by a 4x4 matrix.

    Args:
        affine: Matrix of shape (4, 4).
        points: Points of shape (..., 3), in the matrix's source space.

    Returns:
        Points of the same shape, in the matrix's target space, float64.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def voxel_to_world(points_voxel: ArrayLike, affine: ArrayLike) -> Points:
    """Voxel coordinates (..., 3) to world coordinates (RAS mm, float64)."""
    return apply_affine(as_affine(affine), points_voxel)


def world_to_voxel(points_world: ArrayLike, affine: ArrayLike) -> Points:
    """World coordinates (..., 3; RAS mm) to voxel coordinates (float64, not rounded)."""
    return apply_affine(np.linalg.inv(as_affine(affine)), points_world)


def ras_to_lps(points: ArrayLike) -> Points:
    """Points (..., 3) in RAS mm to LPS mm."""
    return np.asarray(points, dtype=np.float64) * (-1.0, -1.0, 1.0)


def lps_to_ras(points: ArrayLike) -> Points:
    """Points (..., 3) in LPS mm to RAS mm."""
    return ras_to_lps(points)


def affine_to_lps(affine: ArrayLike) -> NDArray[np.float64]:
    """A voxel-to-RAS matrix (4, 4) to voxel-to-LPS; applied twice it returns the first."""
    return LPS_FROM_RAS @ as_affine(affine)


def spacing_of(affine: ArrayLike) -> NDArray[np.float64]:
    """Distance between voxel centres along each array axis, in mm, shape (3,)."""
    return np.linalg.norm(as_affine(affine)[:3, :3], axis=0)


def is_sheared(affine: ArrayLike) -> bool:
    """Whether a scan's axes are further from perpendicular than ITK's images may be."""
    matrix = as_affine(affine)[:3, :3] / spacing_of(affine)
    return bool(np.abs(matrix.T @ matrix - np.eye(3)).max() > _MOST_SHEAR)


def cropped_affine(affine: ArrayLike, corner_voxel: ArrayLike) -> NDArray[np.float64]:
    """The affine of the part of a grid whose first voxel is ``corner_voxel`` (3,) of the whole."""
    matrix = as_affine(affine).copy()
    matrix[:3, 3] = voxel_to_world(corner_voxel, affine)
    return matrix


def box_corners(low: ArrayLike, high: ArrayLike) -> Points:
    """The eight corners (8, 3) of a box, from its lowest and highest coordinates (3,)."""
    ends = np.stack([low, high], axis=-1).astype(np.float64)
    return np.stack(np.meshgrid(*ends), -1).reshape(-1, 3)


def same_grid(
    one: ArrayLike, other: ArrayLike, shape: tuple[int, ...], *, within: float = 1e-3
) -> bool:
    """Whether two affines put every voxel of a grid at one place.

    Numbers in headers are rounded in many ways: whether grids are the same is not a matter of
    digits, but of how far voxels are off, and that is most at a corner.

    Args:
        one: (4, 4), voxel to world.
        other: (4, 4), voxel to the same world.
        shape: The grid (I, J, K).
        within: How far off they may be, as part of the smallest voxel size.
    """
    corners = box_corners((0, 0, 0), np.asarray(shape[-3:], dtype=np.float64) - 1)
    apart = np.linalg.norm(apply_affine(one, corners) - apply_affine(other, corners), axis=-1)
    return bool(apart.max() <= within * spacing_of(one).min())


def depth_inside(points_world: ArrayLike, affine: ArrayLike, shape: tuple[int, ...]) -> Points:
    """Distance of points to the nearest face of a scan, outermost voxels counted in full.

    Args:
        points_world: Points of shape (..., 3), RAS mm.
        affine: The scan's voxel-to-world matrix.
        shape: The scan's grid (I, J, K).

    Returns:
        Millimetres along the array axes, shape (...); negative outside.
    """
    voxel = world_to_voxel(points_world, affine)
    upper = np.asarray(shape[-3:], dtype=np.float64) - 0.5
    depth = np.minimum(voxel + 0.5, upper - voxel) * spacing_of(affine)
    return np.asarray(depth.min(axis=-1), dtype=np.float64)


def inside(points_world: ArrayLike, affine: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Tell which points lie in a scan, its outermost voxels counted to their outer faces.

    Args:
        points_world: Points of shape (..., 3), RAS mm.
        affine: The scan's voxel-to-world matrix.
        shape: The scan's grid (I, J, K).

    Returns:
        Booleans of shape (...).
    """
    return np.asarray(depth_inside(points_world, affine, shape) >= 0)


def as_box(corners_world: ArrayLike, *, name: str = "") -> Points:
    """Check a box along the world's axes and return it as float64.

    Args:
        corners_world: (2, 3), smallest and largest coordinates of its outer faces.
        name: What errors call it.

    Returns:
        The same, (2, 3) float64.

    Raises:
        MedrlError: If it is no such array, not finite, inverted or flat.
    """
    what = f"the box {name!r}" if name else "the box"
    try:
        corners = np.array(corners_world, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MedrlError(f"the corners of {what} are not numbers") from error
    if corners.shape != (2, 3):
        raise MedrlError(
            f"{what} is not two corners of three numbers each: it is of shape {corners.shape}"
        )
    if not np.isfinite(corners).all():
        raise MedrlError(f"the corners of {what} are not finite")
    if (corners[0] >= corners[1]).any():
        raise MedrlError(
            f"{what} is inverted or flat: each coordinate of its first corner must be below that "
            "of its second"
        )
    return corners


def voxels_in_box(
    corners_world: ArrayLike, affine: ArrayLike, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Tell which voxels of a grid have their centres in a box along the world's axes.

    Args:
        corners_world: (2, 3) RAS mm, lowest and highest coordinates.
        affine: The grid's voxel-to-world matrix.
        shape: The grid (I, J, K).

    Returns:
        Booleans of that shape.
    """
    low, high = np.asarray(corners_world, dtype=np.float64)
    matrix = as_affine(affine)
    result = np.ones(shape, dtype=np.bool_)
    for row in range(3):
        i, j, k = (matrix[row, axis] * np.arange(n) for axis, n in enumerate(shape))
        world = i[:, None, None] + j[None, :, None] + k[None, None, :] + matrix[row, 3]
        result &= (world >= low[row]) & (world <= high[row])
    return result
