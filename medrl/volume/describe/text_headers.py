"""What the headers of NRRD and MetaImage say, which are lines of text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from medrl.volume.describe.header import Header, usable
from medrl.volume.space import LPS_FROM_RAS

_LONGEST = 2**20
#: Diagonals that take a NRRD space to RAS.
_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1, 1, 1)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1, -1, 1)),
}
_VECTOR = re.compile(r"\(([^)]*)\)|none")


def nrrd_fields(path: Path) -> dict[str, str]:
    """Fields and key/value pairs of a NRRD header as they are written, fields in lower case."""
    with path.open("rb") as stream:
        start = stream.read(_LONGEST)
    if not start.startswith(b"NRRD"):
        return {}
    head = re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0]
    fields = {}
    for line in head.decode("utf-8", errors="replace").splitlines()[1:]:
        if line.startswith("#"):
            continue
        if ":=" in line:
            key, _, value = line.partition(":=")
            fields[key.strip()] = value.strip()
        elif ":" in line:
            key, _, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
    return fields


def describe_nrrd(path: Path) -> Header:
    """What a NRRD header says."""
    fields = nrrd_fields(path)
    sizes = _whole(fields.get("sizes", ""))
    vectors = [
        None if match[0] == "none" else _numbers(match[1].replace(",", " "))
        for match in _VECTOR.finditer(fields.get("space directions", ""))
    ]
    if len(vectors) == len(sizes):
        spatial = [axis for axis, vector in enumerate(vectors) if vector is not None]
    else:
        kinds = fields.get("kinds", "").split()
        spatial = [axis for axis, kind in enumerate(kinds) if kind in ("domain", "space")]
        spatial = spatial or list(range(min(3, len(sizes))))
    affine, doubts = np.eye(4), []
    rows = [vectors[axis] for axis in spatial if axis < len(vectors)]
    if len(rows) == 3 and all(row is not None and len(row) == 3 for row in rows):
        affine[:3, :3] = np.array(rows, dtype=np.float64).T
    elif len(spacings := _numbers(fields.get("spacings", ""))) > max(spatial, default=0):
        affine[:3, :3] = np.diag([spacings[axis] for axis in spatial[:3]])
    else:
        doubts.append("its header gives no voxel size: 1 mm taken")
    origin = _numbers(re.sub(r"[(),]", " ", fields.get("space origin", "")))
    affine[:3, 3] = origin if len(origin) == 3 else 0
    space = fields.get("space", "")
    affine[:3] *= np.array(_SPACES.get(space.lower(), (-1, -1, 1)), dtype=float)[:, None]
    facts = {"space": space or "not stated", "encoding": fields.get("encoding", "")}
    for key in ("endian", "space units", "kinds", "measurement frame"):
        if key in fields:
            facts[key] = fields[key]
    if "data file" in fields or "datafile" in fields:
        facts["voxels in"] = fields.get("data file", fields.get("datafile", ""))
    segments = sum(bool(re.fullmatch(r"Segment\d+_ID", key)) for key in fields)
    if segments:
        facts["segments"] = str(segments)
    others = [size for axis, size in enumerate(sizes) if axis not in spatial]
    return Header(
        shape=tuple(sizes[axis] for axis in spatial[:3]),
        channels=int(np.prod(others, dtype=np.int64)),
        affine=usable(affine),
        stored=fields.get("type", ""),
        facts=facts,
        doubts=tuple(doubts),
    )


def describe_metaimage(path: Path) -> Header:
    """What a MetaImage header says."""
    with path.open("rb") as stream:
        start = stream.read(2**16)
    fields: dict[str, str] = {}
    for line in start.splitlines():
        key, separator, value = line.decode("latin-1").partition("=")
        if not separator:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    sizes = _whole(fields.get("DimSize", ""))
    spacing = _numbers(fields.get("ElementSpacing", fields.get("ElementSize", "")))
    doubts = []
    if not spacing:
        doubts.append("its header gives no voxel size: 1 mm taken")
        spacing = [1.0] * len(sizes)
    affine = np.eye(4)
    matrix = _first(fields, "TransformMatrix", "Rotation", "Orientation")
    offset = _first(fields, "Offset", "Position", "Origin")
    axes = np.eye(len(sizes))
    if len(matrix) == len(sizes) ** 2:
        axes = np.reshape(matrix, (len(sizes), len(sizes))).T
    if len(sizes) >= 3 and len(spacing) == len(sizes):
        affine[:3, :3] = axes[:3, :3] * spacing[:3]
        affine[:3, 3] = offset[:3] if len(offset) >= 3 else 0
    facts = {"compressed": fields.get("CompressedData", "False")}
    for key, name in (("DistanceUnits", "unit"), ("AnatomicalOrientation", "stated orientation")):
        if key in fields:
            facts[name] = fields[key]
    file = fields.get("ElementDataFile", "LOCAL")
    if file.upper() != "LOCAL":
        facts["voxels in"] = file
    channels = _whole(fields.get("ElementNumberOfChannels", "1")) or [1]
    modality = fields.get("Modality", "").upper().removeprefix("MET_MOD_")
    return Header(
        shape=tuple(sizes[:3]),
        channels=channels[0] * int(np.prod(sizes[3:], dtype=np.int64)),
        affine=usable(LPS_FROM_RAS @ affine),
        stored=fields.get("ElementType", "").removeprefix("MET_").lower(),
        modality={"MR": "MR", "CT": "CT", "NM": "NM", "US": "US"}.get(modality, ""),
        facts=facts,
        doubts=tuple(doubts),
    )


def _first(fields: dict[str, str], *keys: str) -> list[float]:
    """The numbers of the first of some fields that is there."""
    return _numbers(next((fields[key] for key in keys if key in fields), ""))


def _numbers(text: str) -> list[float]:
    """The numbers in a text; none at all if it holds anything else."""
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return []


def _whole(text: str) -> list[int]:
    return [int(number) for number in _numbers(text) if abs(number) < 2**62]
