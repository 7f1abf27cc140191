"""Finding the scans that a batch is to work through."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from medrl.batch.bids import Selection, find_images, is_raw_dataset
from medrl.batch.bids_names import no_scan_by_name
from medrl.batch.cases import Case, Source, name_of
from medrl.batch.found import Found, LeftOut, in_words, no_scan, odd_kind, walk
from medrl.data.datalist import SPLITS
from medrl.errors import MedrlError
from medrl.files import (
    PICTURE_ENDINGS,
    SCAN_ENDINGS,
    VIDEO_ENDINGS,
    absence,
    alike,
    file_and_name,
    place_of,
    without_ending,
)
from medrl.systems import System
from medrl.volume.dicom_files import may_be_dicom

#: Endings of scans in one file; .raw and .img files belong to a header beside them.
_FILES = tuple(ending for ending in SCAN_ENDINGS if ending != ".dcm")
_MANIFESTS = (".csv", ".tsv", ".json")
#: Columns of a manifest that are no roles of scans; the last two are what a datalist's scans should
#: be answered with.
_WORDS = ("name", "series", "label", "landmarks")
_NO_SCANS = "no scans (NIfTI, NRRD, MHA/MHD, or DICOM series)"
#: Another word for the scan, that of MONAI's datalists.
_ALIASES = {"image": "scan"}


def discover(
    where: str | os.PathLike[str],
    system: System,
    *,
    shared: Mapping[str, Path] | None = None,
    leave_out: Path | None = None,
    selection: Selection | None = None,
    split: str | None = None,
) -> Found:
    """Find what there is to work through.

    Args:
        where: A folder (any depth), a BIDS dataset, a glob, a manifest (.csv, .tsv or .json), or
            one scan. In a folder every scan file is a case, and every DICOM series, told apart by
            its UID; for a system that takes films, every video and every folder of pictures.
        system: What is to be done; says what roles scans have.
        shared: Scans by role that are the same for all cases, unless a manifest says otherwise.
        leave_out: A folder that is not searched, such as the one for results.
        selection: Which images of a BIDS dataset.
        split: Which list of a datalist, such as ``test``; all if left out.

    Returns:
        Cases in the order of their names, no two alike; and what is left out, with the reasons.

    Raises:
        MedrlError: If there is nothing, or a manifest is not as expected.
    """
    text, shared = os.fspath(where), shared or {}
    path = Path(text)
    bids = path.is_dir() and is_raw_dataset(path)
    if selection is not None and selection.given and not bids:
        raise MedrlError(f"{text}: is no BIDS dataset, in which participants could be chosen")
    if split is not None and not (path.is_file() and path.name.lower().endswith(".json")):
        raise MedrlError(f"{text}: is no datalist, of which one list could be chosen")
    if bids and leave_out is not None and leave_out.resolve() == path.resolve():
        raise MedrlError(f"{text}: is the dataset itself; write into {path}/derivatives/medrl")
    if bids:
        found, what = find_images(path, selection or Selection(), leave_out), "no such images"
    elif path.is_dir():
        found, what = _in_folder(path, leave_out, films=system.films), _NO_SCANS
    elif path.is_file() and path.name.lower().endswith(_MANIFESTS):
        return Found(_distinct(_in_manifest(path, system, shared, split)))
    elif path.is_file():
        found, what = Found([Case(name_of(path, path.parent), {"scan": Source(path)})]), _NO_SCANS
    elif glob.has_magic(text):
        # Patterns with ** may lead to a file in several ways.
        paths = sorted({place_of(one) for one in _matches(text)})
        root = Path(os.path.commonpath([one.parent for one in paths])) if paths else Path()
        found = Found(Case(name_of(one, root), {"scan": Source(one)}) for one in paths)
        what = _NO_SCANS
    else:
        raise MedrlError(f"{text}: no such file or folder")
    if not found:
        why = f"; left out: {in_words(found.left_out)}" if found.left_out else ""
        raise MedrlError(f"{text}: holds {what}{why}")
    cases = [_with_roles(case, system, shared) for case in found]
    named = cases if bids else _distinct(cases)
    return Found(named, found.left_out, files=found.files)


# -------------------------------------------------------------------------------------------------


def _in_folder(root: Path, leave_out: Path | None, *, films: bool) -> Found:
    """Every scan below a folder; where they are wanted, every film as well."""
    cases: list[Case] = []
    pictures: dict[Path, int] = {}
    others: list[Path] = []
    left: list[LeftOut] = []

    def leave(path: Path, reason: str) -> None:
        left.append(LeftOut(path, reason))

    for path in walk(root, leave, leave_out):
        name = path.name.lower()
        # A link to nothing is a scan that fails by itself: somebody has to fetch its content.
        if reason := odd_kind(path):
            leave(path, reason)
        elif name.endswith(_FILES):
            if reason := no_scan_by_name(without_ending(path.name)):
                leave(path, f"{reason}; name it by a glob or a manifest to have it all the same")
            else:
                cases.append(Case(name_of(path, root), {"scan": Source(path)}))
        elif films and name.endswith(VIDEO_ENDINGS):
            cases.append(Case(name_of(path, root), {"scan": Source(path)}))
        elif films and name.endswith(PICTURE_ENDINGS):
            pictures[path.parent] = pictures.get(path.parent, 0) + 1
        elif may_be_dicom(path):
            others.append(path)
        else:
            leave(path, absence(path) or no_scan(path))
    cases += [
        Case(name_of(folder, root) if folder != root else root.resolve().name,
             {"scan": Source(folder)})
        for folder in pictures
    ]  # fmt: skip
    series, used = _series_in(root, others)
    unused = (path for path in others if path not in used)
    left += [LeftOut(path, absence(path) or "no DICOM image") for path in unused]
    files = len(cases) - len(pictures) + sum(pictures.values()) + len(used)
    return Found(cases + series, left, files=files)


def _matches(pattern: str) -> set[str]:
    """What a glob matches; ``**`` follows links, but for those that lead back."""
    before, deep, after = pattern.partition("**/")
    if not deep:
        return set(glob.glob(pattern))
    found: set[str] = set()
    for start in map(Path, glob.glob(before) if before else ["."]):
        below = {start}
        for path in walk(start, lambda *_: None, results=True):
            below |= {folder for folder in path.parents if folder.is_relative_to(start)}
        for folder in below:
            found |= _matches(os.path.join(glob.escape(str(folder)), after))
    return found


def _series_in(root: Path, files: Sequence[Path]) -> tuple[list[Case], set[Path]]:
    """A case for every DICOM series among the files, and for what may have been one.

    Returns:
        The cases, and which files they consist of.
    """
    if not files:
        return [], set()
    # What reads DICOM takes seconds to import, and most folders hold none.
    from medrl.volume.series import group_series

    def name(folder: Path) -> str:
        return name_of(folder, root) if folder != root else root.resolve().name

    listing = group_series(files)
    cases = []
    for number, series in enumerate(listing.series):
        folder = Path(os.path.commonpath([file.parent for file in series.files]))
        alone = not any(
            other is not series and file.is_relative_to(folder)
            for other in listing.series
            for file in other.files
        )
        part = "" if alone else f"/series-{number if series.number is None else series.number}"
        # Images without a UID lie in one folder, whose name is no part of their series' there.
        source = Source(folder, series.uid.rpartition("/")[2])
        cases.append(Case(name(folder) + part, {"scan": source}))
    # Who reads a series meets what lies beside it; what lies elsewhere fails by itself.
    searched = [case.source.path for case in cases]
    lost = {file.parent: file for file in listing.misnamed}
    lost |= {file.parent: file.parent for file in listing.unreadable}
    for folder, path in sorted(lost.items()):
        if not any(folder.absolute().is_relative_to(known) for known in searched):
            cases.append(Case(name(folder), {"scan": Source(path)}))
    used = {file for series in listing.series for file in series.files}
    return cases, used.union(listing.unreadable, listing.misnamed)


def _in_manifest(
    path: Path, system: System, shared: Mapping[str, Path], split: str | None
) -> list[Case]:
    """The rows of a table, or the entries of a JSON list."""
    rows = _json_rows(path, split) if path.name.lower().endswith(".json") else _table_rows(path)
    cases = []
    known = (*_WORDS, *(field.name for field in fields(system.given)))
    for number, row in enumerate(rows, 1):
        entry = {_ALIASES.get(key, key): value for key, value in row.items() if value}
        missing = [role for role in system.roles if role not in entry and role not in shared]
        if missing:
            raise MedrlError(f"{path}: entry {number} does not say {' and '.join(missing)}")
        sources = {role: Source(scan) for role, scan in shared.items() if role not in entry}
        options = {}
        for key, value in entry.items():
            target = path.parent / value
            if key in system.roles or (key not in known and _is_scan(target)):
                if not os.path.lexists(target):
                    raise MedrlError(f"{path}: entry {number}: {target} does not exist")
                sources[key] = Source(target, entry.get("series") if key == "scan" else None)
            elif key not in _WORDS:
                file, part = file_and_name(str(target.absolute()))
                text = file if part is None else f"{file}:{part}"
                options[key] = text if os.path.isfile(file) else value
        name = entry.get("name") or name_of(sources[system.roles[-1]].path, path.parent)
        cases.append(Case(name, sources, options))
    if not cases:
        raise MedrlError(f"{path}: names no scans")
    return cases


def _table_rows(path: Path) -> list[dict[str, str]]:
    try:
        # Names may hold bytes that are no UTF-8, as files' names may.
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise MedrlError(f"{path}: cannot be read as a table: {error}") from error
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise MedrlError(f"{path}: cannot be read as a table: {error}") from error
    return [_texts(path, n, row) for n, row in enumerate(rows, 1)]


def _json_rows(path: Path, split: str | None) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        content: Any = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise MedrlError(f"{path}: cannot be read as JSON: {error}") from error
    if isinstance(content, dict):
        lists = {key: content[key] for key in SPLITS if isinstance(content.get(key), list)}
        if split is not None and split not in lists:
            raise MedrlError(f"{path}: has no list {split!r}; it has {', '.join(lists) or 'none'}")
        chosen = lists.values() if split is None else [lists[split]]
        content = [entry for entries in chosen for entry in entries] if lists else None
    if not isinstance(content, list):
        raise MedrlError(f"{path}: is neither a list of scans nor a datalist")
    return [_texts(path, number, entry) for number, entry in enumerate(content, 1)]


def _texts(path: Path, number: int, entry: Any) -> dict[str, str]:
    """An entry whose keys and values are text."""
    if isinstance(entry, str):
        return {"scan": entry}
    if not isinstance(entry, Mapping) or None in entry:
        raise MedrlError(f"{path}: entry {number} is not a row of names and values")
    if not all(isinstance(v, str | int | float | None) for v in entry.values()):
        raise MedrlError(f"{path}: entry {number} holds values that are neither text nor numbers")
    return {str(k).strip(): "" if v is None else str(v).strip() for k, v in entry.items()}


def _is_scan(path: Path) -> bool:
    # These ask of any text whether it is a path, too long ones included.
    return os.path.isdir(path) or (
        os.path.isfile(path) and path.name.lower().endswith(SCAN_ENDINGS)
    )


def _with_roles(case: Case, system: System, shared: Mapping[str, Path]) -> Case:
    """A found scan in the last role, with what the others are, and what lies beside it."""
    *others, own = system.roles
    for role in others:
        if role not in shared:
            raise MedrlError(
                f"say which scan is {role}: --{role} SCAN, or a manifest with a column {role}"
            )
    sources = {role: Source(shared[role]) for role in others}
    return replace(
        case,
        sources={**sources, own: case.source},
        options=dict(system.sidecar(case.source.path)),
    )


def _distinct(cases: Iterable[Case]) -> list[Case]:
    """Cases by name; those of one name, or whose folder others' would lie in, are told apart.

    By the endings of their files, so that a scan is called the same whatever else is there; if they
    are those of one file, by a number.
    """
    listed = sorted(cases, key=lambda case: (-case.name.count("/"), case.name))
    count = Counter(alike(case.name) for case in listed)
    above = {alike(str(folder)) for case in listed for folder in PurePosixPath(case.name).parents}
    taken: set[str] = set()
    out = []
    for case in listed:
        name = case.name
        if count[alike(name)] > 1 or alike(name) in above:
            name += case.source.path.name.removeprefix(without_ending(case.source.path.name))
        whole, number = name, 1
        while alike(name) in taken | above:
            number += 1
            name = f"{whole}_{number}"
        taken.add(alike(name))
        out.append(replace(case, name=name))
    return sorted(out, key=lambda case: case.name)
