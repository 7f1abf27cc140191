"""How a grid lies in the body, and what no body would have."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import nibabel.affines
import numpy as np
from numpy.typing import ArrayLike

from medrl.volume.space import as_affine, spacing_of

#: Longer than any body, and wider than any but in one direction (mm).
_LONGEST_MM, _WIDEST_MM = 2500.0, 800.0
#: Less than any scanner for patients sees (mm).
_SMALLEST_MM = 4.0
_SQUARE_DEG = 0.5
#: Slices this many times as far apart as voxels in the slice.
_THICK = 4.0


def orientation(affine: ArrayLike) -> str:
    """Towards which side each array axis runs, such as ``LPS``; the nearest one if oblique."""
    return "".join(nib.aff2axcodes(as_affine(affine)))


def obliqueness_deg(affine: ArrayLike) -> float:
    """The largest angle between an array axis and the body's axis next to it, degrees."""
    return float(np.degrees(nib.affines.obliquity(as_affine(affine)).max()))


def skew_deg(affine: ArrayLike) -> float:
    """By how much the array axes miss a right angle at the most, degrees."""
    axes = as_affine(affine)[:3, :3]
    cosines = (axes.T @ axes) / np.outer(spacing_of(affine), spacing_of(affine))
    off = np.abs(cosines[np.triu_indices(3, 1)]).clip(max=1.0)
    return float(np.degrees(np.arcsin(off)).max())


def doubts(shape: Sequence[int], affine: ArrayLike) -> list[str]:
    """What is odd in a grid, in words.

    Args:
        shape: (I, J, K).
        affine: Voxel to world (RAS mm).
    """
    spacing = spacing_of(affine)
    extent = np.array(shape[:3]) * spacing
    found = []
    sizes = " x ".join(f"{x:.4g}" for x in extent)
    voxel = " x ".join(f"{x:.4g}" for x in spacing)
    if extent.max() > _LONGEST_MM or np.median(extent) > _WIDEST_MM:
        found.append(
            f"it spans {sizes} mm, more than any body: its voxel size ({voxel} mm) is wrong, "
            "perhaps ten times too large or in another unit"
        )
    elif extent.max() < _SMALLEST_MM:
        found.append(
            f"it spans {sizes} mm, less than a scan of a patient: its voxel size ({voxel} mm) may "
            "be in another unit"
        )
    if spacing.max() > _THICK * np.median(spacing):
        found.append(f"its slices are {spacing.max():.4g} mm apart, its pixels {voxel} mm")
    if (skew := skew_deg(affine)) > _SQUARE_DEG:
        found.append(
            f"its axes are not at right angles, off by {skew:.1f} degrees, as of a tilted gantry"
        )
    return found
