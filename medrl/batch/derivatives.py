"""Results of BIDS images under the names that BIDS derivatives have.

"Derivatives" of the BIDS specification 1.10: a result keeps the entities of its source; ``space``
says on which image's grid or in whose world it lies, here the source itself by its suffix, so that
results of a T1w and a T2w of one session differ. Transforms follow the common
``from-_to-_mode-image_xfm``. What BIDS has no suffix for (landmarks, agents' paths, seeds) is named
by the same rules and listed in ``.bidsignore``.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import medrl
from medrl.batch.bids import DESCRIPTION, BidsName, parse_name, read_description, root_of
from medrl.batch.cases import Case, Verb
from medrl.batch.record import Record
from medrl.errors import MedrlError
from medrl.files import atomic_path

_VERSION = "1.10.0"
#: Entities of raw images that come after ``space`` in the order that BIDS prescribes.
_AFTER_SPACE = ("split", "recording", "chunk")
#: What BIDS knows no names for, and the tables of the run.
_IGNORED = (
    *("*_landmarks.*", "*_agents.*", "*_seeds.*", "*_xfm.*", "*_dseg.png"),
    *("*_inv-*_dseg.*", "*_flip-*_dseg.*", "*_mt-*_dseg.*", "sub-*/**/pet/*_dseg.*", "ct"),
    *("results.csv", "results.parquet", "failures.csv", "run.json", "report.html", ".medrl/"),
)
#: How a result's ending becomes a suffix and an ending; None stands for that of its source.
_NAMES: dict[str, tuple[str | None, str]] = {
    ".mrk.json": ("landmarks", ".mrk.json"),
    ".csv": ("landmarks", ".tsv"),
    ".seg.nii.gz": ("dseg", ".nii.gz"),
    ".seeds.mrk.json": ("seeds", ".mrk.json"),
    ".trajectory.json": ("agents", ".trajectory.json"),
    ".tfm": ("xfm", ".tfm"),
    ".matrix.txt": ("xfm", ".txt"),
    ".report.json": ("xfm", ".json"),
    ".before-after.png": ("xfm", ".png"),
    ".checkerboard.png": ("xfm", ".png"),
    ".nii.gz": (None, ".nii.gz"),
}
#: What the files of a suffix are, for their sidecar.
_TOLD = {
    "landmarks": "Landmarks found by agents; coordinates are RAS+ mm in the world of the image",
    "dseg": "Objects segmented from seeds",
    "seeds": "Where the objects were marked, by the user and by the agent",
    "agents": "The path of every agent",
    "xfm": "Brings the image onto the other one: points of that one's world go to the image's",
}
_README = """# {name}

Made by `{made}`. For research; not for diagnosis.

