"""What readers of all formats share: what they return, and check before they believe a header."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.memory import available_memory

#: Most voxels, all channels counted, that a scan may declare (8 GiB as float32).
MOST_VOXELS = 2**31
#: What a voxel takes while it is read, as float32 or as a label of eight bytes.
_BYTES_OF_A_VOXEL = 8
#: Remark on axes that are not perpendicular.
SHEARED = (
    "its axes are not perpendicular (sheared): ITK and 3D Slicer open neither a NIfTI file of it "
    "nor the masks and images on its grid"
)
#: Deflate cannot shrink data by more than this.
MOST_DEFLATION = 1032


#: Units of length in mm.
_MM = {
    **dict.fromkeys(("", "mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers"), 1e-3),
    **dict.fromkeys(("micrometre", "micrometres"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-6),
}


class Loaded(NamedTuple):
    """What a file holds.

    Attributes:
        voxels: (C, I, J, K), float32, or int64 if labels were asked for.
        affine: Voxel to RAS mm.
        remarks: What the user should know of the file.
        facts: What else of it goes into the scan's `meta`.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    remarks: list[str]
    facts: dict[str, Any]


def check_grid(path: Path, shape: Sequence[int], *, spatial: int = 3) -> None:
    """Refuse a declared grid that is not a 3D scan of a size that fits in memory.

    Args:
        path: File that declares it.
        shape: Spatial axes first, then channels.
        spatial: Number of spatial axes.

    Raises:
        MedrlError: If the grid is empty, 2D or too large.
    """
    sizes = [int(n) for n in shape]
    text = " x ".join(map(str, sizes))
    if any(n < 1 for n in sizes):
        raise MedrlError(f"{path}: its header declares an impossible grid ({text}); export it anew")
    if spatial < 3 or any(n < 2 for n in sizes[:3]):
        raise MedrlError(f"{path}: is a 2D image ({text}); medrl reads 3D scans")
    if math.prod(sizes) > min(MOST_VOXELS, available_memory() / _BYTES_OF_A_VOXEL):
        raise MedrlError(
            f"{path}: its header declares {text} voxels, more than fits in memory; "
            "if the header is right, crop or downsample the scan first"
        )


def check_stored(path: Path, needed: int, stored: int, *, compressed: int) -> None:
    """Refuse a header that declares more voxels than the file can hold.

    Args:
        path: File with the header.
        needed: Bytes that the declared voxels take.
        stored: Bytes that the file holds after its header.
        compressed: How often those are deflated.

    Raises:
        MedrlError: If the voxels cannot all be there.
    """
    if stored * MOST_DEFLATION**compressed < needed:
        raise MedrlError(
            f"{path}: is truncated or has a wrong header: it declares {needed} bytes of voxels "
            f"and holds {stored}{' compressed' if compressed else ''}; copy or export it again"
        )


def reject_pixels(path: Path, kind: str) -> MedrlError:
    """Error for pixels that are no single real number per voxel, such as colour."""
    return MedrlError(f"{path}: has {kind} voxels; medrl reads one real number per voxel")


def in_mm(
    path: Path, affine: NDArray[np.float64], units: Sequence[str]
) -> tuple[NDArray[np.float64], list[str]]:
    """Bring an affine to mm.

    Args:
        path: File that says it.
        affine: Voxel to world, (4, 4).
        units: Of the three axes of the world, in lower case; nothing is mm.

    Returns:
        The affine in mm; remarks for the user.

    Raises:
        MedrlError: If a unit is not known.
    """
    unknown = [unit for unit in units if unit not in _MM]
    if unknown:
        raise MedrlError(
            f"{path}: its unit of length is {unknown[0]!r}, unknown to medrl; give it in mm"
        )
    scale = [_MM[unit] for unit in units]
    if scale == [1.0, 1.0, 1.0]:
        return affine, []
    named = " x ".join(dict.fromkeys(units))
    return np.diag([*scale, 1.0]) @ affine, [
        f"its unit of length is {named}: brought to mm; ITK and 3D Slicer take its numbers for mm"
    ]
