"""Named points: reading 3D Slicer markups, .fcsv and tables; writing markups and CSV.

Inside medrl, points are RAS mm. Slicer markups are written in LPS, as Slicer does itself, with
coordinates converted by :mod:`medrl.volume.space`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medrl.errors import MedrlError
from medrl.volume import _markups
from medrl.volume._tables import read_table, write_table
from medrl.volume.space import Points, apply_affine, lps_to_ras, ras_to_lps

_NAME_COLUMNS = ("name", "label", "landmark", "point")
#: Coordinate columns of a table, and whether they are LPS. Slicer's own tables have r,a,s or l,p,s.
_AXIS_COLUMNS = ((("x", "y", "z"), False), (("r", "a", "s"), False), (("l", "p", "s"), True))
_FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
#: Slicer 5 writes two more fields into each row than it names; the first says whether it is placed.
_FCSV_MORE = ("positionStatus", "autoCreated")
#: What says in the column "defined" of a table that a point is not placed.
_NOT_PLACED = ("0", "0.0", "false", "no")


@dataclass(frozen=True, eq=False)
class Markup:
    """One list of points of a 3D Slicer markups file.

    Attributes:
        kind: Slicer's type, such as ``Fiducial`` (a list of points) or ``Curve``.
        name: What Slicer calls it.
        points_world: (P, 3) RAS mm.
        labels: Of the points.
        descriptions: Of the points.
    """

    kind: str
    name: str
    points_world: Points
    labels: tuple[str, ...]
    descriptions: tuple[str, ...]


def read_points(path: str | os.PathLike[str]) -> dict[str, Points]:
    """Read named points.

    Formats: 3D Slicer markups (.mrk.json or .json; point lists in LPS or RAS), Slicer's older
    .fcsv, and tables with a header (.csv, .tsv) with a column "name", "label" or "landmark" and
    coordinates x, y, z in RAS mm (or r, a, s, or l, p, s as Slicer exports them); other columns
    are ignored. Points that have no position, or that the file says are not placed, are left out;
    a UserWarning names them.

    Args:
        path: File to read.

    Returns:
        Position (3,) in RAS mm by name, in the file's order.

    Raises:
        MedrlError: If the file cannot be read as such, or two points have the same name.
    """
    file = Path(path)
    name = file.name.lower()
    text = _markups.read_text(file)
    if name.endswith(".json"):
        markups = _from_markups(file, text)
        lists = [m for m in markups if m.kind == "Fiducial"]
        if not lists:
            raise MedrlError(f"{file}: holds no point list (markup of type Fiducial)")
        if others := [f"{m.kind} {m.name!r}" for m in markups if m.kind != "Fiducial"]:
            _markups.tell(file, f"only its point lists are read, not {', '.join(others)}")
        named = [pair for m in lists for pair in zip(m.labels, m.points_world, strict=True)]
    elif name.endswith(".fcsv"):
        named = _from_fcsv(file, text)
    elif name.endswith((".csv", ".tsv")):
        named = _from_table(file, text, "\t" if name.endswith(".tsv") else None)
    else:
        raise MedrlError(
            f"{file}: is no file of points that medrl knows; use .mrk.json, .fcsv, .csv or .tsv"
        )
    points: dict[str, Points] = {}
    for label, position in named:
        if not label:
            raise MedrlError(f"{file}: a point at {position.tolist()} has no name; label it")
        if label in points:
            raise MedrlError(f"{file}: two points are named {label!r}; names must differ")
        points[label] = position
    if not points:
        raise MedrlError(f"{file}: holds no points that are placed")
    return points


def read_markups(path: str | os.PathLike[str]) -> list[Markup]:
    """Read all lists of a 3D Slicer markups file, whatever their type.

    Args:
        path: File to read (.mrk.json or .json), in LPS or RAS.

    Returns:
        One for each; points that are not placed are left out, and named by a UserWarning.

    Raises:
        MedrlError: If the file cannot be read as such.
    """
    file = Path(path)
    return _from_markups(file, _markups.read_text(file))


def write_markup_lists(path: str | os.PathLike[str], markups: Iterable[Markup]) -> None:
    """Write lists of points as one 3D Slicer markups file (.mrk.json, LPS).

    Args:
        path: File to write.
        markups: The lists.

    Raises:
        MedrlError: If a position is not three finite numbers or the file cannot be written.
    """
    content = []
    for markup in markups:
        rows = _lps(markup.name, np.asarray(markup.points_world).reshape(-1, 3))
        texts = zip(markup.labels, markup.descriptions, rows, strict=True)
        control = [
            {"id": str(n), "label": label, "description": text, "position": xyz}
            for n, (label, text, xyz) in enumerate(texts, 1)
        ]
        content.append(_markups.markup_of(markup.kind, markup.name, control))
    _markups.write(path, content)


def write_markups(
    path: str | os.PathLike[str],
    points: Mapping[str, ArrayLike],
    *,
    descriptions: Mapping[str, str] | None = None,
    name: str = "landmarks",
) -> None:
    """Write points as a 3D Slicer point list (.mrk.json, markup type Fiducial, LPS).

    Args:
        path: File to write.
        points: Position (3,) in RAS mm by name.
        descriptions: Text by name, shown by Slicer next to the coordinates.
        name: What Slicer calls the list.

    Raises:
        MedrlError: If a position is not three finite numbers or the file cannot be written.
    """
    texts = descriptions or {}
    # One by one, so that an error names the point.
    rows = [lps_to_ras(_lps(label, xyz)[0]) for label, xyz in points.items()]
    described = tuple(texts.get(label, "") for label in points)
    markup = Markup("Fiducial", name, np.array(rows).reshape(-1, 3), tuple(points), described)
    write_markup_lists(path, [markup])


def write_curves(path: str | os.PathLike[str], curves: Mapping[str, ArrayLike]) -> None:
    """Write polylines, such as agents' paths, as 3D Slicer curves (.mrk.json, LPS).

    Args:
        path: File to write.
        curves: Positions (T, 3) in RAS mm by name, one markup each.

    Raises:
        MedrlError: If a position is not three finite numbers or the file cannot be written.
    """
    markups = []
    for name, positions in curves.items():
        points = lps_to_ras(_lps(name, positions))
        labels = tuple(f"{name}-{n}" for n in range(1, len(points) + 1))
        markups.append(Markup("Curve", name, points, labels, ("",) * len(points)))
    write_markup_lists(path, markups)


def write_points_csv(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table of points that `read_points` and any spreadsheet can read.

    Args:
        path: File to write.
        rows: One mapping per point with equal keys, which become the header; by convention
            "name", "x", "y", "z" (RAS mm) and whatever else is known. Floats are written with
            four decimals, NaN and None as nothing.

    Raises:
        MedrlError: If the rows differ in their keys or the file cannot be written.
    """
    write_table(path, rows, header=("name", "x", "y", "z"))


