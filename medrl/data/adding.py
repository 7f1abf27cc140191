"""Adding a scan and what a person says is in it to a MONAI datalist."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from medrl.data.datalist import SPLITS, read_content
from medrl.errors import MedrlError
from medrl.files import all_or_nothing, prepare_folder, stem_of

T = TypeVar("T")

#: A scan's file or folder, or those of its channels, by name.
Image = Path | Mapping[str, Path]


def add_sample(
    datalist: Path,
    image: Image,
    things: Mapping[str, T],
    *,
    key: str,
    read: Callable[[Path], Mapping[str, T]],
    write: Callable[[Path, Mapping[str, T]], None],
    split: str = "training",
) -> Path:
    """Add a scan with named things in it to a MONAI datalist.

    They are written beside the datalist, as 3D Slicer markups (``.mrk.json``) named after the scan.
    A scan that the datalist has already keeps its split, and those of its things that are not given
    anew. Either both files are written or none.

    Args:
        datalist: The JSON file; made, with its folder, if missing.
        image: The scan's file or folder; or several by channel, the first of which names the file.
        things: By name; at least one.
        key: What the datalist calls the file with them: ``landmarks``, ``boxes``.
        read: Reads such a file.
        write: Writes one.
        split: Where a new scan goes: ``training``, ``validation`` or ``test``.

    Returns:
        The file with the things.

    Raises:
        MedrlError: If the scan is not there, what ``write`` raises, the datalist is none, or the
            files cannot be written.
    """
    files = dict(image) if isinstance(image, Mapping) else {"": image}
    first = next(iter(files.values()))
    if split not in SPLITS:
        raise MedrlError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
    if not things:
        raise MedrlError(f"no {key} of {first} to add to {datalist}")
    for file in files.values():
        if not file.exists():
            raise MedrlError(f"{file} does not exist, so no datalist can name it")
    folder = prepare_folder(datalist.absolute().parent)
    content = read_content(datalist) if datalist.exists() else {name: [] for name in SPLITS}
    entries = [
        entry for name in SPLITS for entry in content.get(name) or [] if isinstance(entry, dict)
    ]
    things, homes = dict(things), {name: _home_of(file) for name, file in files.items()}
    own = None
    for entry in entries:
        if _homes_of(folder, entry.get("image")) == homes:
            own = entry
    if own is None:
        named: Any = {name: _path_from(folder, file) for name, file in files.items()}
        own = {"image": named if isinstance(image, Mapping) else named[""]}
        content[split] = [*(content.get(split) or []), own]
    elif key in own:
        things = {**read(folder / str(own[key])), **things}
    markups = _free_name(folder, first, own.get(key))
    own[key] = markups.name
    with all_or_nothing({"markups": markups, "datalist": datalist.absolute()}) as drafts:
        write(drafts["markups"], things)
        drafts["datalist"].write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return markups


def _homes_of(folder: Path, image: Any) -> dict[str, Path]:
    """Where the scan of an entry lies, by channel."""
    named = image if isinstance(image, dict) else {"": image}
    return {str(name): _home_of(folder / str(file)) for name, file in named.items()}


def _home_of(image: Path) -> Path:
    """Where a scan lies; links to one file are scans of their own."""
    return image.parent.resolve() / image.name


def _path_from(folder: Path, image: Path) -> str:
    """How a datalist names a scan: relative to itself if they are neighbours, else in full."""
    whole = image.absolute()
    if whole.is_relative_to(folder.parent) and folder.parent != folder.parent.parent:
        return Path(os.path.relpath(whole, folder)).as_posix()
    return str(whole)


def _free_name(folder: Path, image: Path, taken_by_itself: str | None) -> Path:
    """A file for what is in a scan that holds no other scan's."""
    stem, number = stem_of(image), 1
    path = folder / f"{stem}.mrk.json"
    while path.exists() and path.name != taken_by_itself:
        number += 1
        path = folder / f"{stem}_{number}.mrk.json"
    return path
