"""What names of BIDS, and the sidecars beside the files, say of an image.

Brain Imaging Data Structure 1.10, appendices "Entities" and "File collections".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Endings of images.
ENDINGS = (".nii.gz", ".nii")
#: Suffixes of images of one volume that show anatomy, by modality; parametric maps, parts of
#: multi-echo and inversion recordings, and two images in one file (PDT2) are taken only if they are
#: asked for.
MODALITIES: dict[str, tuple[str, ...]] = {
    "MR": (
        *("T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "angio", "UNIT1"),
        *("T2star", "FLASH", "PD"),
    ),
    "CT": ("ct",),
    "PET": ("pet",),
}
ANATOMY = tuple(suffix for suffixes in MODALITIES.values() for suffix in suffixes)
#: Suffixes of masks and label maps, of whatever they are.
_LABELS = ("mask", "dseg", "probseg", "defacemask", "roi", "seg")
#: Parts of a complex image that show no anatomy.
_PARTS = {"phase": "a phase image", "real": "a real part", "imag": "an imaginary part"}
#: Entities of which each label is one image of several that make one.
_SERIES = {
    "echo": "one echo of several",
    "inv": "one inversion of several",
    "flip": "one flip angle of several",
    "mt": "one of a pair with and without magnetisation transfer",
}
#: Labels that scanners' operators give to images that are for planning only.
_PLANNING = re.compile(r"scout|locali[sz]er|survey|planscan", re.IGNORECASE)
#: What a sidecar's ImageType says, from its third value on.
_TYPES = {
    **dict.fromkeys(("P", "PHASE", "PHASE MAP"), "a phase image"),
    **dict.fromkeys(("R", "REAL"), "a real part"),
    **dict.fromkeys(("I", "IMAGINARY"), "an imaginary part"),
    **dict.fromkeys(("LOCALIZER", "SCOUT"), "a localizer"),
}
_NAME = re.compile(
    r"(?P<entities>sub-[0-9a-zA-Z+]+(?:_[a-z]+-[0-9a-zA-Z+]+)*)_(?P<suffix>[0-9a-zA-Z]+)"
)


@dataclass(frozen=True)
class BidsName:
    """What the name of a file says.

    Attributes:
        entities: Labels by key, in the order of the name: ``sub``, ``ses``, ``acq``, ...
        suffix: What kind of image it is, such as ``T1w``.
    """

    entities: Mapping[str, str]
    suffix: str


def parse_name(stem: str) -> BidsName | None:
    """Take a file's name, without its ending, apart; None if BIDS has no such names."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    pairs = [part.split("-", 1) for part in match["entities"].split("_")]
    entities = dict(pairs)
    return BidsName(entities, match["suffix"]) if len(entities) == len(pairs) else None


def no_anatomy(name: BidsName, *, series: bool) -> str | None:
    """Why an image shows no anatomy by its name, with ``a`` before; None if nothing speaks for it.

    Args:
        name: What the name says.
        series: Whether one image of several that make one is none, either.
    """
    entities = name.entities
    if (part := entities.get("part")) in _PARTS:
        return f"{_PARTS[part]} (part-{part})"
    for key in ("acq", "desc", "rec", "task"):
        if _PLANNING.search(entities.get(key, "")):
            return f"a localizer ({key}-{entities[key]})"
    for key, what in _SERIES.items() if series else ():
        if key in entities:
            return f"{what} ({key}-{entities[key]})"
    return None


def no_scan_by_name(stem: str) -> str | None:
    """Why a file shows no anatomy by its name, whatever folder it lies in; None if it may.

    Args:
        stem: The file's name without its ending; names that are not of BIDS say nothing, but for
            those of medrl's own masks.
    """
    if stem.lower().endswith(".seg"):
        return "a label map (.seg)"
    name = parse_name(stem)
    if name is None:
        return None
    if name.suffix in _LABELS:
        return f"a mask or label map ({name.suffix})"
    return no_anatomy(name, series=False)


class Sidecars:
    """The JSON files of a dataset, which go for all images below them that their names fit."""

    def __init__(self, root: Path) -> None:
        """Take the root of a dataset."""
        self._root = root
        self._known: dict[Path, list[tuple[dict[str, str], str, Path]]] = {}

    def against(self, folder: Path, name: BidsName) -> str | None:
        """Why an image shows no anatomy by what its sidecars say of it; None if it may."""
        said: dict[str, Any] = {}
        for above in (*reversed(folder.relative_to(self._root).parents), None):
            here = folder if above is None else self._root / above
            for entities, suffix, path in self._in(here):
                if suffix == name.suffix and entities.items() <= name.entities.items():
                    said |= _read(path)
        return _against_type(said.get("ImageType"))

    def _in(self, folder: Path) -> list[tuple[dict[str, str], str, Path]]:
        """The sidecars of a folder, those that say the least first."""
        if folder not in self._known:
            self._known[folder] = sorted(_sidecars(folder), key=lambda one: len(one[0]))
        return self._known[folder]


def _sidecars(folder: Path) -> Iterator[tuple[dict[str, str], str, Path]]:
    for path in folder.glob("*.json"):
        *parts, suffix = path.stem.split("_")
        if all("-" in part for part in parts):
            yield dict(part.split("-", 1) for part in parts), suffix, path


def _read(path: Path) -> dict[str, Any]:
    """What a sidecar says; nothing if it cannot be read, as no image is worse for that."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _against_type(values: Any) -> str | None:
    """What DICOM's ImageType (0008,0008) says against an image."""
    for value in values[2:] if isinstance(values, list) else ():
        if (known := str(value).strip().upper()) in _TYPES:
            return f"{_TYPES[known]} (ImageType {known} in its sidecar)"
    return None
