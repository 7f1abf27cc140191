"""The header of a NRRD file, as text: fields, key/value pairs, and the files with the voxels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume._data_files import files_listed, files_named, is_list

_LONGEST_LINE, _LONGEST_HEADER = 2**20, 2**24
#: Other ways to write a field.
_ALIASES = {"centerings": "centers", "datafile": "data file"}
_VECTOR = re.compile(r"none|\(([^()]*)\)", re.IGNORECASE)


@dataclass(frozen=True)
class NrrdHeader:
    """What a header says.

    Attributes:
        path: The file.
        fields: Values by field, in lower case and without spaces: `axismins`.
        pairs: Values by key, which mean something to whoever wrote them.
        files: With the voxels, in order.
        start: Where they begin in a file.
    """

    path: Path
    fields: dict[str, str]
    pairs: dict[str, str]
    files: tuple[Path, ...]
    start: int

    def number(self, field: str, default: int) -> int:
        """A whole number."""
        text = self.fields.get(field)
        try:
            return default if text is None else int(text)
        except ValueError:
            raise self.wrong(field) from None

    def numbers(self, field: str, count: int) -> NDArray[np.float64] | None:
        """A number for each axis; None without the field."""
        text = self.fields.get(field)
        if text is None:
            return None
        try:
            values = np.array([float(word) for word in text.split()])
        except ValueError:
            raise self.wrong(field) from None
        if len(values) != count:
            raise self.wrong(field)
        return values

    def words(self, field: str, count: int) -> list[str]:
        """A word for each axis, in lower case; quotes are taken off."""
        text = self.fields.get(field)
        if text is None:
            return [""] * count
        quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
        words = quoted if quoted else text.split()
        if len(words) != count:
            raise self.wrong(field)
        return [word.strip().lower() for word in words]

    def vectors(self, field: str) -> list[NDArray[np.float64] | None] | None:
        """Vectors of one length, None for an axis that has none; None without the field."""
        text = self.fields.get(field)
        if text is None:
            return None
        found: list[NDArray[np.float64] | None] = []
        try:
            if _VECTOR.sub("", text).strip():
                raise ValueError
            for match in _VECTOR.finditer(text):
                inner = match.group(1)
                vector = None if inner is None else np.array([float(x) for x in inner.split(",")])
                # NaN is what older writers have for none.
                found.append(None if vector is None or np.isnan(vector).all() else vector)
        except ValueError:
            raise self.wrong(field) from None
        if len({len(vector) for vector in found if vector is not None}) > 1:
            raise self.wrong(field)
        return found

    def wrong(self, field: str) -> MedrlError:
        """Error for a field that cannot be what it says."""
        text = self.fields[field][:60]
        return MedrlError(f"{self.path}: its {field} cannot be ({text}); mend its header")


def read_header(path: Path) -> NrrdHeader:
    """Read a header, and find the files with the voxels.

    Raises:
        MedrlError: If it is none, or names files that are not there or not below its folder.
    """
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    with path.open("rb") as stream:
        if not _line(path, stream).startswith("NRRD"):
            raise MedrlError(f"{path}: is not a NRRD file, whatever its name says")
        while text := _line(path, stream).rstrip():
            if text.startswith("#"):
                continue
            key, separator, value = text.partition(":")
            if not separator:
                raise MedrlError(
                    f"{path}: its NRRD header is damaged ({text[:40]!r}); export it anew"
                )
            if value.startswith("="):
                pairs[key.strip()] = value[1:].strip()
                continue
            key = key.strip().lower()
            name = _ALIASES.get(key, key).replace(" ", "")
            if name in fields:
                raise MedrlError(f"{path}: its header gives {key!r} twice; mend it")
            fields[name] = value.strip()
            if name == "datafile" and is_list(fields[name]):
                names = [line for line in iter(lambda: _line(path, stream).strip(), "") if line]
                return NrrdHeader(path, fields, pairs, files_listed(path, names), 0)
        start = stream.tell()
    data = fields.get("datafile")
    if data is None:
        return NrrdHeader(path, fields, pairs, (path,), start)
    return NrrdHeader(path, fields, pairs, files_named(path, data), 0)


def _line(path: Path, stream: IO[bytes]) -> str:
    """The next line; empty at the end of the file."""
    line = stream.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE or stream.tell() > _LONGEST_HEADER:
        raise MedrlError(f"{path}: its NRRD header has no end; export it anew")
    return line.decode("utf-8", "replace")
