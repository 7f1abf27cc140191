"""Names of the regions of a label map, from the file itself or a table that lies beside it.

Known are the tables of 3D Slicer, FreeSurfer, ITK-SNAP, BIDS, nnU-Net, the Medical Segmentation
Decathlon and TotalSegmentator, and what people write by hand: a number and a name on each line.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from medrl.files import stem_of

Color = tuple[float, float, float]

_LONGEST = 2**22
_MOST_TABLES = 64
#: How far up tables are looked for: `labelsTr/a.nii.gz` has its names in `../dataset.json`.
_FOLDERS_UP = 3
#: The share of a map's regions that a table has to name.
_FITTING = 0.5
_ENDINGS = (".ctbl", ".txt", ".label", ".lbl", ".csv", ".tsv", ".json")
_IDS = ("index", "labelvalue", "labelid", "id", "value", "label", "key", "code", "number", "#no.")
_NAMES = (
    *("name", "segmentlabel", "labelname", "structurename", "structure", "region", "segmentname"),
    *("safename", "description", "segmentdescription", "label", "roi", "abbreviation", "acronym"),
)
#: Names of tables that are for all maps of a folder.
_SHARED = re.compile(
    r"(?:.*[._-])?(?:dseg|label[._-]?(?:names?|descriptions?|map|table)?s?|dataset|"
    r"colou?r[._-]?(?:lut|table)|lut|structures?|structure_tree\w*|ontology|classes|class_map)"
    r"\.(?:ctbl|txt|label|lbl|csv|tsv|json)|.*\.ctbl|.*colorlut\w*\.txt",
    re.IGNORECASE,
)
_SNAP = re.compile(r'\s*(\d+)((?:\s+[\d.]+){6})\s+"(.*)"\s*')
_LINE = re.compile(r"\s*(-?\d+)[\s,;:=]+(.+?)\s*")
_COLORED = re.compile(r"(.+?)((?:[\s,]+\d+(?:\.\d+)?){3,4})")


@dataclass(frozen=True)
class LabelNames:
    """Names of regions.

    Attributes:
        names: By number.
        colors: Red, green and blue, 0 to 1, of those that have a color, by number.
        source: The file that they are from.
    """

    names: dict[int, str]
    colors: dict[int, Color]
    source: Path


def find_label_names(path: Path, numbers: Collection[int]) -> LabelNames | None:
    """Find the names of a label map's regions.

    Looked at are, in this order, the file itself, tables of the same name, tables for all maps of
    its folder and of those above, and FreeSurfer's own table where FREESURFER_HOME says that it is
    installed. The first that names at least half of the regions is taken.

    Args:
        path: The label map.
        numbers: Those that are in it.

    Returns:
        Names and colors; None if there are none that fit.
    """
    wanted = {int(number) for number in numbers} - {0}
    for source, parse in _sources(path):
        try:
            found = parse(source)
        except Exception:
            # Parsers of damaged files fail in every way there is, and names are but a help.
            continue
        names = {number: name for number, (name, _) in found.items()}
        if wanted and len(wanted & names.keys()) >= _FITTING * len(wanted):
            colors = {number: color for number, (_, color) in found.items() if color is not None}
            return LabelNames(names, colors, source)
    return None


def read_label_table(path: Path) -> dict[int, tuple[str, Color | None]]:
    """Read a table of any known kind; what is not of the table's form is passed over.

    Args:
        path: Text, CSV, TSV or JSON.

    Returns:
        Name and color of each number; empty if it is no such table.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is too large, or not text, or not JSON although its name says so.
    """
    if path.stat().st_size > _LONGEST:
        raise ValueError("too large for a table of names")
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        return _of_json(json.loads(text))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return {}
    if path.suffix.lower() in (".csv", ".tsv"):
        return _of_columns(lines, "\t" if path.suffix.lower() == ".tsv" else None)
    return dict(filter(None, map(_of_line, lines)))


# Where tables are -------------------------------------------------------------------------------

_Parser = Callable[[Path], dict[int, tuple[str, Color | None]]]


def _sources(path: Path) -> Iterator[tuple[Path, _Parser]]:
    """Files that may hold the names, and how each is read."""
    path = Path(os.path.abspath(path))
    yield path, _inside
    stem = stem_of(path)
    shared: list[Path] = []
    for depth, folder in enumerate(path.parents[:_FOLDERS_UP]):
        try:
            files = sorted(file for file in folder.iterdir() if _is_table(file))
        except OSError:
            break
        own = [file for file in files if _goes_with(file, stem)] if depth == 0 else []
        yield from ((file, read_label_table) for file in own)
        shared += [file for file in files if file not in own and _SHARED.fullmatch(file.name)]
    yield from ((file, read_label_table) for file in shared[:_MOST_TABLES])
    if home := os.environ.get("FREESURFER_HOME"):
        yield Path(home) / "FreeSurferColorLUT.txt", read_label_table


def _is_table(file: Path) -> bool:
    return file.suffix.lower() in _ENDINGS and file.is_file()


def _goes_with(table: Path, stem: str) -> bool:
    """Whether a table has the name of a map, with a word more or less at the end."""
    name, map_name = table.stem.casefold(), stem.casefold().removesuffix(".seg")
    return name.startswith(map_name) or map_name.startswith(name)


# What is in them --------------------------------------------------------------------------------


def _inside(path: Path) -> dict[int, tuple[str, Color | None]]:
    """Names that a label map brings itself: segments of a NRRD, a table in a NIfTI extension."""
    name = path.name.lower()
    if name.endswith((".nrrd", ".nhdr")):
        from medrl.volume._nrrd_header import read_header

        return _of_segments(read_header(path).pairs)
    if name.endswith((".nii", ".nii.gz")):
        from medrl.volume.describe.nifti import nifti_extensions

        for content in nifti_extensions(path):
            if found := _of_xml(content):
                return found
    return {}


def _of_segments(fields: dict[str, str]) -> dict[int, tuple[str, Color | None]]:
    """3D Slicer's ``Segment0_Name`` and so on; of several layers the first."""
    found: dict[int, tuple[str, Color | None]] = {}
    for key, name in fields.items():
        segment, _, what = key.rpartition("_")
        if what != "Name" or not segment.startswith("Segment"):
            continue
        if fields.get(f"{segment}_Layer", "0").strip() != "0":
            continue
        color = _color(fields.get(f"{segment}_Color", "").split())
        found[int(fields[f"{segment}_LabelValue"])] = name, color
    return found


