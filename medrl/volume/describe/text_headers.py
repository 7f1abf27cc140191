"""What the headers of NRRD and MetaImage say, as the readers of these formats have it."""

from __future__ import annotations

import math
import re
from pathlib import Path

from medrl.volume._metaimage import read_layout
from medrl.volume._nrrd_header import read_header
from medrl.volume._nrrd_place import place
from medrl.volume.describe.header import Header, usable

_TOLD = ("endian", "spaceunits", "kinds", "measurementframe", "datafile")


def describe_nrrd(path: Path) -> Header:
    """What a NRRD header says.

    Raises:
        MedrlError: If it is damaged, or does not say where the scan lies.
    """
    header = read_header(path)
    count = header.number("dimension", 0)
    numbers = header.numbers("sizes", count)
    sizes = [] if numbers is None else [int(n) for n in numbers]
    spatial, affine, remarks = place(header, len(sizes))
    facts = {"space": header.fields.get("space", "not stated")}
    facts |= {key: header.fields[key] for key in ("encoding", *_TOLD) if key in header.fields}
    segments = sum(bool(re.fullmatch(r"Segment\d+_ID", key)) for key in header.pairs)
    if segments:
        facts["segments"] = str(segments)
    return Header(
        shape=tuple(sizes[axis] for axis in spatial),
        channels=math.prod(size for axis, size in enumerate(sizes) if axis not in spatial),
        affine=usable(affine),
        stored=header.fields.get("type", ""),
        facts=facts,
        doubts=tuple(remarks),
    )


def describe_metaimage(path: Path) -> Header:
    """What a MetaImage header says.

    Raises:
        MedrlError: If it is damaged, or declares more than there is.
    """
    layout = read_layout(path)
    facts = {"compressed": str(layout.compressed)}
    for key, name in (("DistanceUnits", "unit"), ("AnatomicalOrientation", "stated orientation")):
        if key in layout.fields:
            facts[name] = layout.fields[key]
    if path not in layout.files:
        facts["voxels in"] = ", ".join(file.name for file in layout.files[:3])
    modality = layout.fields.get("Modality", "").upper().removeprefix("MET_MOD_")
    return Header(
        shape=layout.shape[:3],
        channels=layout.channels * math.prod(layout.shape[3:]),
        affine=usable(layout.affine),
        stored=layout.fields["ElementType"].removeprefix("MET_").lower(),
        modality=modality if modality in ("MR", "CT", "NM", "US") else "",
        facts=facts,
        doubts=tuple(layout.remarks),
    )
