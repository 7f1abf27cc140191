"""NRRD through MONAI's NrrdReader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from monai.data.image_reader import NrrdImage, NrrdReader
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume._checks import check_grid, check_stored, reject_pixels
from medrl.volume.space import LPS_FROM_RAS

#: What takes a NRRD space to RAS, by the space's long and short name.
_TO_RAS = {
    "right-anterior-superior": np.eye(4),
    "ras": np.eye(4),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "las": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "left-posterior-superior": LPS_FROM_RAS,
    "lps": LPS_FROM_RAS,
}
_COLOUR = {"rgb-color", "hsv-color", "xyz-color", "rgba-color", "3-color", "4-color"}
_PLAIN = {"raw", "ascii", "text", "txt"}


def load_nrrd(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64], list[str]]:
    """Read a NRRD file; without a `space` field it is LPS, as ITK has it.

    Returns:
        Voxels (C, I, J, K), affine (voxel to RAS mm), remarks for the user.
    """
    header, stored = _read_header(path)
    spatial = _spatial_axes(path, header)
    sizes = [int(n) for n in header["sizes"]]
    others = [axis for axis in range(len(sizes)) if axis not in spatial]
    check_grid(path, [sizes[a] for a in spatial + others], spatial=len(spatial))
    if len(others) > 1:
        raise MedrlError(f"{path}: has {len(sizes)} dimensions; medrl reads 3D and 4D scans")
    compressed = str(header["encoding"]).lower() not in _PLAIN
    bytes_each = 1 if str(header["encoding"]).lower() in _PLAIN - {"raw"} else _item_size(header)
    check_stored(path, math.prod(sizes) * bytes_each, stored, compressed=compressed)

    space = str(header.get("space", "")).lower()
    remarks = []
    if space not in _TO_RAS:
        remarks.append(f"the header names {f'space {space!r}' if space else 'no space'}: LPS taken")
    reader = NrrdReader(affine_lps_to_ras=False)
    image = reader.read(path)
    array, meta = reader.get_data(_channel_first(image, spatial, others))
    affine = _TO_RAS.get(space, LPS_FROM_RAS) @ np.asarray(meta["affine"], dtype=np.float64)
    return array if others else array[None], affine, remarks


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and how many bytes of voxels are stored."""
    with path.open("rb") as stream:
        if stream.read(4) != b"NRRD":
            raise MedrlError(f"{path}: is not a NRRD file, whatever its name says")
        stream.seek(0)
        header: dict[str, Any] = dict(nrrd.read_header(stream))
        start = stream.tell()
    missing = [key for key in ("sizes", "type", "encoding", "dimension") if key not in header]
    if missing:
        raise MedrlError(f"{path}: its NRRD header lacks {', '.join(missing)}; export it anew")
    if header["type"] == "block":
        raise reject_pixels(path, "block")
    data = header.get("data file", header.get("datafile"))
    if data is None:
        return header, path.stat().st_size - start
    file = path.parent / str(data)
    if not file.is_file():
        raise MedrlError(f"{path}: its voxels are in {file.name}, which is not there")
    return header, file.stat().st_size


def _item_size(header: dict[str, Any]) -> int:
    """Bytes per voxel."""
    return int(nrrd.reader._determine_datatype({"endian": "little", **header}).itemsize)


def _spatial_axes(path: Path, header: dict[str, Any]) -> list[int]:
    """Array axes that are directions in space: those that have one."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    for kind in kinds:
        if kind in _COLOUR or "complex" in kind:
            raise reject_pixels(path, "complex" if "complex" in kind else "colour")
    count = int(header["dimension"])
    directions = header.get("space directions")
    if directions is not None:
        rows = np.array([[np.nan] * 3 if row is None else row for row in directions], dtype=float)
        axes = [axis for axis, row in enumerate(rows) if np.isfinite(row).all()]
        if rows.shape == (count, 3):
            return axes
        check_grid(path, [int(n) for n in header["sizes"]], spatial=rows.shape[-1])
        raise MedrlError(f"{path}: its space directions do not fit its axes; export it anew")
    if count <= 3:
        return list(range(count))
    named = [axis for axis, kind in enumerate(kinds) if kind in ("domain", "space")]
    if len(named) != 3:
        raise MedrlError(f"{path}: its header does not say which axes are spatial; export it anew")
    return named


def _channel_first(image: NrrdImage, spatial: list[int], others: list[int]) -> NrrdImage:
    """The image with its non-spatial axis first and a header of spatial axes only."""
    header = dict(image.header)
    if header.get("space directions") is None:
        spacings = np.asarray(header.get("spacings", np.ones(image.array.ndim)), dtype=float)
        header["space directions"] = np.diag(spacings[spatial])
    else:
        rows = [header["space directions"][axis] for axis in spatial]
        header["space directions"] = np.array(rows, dtype=float)
    if header.get("space origin") is None:
        header["space origin"] = np.zeros(3)
    header["sizes"] = np.array([image.array.shape[axis] for axis in spatial])
    return NrrdImage(image.array.transpose(others + spatial), header)
