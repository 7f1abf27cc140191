"""3D Slicer markups files (.mrk.json): what is in them, in which coordinates, and how to write."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.files import atomic_path

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/"
    "Resources/Schema/markups-schema-v1.0.3.json#"
)
#: Millimetres.
_UNITS = {"nm": 1e-6, "um": 0.001, "µm": 0.001, "mm": 1.0, "cm": 10.0, "m": 1000.0}
#: Whether a coordinate system is LPS, by its name or Slicer's number; IJK (2) means nothing alone.
SYSTEMS = {"ras": False, "0": False, "lps": True, "1": True}
#: What Slicer calls the position of a point that is placed, and its number in tables.
_PLACED = ("defined", "2")
_MOST_NAMES = 8
#: Axes further than this from right angles (as a cosine) are sheared.
SHEARED = 1e-4
_FLAT = 1e-6


def read_text(file: Path) -> str:
    """A file of points as text.

    Raises:
        MedrlError: If it is missing, empty or no text.
    """
    if not file.is_file():
        raise MedrlError(f"{file}: no such file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MedrlError(f"{file}: is not a text file of points") from error
    except OSError as error:
        raise MedrlError(f"{file}: cannot be opened: {error.strerror}") from error
    if not text.strip():
        raise MedrlError(f"{file}: is empty")
    return text


def load(file: Path, text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The content of a markups file, and its markups.

    What is said for the whole file, such as the coordinate system, is said of each of them.

    Raises:
        MedrlError: If it is none.
    """
    try:
        content = json.loads(text)
        shared = {key: content[key] for key in _SHARED if key in content}
        markups = [shared | dict(markup) for markup in content["markups"]]
    except (json.JSONDecodeError, RecursionError) as error:
        raise MedrlError(f"{file}: is not JSON: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MedrlError(f"{file}: is not a 3D Slicer markups file") from error
    for markup in markups:
        points = markup.get("controlPoints") or []
        if not isinstance(points, list) or not all(isinstance(p, dict) for p in points):
            raise MedrlError(f"{file}: its controlPoints are not a list of points")
    return content, markups


def markup_of(
    kind: str, name: str, control: list[dict[str, Any]], *, locked: bool = True, **more: Any
) -> dict[str, Any]:
    """A markup as 3D Slicer writes it.

    Args:
        kind: Its type.
        name: What Slicer calls it.
        control: Its points: id, label, description and position (LPS mm) of each.
        locked: Whether the mouse leaves it alone.
        **more: What else it consists of.
    """
    for point in control:
        point.update(selected=True, locked=locked, visibility=True, positionStatus="defined")
    return {
        "type": kind,
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": locked,
        "labelFormat": "%N-%d",
        **more,
        "controlPoints": control,
    }


def write(path: str | os.PathLike[str], markups: Sequence[dict[str, Any]]) -> None:
    """Write markups as one file; 3D Slicer makes a node of each.

    Raises:
        MedrlError: If it cannot be written.
    """
    content = {"@schema": _SCHEMA, "markups": markups}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def to_world(file: Path, markup: Mapping[str, Any]) -> NDArray[np.float64]:
    """The matrix (4, 4) from a markup's coordinates to the world, RAS mm.

    Raises:
        MedrlError: If its coordinate system or its unit is unknown.
    """
    lps = is_lps(file, markup.get("coordinateSystem", "LPS"))
    units = markup.get("coordinateUnits", "mm")
    unit = units[0] if isinstance(units, list) and units else units
    if not isinstance(unit, str) or unit not in _UNITS:
        raise MedrlError(f"{file}: its unit {units!r} is none of {', '.join(_UNITS)}")
    sign = -1.0 if lps else 1.0
    return np.diag([*(_UNITS[unit] * np.array([sign, sign, 1.0])), 1.0])


def is_lps(file: Path, system: Any) -> bool:
    """Whether a coordinate system is LPS rather than RAS.

    Raises:
        MedrlError: If it is another.
    """
    lps = SYSTEMS.get(str(system).strip().lower())
    if lps is None:
        raise MedrlError(f"{file}: its coordinate system {system!r} is neither LPS nor RAS")
    return lps


def is_placed(point: Mapping[str, Any]) -> bool:
    """Whether a point has a position; one that is still to be placed lies at 0, 0, 0 in files."""
    status = point.get("positionStatus")
    placed = status is None or str(status).strip().lower() in _PLACED
    return placed and point.get("position") is not None


def label_of(point: Mapping[str, Any]) -> str:
    """What a point is called."""
    return str(point.get("label") or point.get("id") or "").strip()


def three(file: Path, label: str, values: Any) -> NDArray[np.float64]:
    """The position (3,) of a point, in the coordinates of its file.

    Raises:
        MedrlError: If it is not three finite numbers.
    """
    found = finite(values, 3)
    if found is None:
        raise MedrlError(f"{file}: the position of {label!r} is not three finite numbers")
    return found


def finite(values: Any, count: int) -> NDArray[np.float64] | None:
    """So many finite numbers; None if they are anything else."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        return None
    try:
        numbers = np.array([float(value) for value in values])
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if np.isfinite(numbers).all() else None


def numbers(
    file: Path, what: str, holder: Mapping[str, Any], key: str, count: int
) -> NDArray[np.float64]:
    """So many finite numbers of a field.

    Raises:
        MedrlError: If it holds anything else; `what` it is said of.
    """
    found = finite(holder[key], count)
    if found is None:
        raise MedrlError(f"{file}: {key} of {what} is not {count} finite numbers")
    return found


def square(
    file: Path, what: str, holder: Mapping[str, Any], key: str, size: int
) -> NDArray[np.float64]:
    """A matrix whose axes span the space.

    Raises:
        MedrlError: If the field holds anything else.
    """
    matrix = numbers(file, what, holder, key, size * size).reshape(size, size)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if (lengths <= 0).any() or abs(np.linalg.det(matrix[:3, :3] / lengths)) < _FLAT:
        raise MedrlError(f"{file}: {key} of {what} is singular")
    return matrix


def box_axes(file: Path, what: str, markup: Mapping[str, Any]) -> NDArray[np.float64]:
    """The axes (3, 3) of a box (ROI), unit vectors in its columns, in the file's coordinates.

    Raises:
        MedrlError: If they are no such matrix.
    """
    if "orientation" not in markup:
        return np.eye(3)
    axes = square(file, what, markup, "orientation", 3)
    if np.abs(np.linalg.norm(axes, axis=0) - 1).max() > SHEARED:
        raise MedrlError(f"{file}: the orientation of {what} is no matrix of unit vectors")
    return axes


def tell_left_out(file: Path, names: Iterable[str], *, what: str = "points") -> None:
    """Warn of points, or of other things, that have no position."""
    left_out = [repr(name) for name in names]
    if left_out:
        more = len(left_out) - _MOST_NAMES
        named = ", ".join(left_out[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        tell(file, f"{what} that are not placed are left out: {named}")


def tell(file: Path, remark: str) -> None:
    """Warn of something that the user should know of a file."""
    warnings.warn(f"{file}: {remark}", UserWarning, stacklevel=4)


_SHARED = ("coordinateSystem", "coordinateUnits")
