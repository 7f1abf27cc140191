"""3D Slicer markups moved by a transform: points, lines, curves, angles, planes and boxes (ROI).

What a transform moves is moved in the file's own coordinates; all else, such as colours,
descriptions and links to other nodes, is carried over as it stands.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.volume import _markups
from medrl.volume.space import apply_affine, as_transform
from medrl.volume.transform_files import kind_of

Matrix = NDArray[np.float64]

_MATRICES = ("objectToBase", "baseToNode")
#: Fields with so many numbers may be places; those that are known are moved.
_PLACES = (3, 9, 16)
_MOVED = ("center", "normal", "orientation", "size", *_MATRICES)


def move_markups(
    path: str | os.PathLike[str], out: str | os.PathLike[str], transform_world: ArrayLike
) -> int:
    """Move all markups of a file, and write them as another.

    A rigid transform moves everything exactly. One that scales changes sizes, too; measurements
    are then left out, for Slicer to take them anew. Under one that shears, a plane keeps its place
    and normal while its edges stay at right angles, and a box is refused. Points that are not
    placed are left out. UserWarnings say so.

    Args:
        path: The file (.mrk.json or .json).
        out: File to write.
        transform_world: 4x4 matrix, where the points are to where they go, RAS mm.

    Returns:
        How many points were moved.

    Raises:
        MedrlError: If the file cannot be read as such, holds nothing that is placed or a box that
            would be sheared, or the other cannot be written.
    """
    file, matrix = Path(path), as_transform(transform_world)
    content, markups = _markups.load(file, _markups.read_text(file))
    given = [p for markup in markups for p in markup.get("controlPoints") or []]
    moved = [_moved(file, markup, matrix) for markup in markups]
    count = sum(len(markup.get("controlPoints") or []) for markup in moved)
    if not count and not any(key in markup for markup in moved for key in _MOVED):
        raise MedrlError(f"{file}: holds no points that are placed")
    _markups.tell_left_out(file, (_markups.label_of(p) for p in given if not _markups.is_placed(p)))
    try:
        text = json.dumps({**content, "markups": moved}, indent=1)
    except (RecursionError, ValueError) as error:
        raise MedrlError(f"{file}: is not a 3D Slicer markups file") from error
    with atomic_path(out) as draft:
        draft.write_text(text + "\n", encoding="utf-8")
    return count


# -------------------------------------------------------------------------------------------------


def _moved(file: Path, markup: Mapping[str, Any], transform_world: Matrix) -> dict[str, Any]:
    """A markup after a transform of the world."""
    affine = _markups.to_world(file, markup)
    matrix = np.linalg.inv(affine) @ transform_world @ affine
    rigid = kind_of(transform_world) == "rigid"
    out = dict(markup)
    kind, name = str(markup.get("type", "Fiducial")), str(markup.get("name") or "")
    what = f"the {kind} {name!r}"
    if "controlPoints" in markup:
        points = markup["controlPoints"] or []
        out["controlPoints"] = [
            _moved_point(file, point, matrix) for point in points if _markups.is_placed(point)
        ]
    if kind == "Plane" or "normal" in markup or any(key in markup for key in _MATRICES):
        flip = np.diag(np.sign(np.diag(affine)))
        out.update(_moved_plane(file, what, markup, matrix, flip, rigid=rigid))
    elif any(key in markup for key in ("center", "orientation", "size")):
        out.update(_moved_box(file, what, markup, matrix))
    if not rigid and out.get("measurements"):
        out["measurements"] = _unmeasured(file, what, out["measurements"])
    unknown = [key for key, value in markup.items() if key not in _MOVED and _is_place(value)]
    if unknown:
        _markups.tell(file, f"{', '.join(unknown)} of {what} may be places, and were not moved")
    return out


def _moved_point(file: Path, point: Mapping[str, Any], matrix: Matrix) -> dict[str, Any]:
    label = _markups.label_of(point)
    position = _markups.three(file, label, point["position"])
    out = {**point, "position": _plain(apply_affine(matrix, position))}
    if point.get("orientation") is not None:
        axes = _markups.numbers(file, f"the point {label!r}", point, "orientation", 9).reshape(3, 3)
        # The nearest turn: axes of a point stay at right angles.
        left, _, right = np.linalg.svd(matrix[:3, :3] @ axes)
        turn = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right)) or 1.0]) @ right
        out["orientation"] = _plain(turn)
    return out


def _moved_box(file: Path, what: str, markup: Mapping[str, Any], matrix: Matrix) -> dict[str, Any]:
    """Centre, axes and size of a box along axes of its own."""
    out: dict[str, Any] = {}
    if "center" in markup:
        out["center"] = _plain(
            apply_affine(matrix, _markups.numbers(file, what, markup, "center", 3))
        )
    axes = _markups.box_axes(file, what, markup)
    turned = matrix[:3, :3] @ axes
    lengths = np.linalg.norm(turned, axis=0)
    turned /= lengths
    if np.abs(turned.T @ turned - np.eye(3)).max() > _markups.SHEARED:
        raise MedrlError(
            f"{file}: {what} would be sheared, and boxes have right angles only: move it by a "
            "rigid transform, or as a mask"
        )
    if np.linalg.det(turned) * np.linalg.det(axes) < 0:
        turned[:, 0] *= -1  # the same box, with axes of the same hand
    out["orientation"] = _plain(turned)
    if "size" in markup:
        out["size"] = _plain(_markups.numbers(file, what, markup, "size", 3) * lengths)
    return out


def _moved_plane(
    file: Path, what: str, markup: Mapping[str, Any], matrix: Matrix, flip: Matrix, *, rigid: bool
) -> dict[str, Any]:
    """Centre, normal, axes and size of a plane.

    Args:
        file: For messages.
        what: For messages.
        markup: The plane.
        matrix: (4, 4) in its coordinates.
        flip: (4, 4) diagonal: Slicer writes each matrix of a plane with rows turned to LPS.
        rigid: Whether the transform is.
    """
    out: dict[str, Any] = {}
    linear, within, axes, place = matrix[:3, :3], np.eye(4), None, None
    if "objectToBase" in markup:
        within = flip @ _markups.square(file, what, markup, "objectToBase", 4)
    if "baseToNode" in markup:
        base = _markups.square(file, what, markup, "baseToNode", 4)
        if rigid:
            out["baseToNode"] = _plain(matrix @ base)
        place = base @ within
        axes = place[:3, :3]
    if "orientation" in markup:
        axes = _markups.square(file, what, markup, "orientation", 3)
    if "center" in markup:
        out["center"] = _plain(
            apply_affine(matrix, _markups.numbers(file, what, markup, "center", 3))
        )
    normal = np.array([0.0, 0.0, 1.0]) if axes is None else axes[:, 2]
    if "normal" in markup:
        normal = _markups.numbers(file, what, markup, "normal", 3)
    normal = np.linalg.inv(linear).T @ normal
    length = np.linalg.norm(normal)
    if not length:
        raise MedrlError(f"{file}: the normal of {what} has no direction")
    normal = normal / length
    if "normal" in markup:
        out["normal"] = _plain(normal)
    if axes is None:
        if not rigid and "size" in markup:
            _markups.tell(file, f"the size of {what} is left as it is: it has no axes")
        return out
    axes = axes / np.linalg.norm(axes, axis=0)
    along, across = linear @ axes[:, 0], linear @ axes[:, 1]
    first = along / np.linalg.norm(along)
    # Of the same hand as before, so that the plane's front stays its front.
    second = np.cross(normal, first) * np.sign(np.linalg.det(axes))
    turned = np.stack([first, second, normal], axis=1)
    if "orientation" in markup:
        out["orientation"] = _plain(turned)
    if place is not None and not rigid:
        there = np.eye(4)
        there[:3, :3], there[:3, 3] = turned, apply_affine(matrix, place[:3, 3])
        # Slicer places a plane by two matrices: the other one stays as it is.
        out["baseToNode"] = _plain(there @ np.linalg.inv(within))
    if not rigid:
        scales = np.array([along @ first, across @ second, linear @ axes[:, 2] @ normal])
        _scale_plane(file, what, markup, scales, out)
        if abs(across @ first) > _markups.SHEARED * np.linalg.norm(across):
            _markups.tell(file, f"{what} keeps its place and normal, but its edges are sheared")
    return out


def _scale_plane(
    file: Path, what: str, markup: Mapping[str, Any], scales: Matrix, out: dict[str, Any]
) -> None:
    """Size and bounds of a plane whose axes have been scaled; mirrored ones are negative."""
    if "size" in markup:
        count = len(markup["size"]) if isinstance(markup["size"], list) else 3
        size = _markups.numbers(file, what, markup, "size", 2 if count == 2 else 3)
        out["size"] = _plain(size * np.abs(scales[: len(size)]))
    if "planeBounds" in markup:
        bounds = _markups.numbers(file, what, markup, "planeBounds", 4).reshape(2, 2)
        bounds = bounds * scales[:2, None]
        # Slicer's empty bounds run backwards.
        mirrored = scales[:2] < 0
        bounds[mirrored] = bounds[mirrored, ::-1]
        out["planeBounds"] = _plain(bounds)


def _unmeasured(file: Path, what: str, measurements: Any) -> list[Any]:
    """Measurements without their values, which are others now."""
    if not isinstance(measurements, list) or not all(isinstance(m, dict) for m in measurements):
        raise MedrlError(f"{file}: the measurements of {what} are no list of them")
    values = ("value", "controlPointValues")
    if any(key in one for one in measurements for key in values):
        _markups.tell(file, f"measurements of {what} are left out: the transform changes sizes")
    return [{k: v for k, v in one.items() if k not in values} for one in measurements]


def _is_place(value: Any) -> bool:
    return isinstance(value, list) and any(
        _markups.finite(value, count) is not None for count in _PLACES
    )


def _plain(numbers: Any) -> list[float]:
    # Adding zero turns -0 into 0.
    return [float(number) for number in np.ravel(numbers) + 0.0]
