"""Write a data set as what `medrl train` takes: a datalist, and points per subject or masks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.volume.points import write_markups, write_points_csv
from medrl_datasets import get
from medrl_datasets.card import Datalist, Entry, Landmarks
from medrl_datasets.local import read_landmarks

PointFormat = Literal["csv", "mrk.json"]


def export(
    name: str,
    root: Path,
    out: Path,
    *,
    points: PointFormat = "csv",
    landmarks: Path | None = None,
    seed: int = 0,
    brains: bool = False,
    masks: bool = False,
    as_published: bool = False,
    tissues: bool = False,
) -> Path:
    """Write the landmarks of every subject and a datalist that names them, or one of the masks.

    Scans stay where they are and are referenced by path, relative to the datalist; only the crops
    of `msd_hippocampus` are written anew, cut, padded and shifted at random.

    Args:
        name: Name of the data set.
        root: Folder of its local copy.
        out: Folder to write into; made if missing.
        points: `csv` (columns name, x, y, z, world RAS mm) or `mrk.json` (3D Slicer markups).
        landmarks: A table of other landmarks than the data set's own, columns subject, landmark, x,
            y, z (world RAS mm). Subjects that it does not name are left out.
        seed: Seed of the shifts of `msd_hippocampus`.
        brains: Add a skull-stripped copy of every second training and validation scan; only for
            sets with label maps of the brain.
        masks: Instead of the landmarks, name image and mask of every subject that has one, and
            what the masks hold; with several modalities `image` is an object of files by channel.
        as_published: Leave the crops of `msd_hippocampus` as they are, too.
        tissues: Add a map of its tissues to every training and validation scan, of which training
            makes up other contrasts; only for sets with label maps of the brain.

    Returns:
        Path of `datalist.json`: MONAI's datalist with the keys `training`, `validation` and `test`
        (the holdout), and the card's name, licence, citation and landmark names, or with `masks`
        the data set's `targets`, lists of labels by name.

    Raises:
        MedrlError: If the copy is not whole, there are no masks, the table of landmarks cannot be
            read or fits another data set, or the folder cannot be written.
    """
    dataset = get(name)
    card = dataset.card
    if landmarks is not None and masks:
        raise MedrlError("masks come without landmarks: leave out --masks or --landmarks")
    if landmarks is not None and name == "msd_hippocampus":
        raise MedrlError(f"{name} is shifted at random, with its own points: leave out --landmarks")
    problems = [problem for problem in dataset.verify(root) if problem.startswith("missing")]
    if problems:
        raise MedrlError(
            f"{root} is not a whole copy of {name}: {len(problems)} files, first {problems[0]}"
        )
    if masks and not any("label" in entry for entry in _entries(dataset.datalist(root))):
        raise MedrlError(f"{name} has no masks: leave out --masks")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if name == "msd_hippocampus" and not as_published:
            from medrl_datasets.msd_hippocampus import write_shifted

            datalist, places = write_shifted(root, out, seed=seed)
        elif landmarks is not None:
            datalist, places = _with_table(dataset.datalist(root), landmarks)
        else:
            datalist, places = dataset.datalist(root), dataset.landmarks(root)
        if brains:
            if name != "ixi_brain_t1":
                raise MedrlError(f"{name} has no label maps of whole brains: leave out --brains")
            from medrl_datasets.skull_strip import add_brains

            datalist = add_brains(datalist, out / "brains")
        if tissues:
            if name != "ixi_brain_t1":
                raise MedrlError(f"{name} has no label maps of whole brains: leave out --tissues")
            from medrl_datasets.tissues import add_tissues

            datalist = add_tissues(datalist, out / "tissues")
        content: dict[str, object] = {
            "name": card.name,
            "description": card.title,
            "licence": card.licence,
            "reference": card.citation,
        }
        if masks:
            if dataset.targets:
                content["targets"] = {name: list(some) for name, some in dataset.targets.items()}
            content |= _masks(datalist, dataset.channels, out)
        else:
            files = _write_points(places, out / "landmarks", points)
            named = {label for points_of in places.values() for label in points_of}
            content |= {"landmarks": sorted(named), **_relative(datalist, files, out)}
        path = out / "datalist.json"
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise MedrlError(f"cannot write to {out}: {error}") from error
    return path


def _with_table(datalist: Datalist, table: Path) -> tuple[Datalist, Landmarks]:
    """The entries that a table of landmarks names, and their landmarks."""
    places = read_landmarks(table)
    strangers = set(places) - {entry["subject"] for entry in _entries(datalist)}
    if strangers:
        raise MedrlError(f"{table}: {min(strangers)} is not a subject of the data set")
    named = {
        key: [entry for entry in entries if entry["subject"] in places]
        for key, entries in datalist.items()
    }
    return named, places


def _write_points(landmarks: Landmarks, folder: Path, points: PointFormat) -> dict[str, Path]:
    """Write one file of points per subject and return their paths."""
    if landmarks:
        folder.mkdir(exist_ok=True)
    files = {}
    for subject, named in landmarks.items():
        path = folder / f"{subject}.{points}"
        if points == "mrk.json":
            write_markups(path, named)
        else:
            write_points_csv(
                path,
                ({"name": label, **dict(zip("xyz", p, strict=True))} for label, p in named.items()),
            )
        files[subject] = path
    return files


def _entries(datalist: Datalist) -> list[Entry]:
    """The entries of all splits."""
    return [entry for entries in datalist.values() for entry in entries]


def _masks(datalist: Datalist, channels: Mapping[str, str], out: Path) -> dict[str, object]:
    """Image and mask of every subject that has one, relative to the datalist's folder."""

    def relative(entry: Entry) -> dict[str, object]:
        image: object = _place(entry["image"], out)
        if channels:
            image = {channel: _place(entry[key], out) for channel, key in channels.items()}
        return {"subject": entry["subject"], "image": image, "label": _place(entry["label"], out)}

    return {
        key: [relative(entry) for entry in entries if "label" in entry]
        for key, entries in datalist.items()
    }


def _place(path: str | Path, out: Path) -> str:
    """A path relative to a folder."""
    return Path(os.path.relpath(Path(path).resolve(), out.resolve())).as_posix()


def _relative(datalist: Datalist, files: dict[str, Path], out: Path) -> Datalist:
    """Add the landmark files and make every path relative to the datalist's folder."""

    def relative(entry: Entry) -> Entry:
        subject = entry["subject"]
        placed = {key: _place(value, out) for key, value in entry.items() if key != "subject"}
        if subject in files:
            placed["landmarks"] = _place(files[subject], out)
        return {"subject": subject, **placed}

    return {key: [relative(entry) for entry in entries] for key, entries in datalist.items()}
