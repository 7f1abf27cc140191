"""Where a NRRD header says that a scan lies: space, directions, units, spacings, axis mins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume._checks import check_grid, in_mm
from medrl.volume._nrrd_header import NrrdHeader
from medrl.volume.space import LPS_FROM_RAS

#: What takes a space to RAS, by its long and its short name.
_TO_RAS = {
    **dict.fromkeys(("right-anterior-superior", "ras"), np.eye(4)),
    **dict.fromkeys(("left-anterior-superior", "las"), np.diag([-1.0, 1.0, 1.0, 1.0])),
    **dict.fromkeys(("left-posterior-superior", "lps"), LPS_FROM_RAS),
}
_TIME = "-time"
_WITH_TIME = {"rast": "ras", "last": "las", "lpst": "lps"}
_SPATIAL_KINDS = ("domain", "space")


def place(header: NrrdHeader, count: int) -> tuple[list[int], NDArray[np.float64], list[str]]:
    """Find the axes that are directions in space, and where they lie.

    Args:
        header: The file's.
        count: Of its axes.

    Returns:
        The spatial axes; voxel to RAS mm; remarks for the user.

    Raises:
        MedrlError: If the header does not say it, or says what cannot be.
    """
    rows = header.vectors("spacedirections")
    if rows is None:
        spatial, affine, remarks = _by_spacings(header, count)
    else:
        spatial, affine, remarks = _by_directions(header, rows, count)
    space = header.fields.get("space", "").strip().strip('"').lower()
    base = _WITH_TIME.get(space, space.removesuffix(_TIME))
    if base not in _TO_RAS:
        named = f"space {space!r}, which does not say where left and right are"
        remarks.append(f"the header names {named if space else 'no space'}: LPS taken")
    elif base != space:
        remarks.append(f"it lies as its space {space!r} says; ITK takes spaces with time for LPS")
    return spatial, _TO_RAS.get(base, LPS_FROM_RAS) @ affine, remarks


def _by_directions(
    header: NrrdHeader, rows: list[NDArray[np.float64] | None], count: int
) -> tuple[list[int], NDArray[np.float64], list[str]]:
    path = header.path
    if len(rows) != count:
        raise MedrlError(f"{path}: its space directions do not fit its axes; mend its header")
    width = next((len(row) for row in rows if row is not None), 3)
    if width < 3:
        check_grid(path, [int(n) for n in header.fields["sizes"].split()], spatial=width)
    # In spaces with time the fourth number is time, which has an axis of its own.
    whole = {axis: row for axis, row in enumerate(rows) if row is not None}
    spatial = [axis for axis, row in whole.items() if width == 3 or row[:3].any()]
    if len(spatial) != 3 or width > 4 or any(whole[axis][3:].any() for axis in spatial):
        raise MedrlError(
            f"{path}: its space directions give {len(spatial)} axes of space, not 3; mend them"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.stack([whole[axis][:3] for axis in spatial], axis=1)
    origin = header.vectors("spaceorigin")
    if origin is not None:
        if len(origin) != 1 or origin[0] is None or len(origin[0]) != width:
            raise MedrlError(f"{path}: its space origin is not {width} numbers; mend its header")
        affine[:3, 3] = origin[0][:3]
    units = header.words("spaceunits", width)[:3]
    return spatial, *in_mm(header.path, affine, units)


def _by_spacings(
    header: NrrdHeader, count: int
) -> tuple[list[int], NDArray[np.float64], list[str]]:
    """Axes along those of the space, as files without directions have them."""
    spacings, low, high = (
        header.numbers(field, count) for field in ("spacings", "axismins", "axismaxs")
    )
    spatial, remarks = _spatial_axes(header, count, spacings)
    if len(spatial) < 3:
        return spatial, np.eye(4), remarks
    sizes = np.array(header.fields["sizes"].split(), dtype=np.float64)
    node = np.array([word == "node" for word in header.words("centers", count)])
    step = np.ones(count)
    if low is not None and high is not None:
        # Between centres of voxels, or between their outer faces; these if nothing is said.
        step = (high - low) / np.where(node, np.maximum(sizes - 1, 1), sizes)
        if spacings is None:
            remarks.append(
                "its voxel size is that of its axis mins and maxs, which ITK and 3D Slicer ignore"
            )
        elif not np.allclose(np.abs(step[spatial]), spacings[spatial], rtol=1e-3):
            remarks.append(
                "its axis mins and maxs contradict its spacings: the spacings were taken"
            )
    if spacings is not None:
        step = spacings
    elif low is None or high is None:
        remarks.append("the header gives no voxel size: 1 mm taken")
    affine = np.eye(4)
    affine[:3, :3] = np.diag(step[spatial])
    origin = header.vectors("spaceorigin")
    if origin is not None and len(origin) == 1 and origin[0] is not None:
        if len(origin[0]) != 3:
            raise MedrlError(
                f"{header.path}: its space origin is not three numbers; mend its header"
            )
        affine[:3, 3] = origin[0]
    elif low is not None:
        affine[:3, 3] = (low + np.where(node, 0, step / 2))[spatial]
    units = header.words("units", count)
    along, more = in_mm(header.path, affine, [units[axis] for axis in spatial])
    return spatial, along, remarks + more


def _spatial_axes(
    header: NrrdHeader, count: int, spacings: NDArray[np.float64] | None
) -> tuple[list[int], list[str]]:
    axes = list(range(count))
    if count <= 3:
        return axes, []
    named = [a for a, kind in enumerate(header.words("kinds", count)) if kind in _SPATIAL_KINDS]
    spaced = [] if spacings is None else np.flatnonzero(np.isfinite(spacings)).tolist()
    for found in (named, spaced):
        if len(found) == 3:
            return found, []
    return axes[:3], [
        "the header does not say which axes are those of space: the first three taken"
    ]
