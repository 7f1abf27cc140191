"""Files of boxes: 3D Slicer's ROI markups and tables, and boxes as typed on a command line.

Boxes are those of :mod:`medrl.volume.boxes`: (2, 3) RAS mm, along the world's axes. Markups are
written in LPS, as Slicer does itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medrl.errors import MedrlError
from medrl.files import file_and_name
from medrl.volume import _markups
from medrl.volume._tables import read_table, write_table
from medrl.volume.space import (
    LPS_FROM_RAS,
    Points,
    apply_affine,
    as_box,
    box_corners,
    lps_to_ras,
    ras_to_lps,
)

#: Columns of a table, smallest corner first.
COLUMNS = ("x_min", "y_min", "z_min", "x_max", "y_max", "z_max")
#: Cosine of a turn that is none.
_STRAIGHT = 1e-6


def write_boxes(
    path: str | os.PathLike[str],
    boxes: Mapping[str, ArrayLike],
    *,
    descriptions: Mapping[str, str] | None = None,
) -> None:
    """Write boxes as a 3D Slicer markups file (.mrk.json, LPS): a ROI each, which may be edited.

    Args:
        path: File to write.
        boxes: (2, 3) RAS mm by name.
        descriptions: Text by name; of the point in a ROI's middle.

    Raises:
        MedrlError: If one is no box or the file cannot be written.
    """
    texts = descriptions or {}
    markups = []
    for name, corners in boxes.items():
        box = as_box(corners, name=name)
        # Adding zero turns -0 into 0.
        center = (ras_to_lps(box.mean(axis=0)) + 0.0).tolist()
        about = {"id": "1", "label": name, "description": texts.get(name, ""), "position": center}
        roi = _markups.markup_of(
            "ROI",
            name,
            [about],
            locked=False,
            roiType="Box",
            center=center,
            # Its own axes are right, anterior and superior, as of a ROI that Slicer makes.
            orientation=LPS_FROM_RAS[:3, :3].ravel().tolist(),
            size=(box[1] - box[0]).tolist(),
            insideOut=False,
        )
        markups.append(roi)
    _markups.write(path, markups)


def box_row(name: str, corners_world: ArrayLike | None, **more: Any) -> dict[str, Any]:
    """A row of a table of boxes.

    Args:
        name: Of the box.
        corners_world: (2, 3) RAS mm; None for one that is not there.
        **more: Further columns.
    """
    place: list[Any] = [None] * 6 if corners_world is None else list(np.ravel(corners_world))
    return {"name": name, **dict(zip(COLUMNS, place, strict=True)), **more}


def write_boxes_csv(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table of boxes that :func:`read_boxes` and any spreadsheet can read.

    Args:
        path: File to write.
        rows: Of :func:`box_row`, with equal columns. Floats are written with four decimals, NaN
            and None as nothing.

    Raises:
        MedrlError: If the rows differ in their columns or the file cannot be written.
    """
    write_table(path, rows, header=("name", *COLUMNS))


def read_boxes(path: str | os.PathLike[str]) -> dict[str, Points]:
    """Read named boxes.

    Formats: 3D Slicer markups (.mrk.json or .json; ROIs in LPS or RAS), and tables with a header
    (.csv, .tsv) with the columns name, x_min, y_min, z_min, x_max, y_max, z_max in RAS mm. Of a
    ROI that lies askew, the box around it is taken; ROIs and rows without a place are left out.
    UserWarnings say so.

    Args:
        path: File to read.

    Returns:
        (2, 3) RAS mm by name, in the file's order.

    Raises:
        MedrlError: If the file cannot be read as such, two boxes have the same name, or a ROI is
            inside out.
    """
    file = Path(path)
    name, text = file.name.lower(), _markups.read_text(file)
    if name.endswith(".json"):
        named = _from_markups(file, text)
    elif name.endswith((".csv", ".tsv")):
        named = _from_table(file, text, "\t" if name.endswith(".tsv") else None)
    else:
        raise MedrlError(
            f"{file}: is no file of boxes that medrl knows; use .mrk.json, .csv or .tsv"
        )
    boxes: dict[str, Points] = {}
    for label, corners in named:
        if not label:
            raise MedrlError(f"{file}: a box has no name; name it")
        if label in boxes:
            raise MedrlError(f"{file}: two boxes are named {label!r}; names must differ")
        try:
            boxes[label] = as_box(corners, name=label)
        except MedrlError as error:
            raise MedrlError(f"{file}: {error}") from None
    if not boxes:
        raise MedrlError(f"{file}: holds no boxes (ROI) that are placed")
    return boxes