def _of_xml(content: bytes) -> dict[int, tuple[str, Color | None]]:
    """The table of Connectome Workbench, which TotalSegmentator writes, too."""
    start, end = content.find(b"<LabelTable"), content.find(b"</LabelTable>")
    # No document type, so no entities that grow without end.
    if start < 0 or end < 0 or b"<!ENTITY" in content:
        return {}
    table = ElementTree.fromstring(content[start : end + len(b"</LabelTable>")])
    found: dict[int, tuple[str, Color | None]] = {}
    for label in table.iter("Label"):
        rgb = [label.get(key, "") for key in ("Red", "Green", "Blue")]
        found[int(label.attrib["Key"])] = (label.text or "").strip(), _color(rgb)
    return found


def _of_json(content: Any) -> dict[int, tuple[str, Color | None]]:
    """Names by numbers, numbers by names, or a list of objects with both."""
    if isinstance(content, dict):
        for key in ("labels", "label", "segments", "segmentAttributes", "structures", "classes"):
            if isinstance(content.get(key), dict | list):
                return _of_json(content[key])
        found: dict[int, tuple[str, Color | None]] = {}
        for key, value in content.items():
            if isinstance(value, str) and _whole(key) is not None:
                found[int(key)] = value, None
            elif isinstance(value, dict) and _whole(key) is not None and "name" in value:
                found[int(key)] = str(value["name"]), None
            elif not isinstance(value, str | dict) and _whole(value) is not None:
                found[int(value)] = str(key), None
        return found
    if isinstance(content, list):
        if all(isinstance(part, list) for part in content):
            content = [row for part in content for row in part]
        return dict(
            filter(None, (_of_row(_keyed(row)) for row in content if isinstance(row, dict)))
        )
    return {}


