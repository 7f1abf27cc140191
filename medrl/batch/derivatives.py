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
from medrl.batch.bids import DESCRIPTION, read_description, root_of
from medrl.batch.bids_names import BidsName, parse_name
from medrl.batch.cases import Case
from medrl.batch.store import Record
from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.systems import Artifact, System

_VERSION = "1.10.0"
#: Entities of raw images that come after ``space`` in the order that BIDS prescribes.
_AFTER_SPACE = ("split", "recording", "chunk")
#: What BIDS has no names for: forms of masks, and the tables of the run.
_IGNORED = (
    *("*_dseg.png", "*_inv-*_dseg.*", "*_flip-*_dseg.*", "*_mt-*_dseg.*", "sub-*/**/pet/*_dseg.*"),
    *("ct", "results.csv", "results.parquet", "failures.csv", "left_out.csv", "run.json"),
    *("report.html", ".medrl/"),
)
_README = """# {name}

Made by `{made}`. For research; not for diagnosis.

`report.html` shows the whole run, `results.csv` is its table, `failures.csv` lists what failed and
why, `run.json` says with which versions and options. World coordinates are RAS+ mm.
"""


def describe_dataset(
    root: Path, cases: Sequence[Case], system: System, fingerprint: Mapping[str, Any]
) -> None:
    """Make an output folder a BIDS derivative, if its cases come from a BIDS dataset.

    Args:
        root: The output folder.
        cases: Of the run.
        system: What is done to them.
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
    model, checksum = fingerprint.get("model"), fingerprint.get("sha256")
    made = f"medrl batch {system.verb}, model {model}, sha256 {checksum}"
    content = {
        "Name": f"medrl {system.verb}: {source.get('Name', 'unnamed')}",
        "BIDSVersion": _VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medrl", "Version": medrl.__version__, "Description": made}],
        "SourceDatasets": [{key: text for key, text in links.items() if isinstance(text, str)}],
        "DatasetLinks": {"raw": where},
    }
    _write_json(root / DESCRIPTION, content)
    with atomic_path(root / ".bidsignore") as temporary:
        unknown = {a.suffix for a in system.artifacts.values() if a.suffix not in (None, "dseg")}
        lines = [*(f"*_{suffix}.*" for suffix in sorted(map(str, unknown))), *_IGNORED]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with atomic_path(root / "README.md") as temporary:
        text = _README.format(name=content["Name"], made=made)
        temporary.write_text(text, encoding="utf-8", errors="replace")


def arrange(folder: Path, case: Case, record: Record, system: System) -> Record:
    """Rename the results of a BIDS image, and add what BIDS wants beside them.

    Args:
        folder: With the results, named after the case, and nothing else.
        case: Whose they are.
        record: Of them.
        system: Whose artifacts they are.

    Returns:
        The record, with the new name of the picture.
    """
    source = parse_name(case.stem)
    if source is None:
        raise MedrlError(f"{case.name}: is not named as BIDS has it")
    onto = _label(next(iter(case.sources.values())).path) if len(case.sources) > 1 else None
    names: dict[str, str] = {}
    described: dict[str, tuple[BidsName, Artifact]] = {}
    for path in sorted(folder.iterdir()):
        known = path.name.startswith(case.stem)
        ending = path.name.removeprefix(case.stem) if known else f".{path.name}"
        artifact = _artifact(system, ending)
        name = _name_for(source, artifact, ending, onto)
        names[path.name] = f"{_text(name)}{artifact.ending}"
        if ending == ".csv" and artifact.ending == ".tsv":
            _write_tsv(folder / names[path.name], _read_rows(path))
            path.unlink()
        else:
            path.rename(folder / names[path.name])
        if artifact.ending != ".png":
            described.setdefault(_text(name), (name, artifact))
    for stem, (name, artifact) in described.items():
        _add_sidecar(folder / f"{stem}.json", case, name, artifact, system)
        if name.suffix == "dseg":
            kind = system.group or "object"
            labelled = [row for row in record.rows if "label" in row]
            rows = [{"index": row["label"], "name": row[kind]} for row in labelled]
            _write_tsv(folder / f"{stem}.tsv", rows)
    return replace(record, picture=names.get(record.picture or "", record.picture))


# -------------------------------------------------------------------------------------------------


def _artifact(system: System, ending: str) -> Artifact:
    """What a file is; the main artifact's kind if the system says nothing of it."""
    known = [one for one in system.artifacts if ending.endswith(one)]
    if known:
        return system.artifacts[max(known, key=len)]
    main = next(iter(system.artifacts.values()), None)
    suffix = system.name if main is None else main.suffix
    return Artifact(suffix, ending, f"What medrl {system.verb} leaves")


def _name_for(source: BidsName, artifact: Artifact, ending: str, onto: str | None) -> BidsName:
    """What a result is called."""
    description = "medrl"
    onto = artifact.space or onto
    if artifact.space is not None and artifact.suffix != "xfm":
        said = {"space": artifact.space}
    elif onto is None:
        said = {"space": source.suffix}
    elif artifact.suffix is None:
        said = {"space": onto}
    else:
        said = {"from": source.suffix, "to": onto, "mode": "image"}
        if ending.endswith(".png"):
            description += re.sub(r"[^a-z]", "", ending.removesuffix(".png"))
    before = {key: v for key, v in source.entities.items() if key not in _AFTER_SPACE}
    after = {key: v for key, v in source.entities.items() if key in _AFTER_SPACE}
    entities = {**before, **said, **after, "desc": description}
    return BidsName(entities, artifact.suffix or source.suffix)


def _text(name: BidsName) -> str:
    return "_".join([*(f"{k}-{v}" for k, v in name.entities.items()), name.suffix])


def _label(path: Path) -> str:
    """What a fixed scan is called as the space that others are brought into."""
    stem = path.name.partition(".")[0]
    template = re.search(r"(?:^|_)(?:tpl|space)-([0-9a-zA-Z+]+)", stem)
    return template[1] if template else re.sub(r"[^0-9a-zA-Z]", "", stem) or "fixed"


def _add_sidecar(
    path: Path, case: Case, name: BidsName, artifact: Artifact, system: System
) -> None:
    """Say where results come from, in addition to what is there of them."""
    sources = [f"bids:raw:{case.name}{case.source.path.name.removeprefix(case.stem)}"]
    reference = sources[0]
    if len(case.sources) > 1:
        reference = next(iter(case.sources.values())).path.name
        sources.append(reference)
    content: dict[str, Any] = {"Description": artifact.meaning, "Sources": sources}
    if "space" in name.entities and artifact.space is None:
        content["SpatialReference"] = reference
    content |= artifact.columns
    if artifact.suffix is None:
        content["SkullStripped"] = False  # raw images are as they were recorded
    if path.exists():
        content[system.name.capitalize()] = json.loads(path.read_text(encoding="utf-8"))
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