def parse_box(text: str, *, space: str = "RAS") -> Points:
    """Read a box as typed on a command line.

    Args:
        text: ``x0,y0,z0,x1,y1,z1``, two opposite corners in mm; or a file of :func:`read_boxes`,
            if it holds several with the name of one: ``boxes.mrk.json:Hippocampus_L``.
        space: Of corners that are typed, ``RAS`` or ``LPS``; files state their own.

    Returns:
        (2, 3) RAS mm.

    Raises:
        MedrlError: If it is not of this form, or the file cannot be read or has no such box.
    """
    numbers = _markups.finite(text.split(","), 6)
    if numbers is not None:
        if space.upper() not in ("RAS", "LPS"):
            raise MedrlError(f"{space!r} is not a space of coordinates: use RAS or LPS")
        corners = numbers.reshape(2, 3)
        corners = lps_to_ras(corners) if space.upper() == "LPS" else corners
        return as_box(np.sort(corners, axis=0), name=text)
    file, name = file_and_name(text)
    if not os.path.exists(file) and not file.lower().endswith((".json", ".csv", ".tsv")):
        raise MedrlError(
            f"box {text!r} is neither x0,y0,z0,x1,y1,z1 (mm) nor a file of boxes (.mrk.json, .csv)"
        )
    boxes = read_boxes(file)
    if name is None and len(boxes) == 1:
        (box,) = boxes.values()
        return box
    if name is None:
        raise MedrlError(
            f"{file}: holds several boxes: name one, as in {file}:{next(iter(boxes))}; it has "
            f"{', '.join(boxes)}"
        )
    if name not in boxes:
        raise MedrlError(f"{file}: has no box {name!r}; it has {', '.join(boxes)}")
    return boxes[name]


# -------------------------------------------------------------------------------------------------


def _from_markups(file: Path, text: str) -> list[tuple[str, Points]]:
    _, markups = _markups.load(file, text)
    found, left_out, askew, others = [], [], [], []
    for markup in markups:
        kind, name = str(markup.get("type", "Fiducial")), str(markup.get("name") or "").strip()
        if kind != "ROI":
            others.append(f"{kind} {name!r}")
            continue
        what = f"the box {name!r}"
        if markup.get("insideOut"):
            raise MedrlError(f"{file}: {what} is inside out: it stands for all that is outside it")
        if markup.get("center") is None or markup.get("size") is None:
            left_out.append(name)
            continue
        size = _markups.numbers(file, what, markup, "size", 3)
        if not size.any():  # Slicer's, before it is drawn
            left_out.append(name)
            continue
        axes = _markups.box_axes(file, what, markup)
        center = _markups.numbers(file, what, markup, "center", 3)
        own = box_corners(-size / 2, size / 2) @ axes.T + center
        corners = apply_affine(_markups.to_world(file, markup), own)
        if not (np.abs(axes).max(axis=0) >= 1 - _STRAIGHT).all():
            askew.append(repr(name))
        if (size < 0).any():
            raise MedrlError(f"{file}: the size of {what} is negative")
        found.append((name, np.stack([corners.min(axis=0), corners.max(axis=0)])))
    _markups.tell_left_out(file, left_out, what="boxes")
    if askew:
        _markups.tell(file, f"of boxes that lie askew the box around is taken: {', '.join(askew)}")
    if others:
        _markups.tell(file, f"only its boxes (ROI) are read, not {', '.join(others)}")
    return found


def _from_table(file: Path, text: str, delimiter: str | None) -> list[tuple[str, Points]]:
    header, rows = read_table(text, delimiter)
    if not {"name", *COLUMNS} <= set(header):
        raise MedrlError(
            f"{file}: its first line must name the columns name, {', '.join(COLUMNS)} (RAS mm)"
        )
    found, left_out = [], []
    for row in rows:
        name, *cells = (row[header.index(column)] for column in ("name", *COLUMNS))
        if not any(cells):
            left_out += [name] if any(row) else []
            continue
        corners = _markups.finite(cells, 6)
        if corners is None:
            raise MedrlError(f"{file}: the corners of the box {name!r} are not six finite numbers")
        found.append((name, corners.reshape(2, 3)))
    _markups.tell_left_out(file, left_out, what="boxes")
    return found