def _lps(name: str, points_world: ArrayLike) -> list[list[float]]:
    """Positions (3,) or (T, 3) in RAS mm as rows of LPS mm."""
    try:
        positions = np.asarray(points_world, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MedrlError(f"the positions of {name!r} are not numbers") from error
    if positions.ndim not in (1, 2) or positions.shape[-1] != 3:
        raise MedrlError(f"a position of {name!r} is not three numbers")
    if not np.isfinite(positions).all():
        raise MedrlError(f"a position of {name!r} is not finite: leave such points out")
    # Adding zero turns -0 into 0.
    return (ras_to_lps(positions) + 0.0).reshape(-1, 3).tolist()


def _from_markups(file: Path, text: str) -> list[Markup]:
    _, markups = _markups.load(file, text)
    placed = [_from_markup(file, markup) for markup in markups]
    points = [point for markup in markups for point in markup.get("controlPoints") or []]
    _markups.tell_left_out(
        file, (_markups.label_of(point) for point in points if not _markups.is_placed(point))
    )
    return placed


def _from_markup(file: Path, markup: Mapping[str, Any]) -> Markup:
    affine = _markups.to_world(file, markup)
    points = [p for p in markup.get("controlPoints") or [] if _markups.is_placed(p)]
    labels = tuple(_markups.label_of(point) for point in points)
    stored = [
        _markups.three(file, label, point["position"])
        for label, point in zip(labels, points, strict=True)
    ]
    rows = apply_affine(affine, np.array(stored, dtype=np.float64).reshape(-1, 3))
    descriptions = tuple(str(point.get("description") or "") for point in points)
    kind, name = str(markup.get("type", "Fiducial")), str(markup.get("name") or "")
    return Markup(kind, name, rows, labels, descriptions)


def _from_fcsv(file: Path, text: str) -> list[tuple[str, Points]]:
    system, columns = "RAS", _FCSV_COLUMNS
    rows = []
    for line in text.splitlines():
        if not line.startswith("#"):
            rows.append(line)
            continue
        key, _, value = line[1:].partition("=")
        if key.strip().lower() == "coordinatesystem":
            system = value.strip()
        elif key.strip().lower() == "columns":
            columns = value.strip()
    lps = _markups.is_lps(file, system)
    names = [name.strip() for name in columns.split(",")]
    if not {"x", "y", "z", "label"} <= set(names):
        raise MedrlError(f"{file}: its columns lack x, y, z or label")
    if names == _FCSV_COLUMNS.split(","):
        names += _FCSV_MORE
    found, left_out = [], []
    for row in csv.reader(rows, skipinitialspace=True):
        if not any(cell.strip() for cell in row):
            continue
        fields: dict[str, Any] = dict(zip(names, row, strict=False))
        fields["position"] = [fields.get(axis) for axis in ("x", "y", "z")]
        fields["positionStatus"] = fields.get("positionStatus") or None
        label = _markups.label_of(fields)
        if not _markups.is_placed(fields):
            left_out.append(label)
            continue
        position = _markups.three(file, label, fields["position"])
        found.append((label, lps_to_ras(position) if lps else position))
    _markups.tell_left_out(file, left_out)
    return found


def _from_table(file: Path, text: str, delimiter: str | None) -> list[tuple[str, Points]]:
    header, table = read_table(text, delimiter)
    name = next((header.index(c) for c in _NAME_COLUMNS if c in header), None)
    axes = next(((c, lps) for c, lps in _AXIS_COLUMNS if set(c) <= set(header)), None)
    if name is None or axes is None:
        raise MedrlError(
            f"{file}: its first line must name a column 'name' (or 'label', 'landmark') and "
            "columns x, y, z in RAS mm"
        )
    columns, lps = [header.index(axis) for axis in axes[0]], axes[1]
    found, left_out = [], []
    for row in table:
        cells = [row[c] for c in [name, *columns]]
        told = {key: cell.lower() for key, cell in zip(header, row, strict=True)}
        placed = _markups.is_placed(
            {"position": cells[1:], "positionStatus": told.get("positionstatus") or None}
        )
        if not placed or told.get("defined") in _NOT_PLACED or not any(cells[1:]):
            if any(row):
                left_out.append(cells[0])
            continue
        position = _markups.three(file, cells[0], cells[1:])
        found.append((cells[0], lps_to_ras(position) if lps else position))
    _markups.tell_left_out(file, left_out)
    return found