def _of_columns(lines: list[str], delimiter: str | None) -> dict[int, tuple[str, Color | None]]:
    """A table with a head that says what its columns are, or numbers and names without."""
    if delimiter is None:
        delimiter = max(",;\t", key=lines[0].count)
    rows = list(csv.reader(lines, delimiter=delimiter))
    head = [_key(word) for word in rows[0]]
    if any(_whole(word) is not None for word in rows[0]):
        return dict(filter(None, (_of_line(" ".join(row)) for row in rows)))
    records = [dict(zip(head, row, strict=False)) for row in rows[1:]]
    return dict(filter(None, map(_of_row, records)))


def _of_row(row: dict[str, Any]) -> tuple[int, tuple[str, Color | None]] | None:
    """The number, name and color in a row of a table, by what its columns are called."""
    number_key = next((key for key in _IDS if _whole(row.get(key)) is not None), None)
    name_key = next(
        (key for key in _NAMES if key != number_key and str(row.get(key) or "").strip()), None
    )
    if number_key is None or name_key is None:
        return None
    color = row.get("color") or row.get("colorhextriplet") or row.get("rgb")
    if not color:
        color = [row.get(key, row.get(f"color{key}", "")) for key in ("r", "g", "b")]
    number = _whole(row[number_key])
    return None if number is None else (number, (str(row[name_key]).strip(), _color(color)))


def _of_line(line: str) -> tuple[int, tuple[str, Color | None]] | None:
    """A line of ITK-SNAP, of FreeSurfer and 3D Slicer, or with a number and a name."""
    if snap := _SNAP.fullmatch(line):
        return int(snap[1]), (snap[3], _color(snap[2].split()[:3]))
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    colored = _COLORED.fullmatch(match[2])
    if colored is None:
        return int(match[1]), (match[2].strip("\"' "), None)
    return int(match[1]), (colored[1].strip("\"' "), _color(re.findall(r"[\d.]+", colored[2])[:3]))


def _color(parts: Any) -> Color | None:
    """Red, green and blue, 0 to 1, of numbers up to 1 or 255, or six hexadecimal digits."""
    if isinstance(parts, str):
        digits = parts.strip().removeprefix("#")
        if not re.fullmatch(r"[0-9a-fA-F]{6}", digits):
            return None
        parts = [str(int(digits[at : at + 2], 16)) for at in (0, 2, 4)]
    try:
        red, green, blue = (float(part) for part in parts[:3])
    except (ValueError, TypeError):
        return None
    top = 255.0 if max(red, green, blue) > 1 else 1.0
    if not 0 <= min(red, green, blue) <= max(red, green, blue) <= top:
        return None
    return red / top, green / top, blue / top


def _keyed(row: dict[str, Any]) -> dict[str, Any]:
    return {_key(key): value for key, value in row.items()}


def _key(word: str) -> str:
    """The name of a column, however it is written."""
    return re.sub(r"[\s_-]", "", str(word)).lower()


def _whole(value: Any) -> int | None:
    """A whole number, of whatever a table holds."""
    if isinstance(value, bool) or value is None:
        return None
    text = str(value).strip()
    try:
        # As a float it would lose digits.
        return int(text) if text.lstrip("+-").isdecimal() else _integer(float(text))
    except ValueError:
        return None


def _integer(number: float) -> int | None:
    return int(number) if number.is_integer() else None
