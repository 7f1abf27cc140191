"""Write a data set as what `medrl train landmark` takes: points per subject and a datalist."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.volume.points import write_markups, write_points_csv
from medrl_datasets import get
from medrl_datasets.card import Case, Datalist, Landmarks

PointFormat = Literal["csv", "mrk.json"]


def export(
    name: str,
    root: Path,
    out: Path,
    *,
    points: PointFormat = "csv",
    seed: int = 0,
    brains: bool = False,
) -> Path:
    """Write the landmarks of every subject and a datalist that names them.

    Scans stay where they are and are referenced by path, relative to the datalist; only the crops
    of `msd_hippocampus` are written anew, cut, padded and shifted at random.

    Args:
        name: Name of the data set.
        root: Folder of its local copy.
        out: Folder to write into; made if missing.
        points: `csv` (columns name, x, y, z, world RAS mm) or `mrk.json` (3D Slicer markups).
        seed: Seed of the shifts of `msd_hippocampus`.
        brains: Add a skull-stripped copy of every second training and validation scan; only for
            sets with label maps of the brain.

    Returns:
        Path of `datalist.json`: MONAI's datalist with the keys `training`, `validation` and `test`
        (the holdout), and the card's name, licence, citation and landmark names.

    Raises:
        MedrlError: If the copy is not whole or the folder cannot be written.
    """
    dataset = get(name)
    card = dataset.card()
    problems = [problem for problem in dataset.verify(root) if problem.startswith("missing")]
    if problems:
        raise MedrlError(
            f"{root} is not a whole copy of {name}: {len(problems)} files, first {problems[0]}"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        if name == "msd_hippocampus":
            from medrl_datasets.msd_hippocampus import write_shifted

            datalist, landmarks = write_shifted(root, out, seed=seed)
        else:
            datalist, landmarks = dataset.datalist(root), _landmarks(dataset, root)
        if brains:
            if name != "ixi_brain_t1":
                raise MedrlError(f"{name} has no label maps of whole brains: leave out --brains")
            from medrl_datasets.skull_strip import add_brains

            datalist = add_brains(datalist, out / "brains")
        files = _write_points(landmarks, out / "landmarks", points)
        content: dict[str, object] = {
            "name": card.name,
            "description": card.title,
            "licence": card.licence,
            "reference": card.citation,
            "landmarks": sorted({label for named in landmarks.values() for label in named}),
        }
        content |= _relative(datalist, files, out)
        path = out / "datalist.json"
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise MedrlError(f"cannot write to {out}: {error}") from error
    return path


def _landmarks(dataset: object, root: Path) -> Landmarks:
    """Return the landmarks of a set, none if it has none."""
    read = getattr(cast(ModuleType, dataset), "landmarks", None)
    return cast(Landmarks, read(root)) if read else {}


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


def _relative(datalist: Datalist, files: dict[str, Path], out: Path) -> Datalist:
    """Add the landmark files and make every path relative to the datalist's folder."""
    base = out.resolve()

    def place(path: str | Path) -> str:
        return Path(os.path.relpath(Path(path).resolve(), base)).as_posix()

    def relative(case: Case) -> Case:
        subject = case["subject"]
        placed = {key: place(value) for key, value in case.items() if key != "subject"}
        if subject in files:
            placed["landmarks"] = place(files[subject])
        return {"subject": subject, **placed}

    return {key: [relative(case) for case in cases] for key, cases in datalist.items()}