`report.html` shows the whole run, `results.csv` is its table, `failures.csv` lists what failed and
why, `run.json` says with which versions and options. World coordinates are RAS+ mm.
"""
_LANDMARK_COLUMNS = {
    "name": {"Description": "Of the landmark"},
    **{key: {"Description": "RAS+ world coordinate", "Units": "mm"} for key in "xyz"},
    "status": {"Description": "found, corrected, or absent: not in the image"},
    "confidence": {"Description": "From 0 to 1"},
    "note": {"Description": "What the detector has to say of it"},
}


def describe_dataset(
    root: Path, cases: Sequence[Case], verb: Verb, fingerprint: Mapping[str, Any]
) -> None:
    """Make an output folder a BIDS derivative, if its cases come from a BIDS dataset.

    Args:
        root: The output folder.
        cases: Of the run.
        verb: What is done to them.
        fingerprint: Of the task: the model and its checksum.

    Raises:
        MedrlError: If the folder is another dataset.
    """
    raw = root_of(cases)
    if raw is None:
        return
    if (root / DESCRIPTION).exists():
        known = read_description(root)
        by = known.get("GeneratedBy")
        first = by[0] if isinstance(by, list) and by else None
        if not (isinstance(first, dict) and first.get("Name") == "medrl"):
            raise MedrlError(
                f"{root}: is a BIDS dataset that medrl has not made; choose another folder, such "
                f"as {raw / 'derivatives' / 'medrl'}"
            )
    source = read_description(raw)
    within = root.resolve().is_relative_to(raw.resolve())
    where = os.path.relpath(raw.resolve(), root.resolve()) if within else raw.resolve().as_uri()
    links = {"URL": where, "DOI": source.get("DatasetDOI")}
    made = (
        f"medrl batch {verb}, model {fingerprint.get('model')}, sha256 {fingerprint.get('sha256')}"
    )
    content = {
        "Name": f"medrl {verb}: {source.get('Name', 'unnamed')}",
        "BIDSVersion": _VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medrl", "Version": medrl.__version__, "Description": made}],
        "SourceDatasets": [{key: text for key, text in links.items() if isinstance(text, str)}],
        "DatasetLinks": {"raw": where},
    }
    _write_json(root / DESCRIPTION, content)
    with atomic_path(root / ".bidsignore") as temporary:
        temporary.write_text("\n".join(_IGNORED) + "\n", encoding="utf-8")
    with atomic_path(root / "README.md") as temporary:
        text = _README.format(name=content["Name"], made=made)
        temporary.write_text(text, encoding="utf-8", errors="replace")


def arrange(folder: Path, case: Case, record: Record) -> Record:
    """Rename the results of a BIDS image, and add what BIDS wants beside them.

    Args:
        folder: With the results, named after the case, and nothing else.
        case: Whose they are.
        record: Of them.

    Returns:
        The record, with the new name of the picture.
    """
    source = parse_name(case.stem)
    if source is None:
        raise MedrlError(f"{case.name}: is not named as BIDS has it")
    onto = _label(case.sources["fixed"].path) if "moving" in case.sources else None
    names: dict[str, str] = {}
    suffixes: dict[str, BidsName] = {}
    files = sorted(folder.iterdir())
    masks = any(path.name.endswith(".seg.nii.gz") for path in files)
    for path in files:
        known = path.name.startswith(case.stem)
        ending = path.name.removeprefix(case.stem) if known else f".{path.name}"
        name, new_ending = _name_for(source, ending, onto, masks=masks)
        names[path.name] = f"{_text(name)}{new_ending}"
        if ending == ".csv":
            _write_tsv(folder / names[path.name], _read_rows(path))
            path.unlink()
        else:
            path.rename(folder / names[path.name])
        if new_ending != ".png":
            suffixes[_text(name)] = name
    for stem, name in suffixes.items():
        _add_sidecar(folder / f"{stem}.json", case, name, onto)
        if name.suffix == "dseg":
            rows = [{"index": row["label"], "name": row["target"]} for row in record.rows]
            _write_tsv(folder / f"{stem}.tsv", rows)
    return replace(record, picture=names.get(record.picture or "", record.picture))


# -------------------------------------------------------------------------------------------------


def _name_for(
    source: BidsName, ending: str, onto: str | None, *, masks: bool
) -> tuple[BidsName, str]:
    """What a result is called, and its new ending."""
    main = "dseg" if masks else "landmarks" if onto is None else "xfm"
    suffix, new_ending = _NAMES.get(ending, (main, ending))
    description = "medrl"
    if onto is None:
        said = {"space": source.suffix}
    elif suffix is None:
        said = {"space": onto}
    else:
        said = {"from": source.suffix, "to": onto, "mode": "image"}
        if ending.endswith(".png"):
            description += re.sub(r"[^a-z]", "", ending.removesuffix(".png"))
    before = {key: v for key, v in source.entities.items() if key not in _AFTER_SPACE}
    after = {key: v for key, v in source.entities.items() if key in _AFTER_SPACE}
    entities = {**before, **said, **after, "desc": description}
    return BidsName(entities, suffix or source.suffix), new_ending


def _text(name: BidsName) -> str:
    return "_".join([*(f"{k}-{v}" for k, v in name.entities.items()), name.suffix])


def _label(path: Path) -> str:
    """What a fixed scan is called as the space that others are brought into."""
    stem = path.name.partition(".")[0]
    template = re.search(r"(?:^|_)(?:tpl|space)-([0-9a-zA-Z+]+)", stem)
    return template[1] if template else re.sub(r"[^0-9a-zA-Z]", "", stem) or "fixed"


def _add_sidecar(path: Path, case: Case, name: BidsName, onto: str | None) -> None:
    """Say where results come from, in addition to what is there of them."""
    scan = case.sources.get("scan") or case.sources["moving"]
    itself = f"bids:raw:{case.name}{scan.path.name.removeprefix(case.stem)}"
    sources, reference = [itself], itself
    if onto is not None:
        fixed = case.sources["fixed"].path.name
        sources.append(fixed)
        reference = fixed
    content: dict[str, Any] = {
        "Description": _TOLD.get(name.suffix, "The image on the grid of the other one"),
        "Sources": sources,
    }
    if "space" in name.entities:
        content["SpatialReference"] = reference
    if name.suffix == "landmarks":
        content |= _LANDMARK_COLUMNS
    if name.suffix not in _TOLD:
        content["SkullStripped"] = False  # raw images are as they were recorded
    if path.exists():
        content["Registration"] = json.loads(path.read_text(encoding="utf-8"))
    _write_json(path, content)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _write_tsv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table as BIDS has them: tabs, and n/a for what is missing."""
    columns = list(rows[0]) if rows else []
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(["n/a" if row[c] in (None, "") else row[c] for c in columns])


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
