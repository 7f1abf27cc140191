"""Local copies of data sets: splits, datalists and checksums."""

from __future__ import annotations

import csv
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import numpy as np

from medrl.errors import MedrlError
from medrl_datasets.card import Card, Datalist, Landmarks, Splits

#: Splits, and MONAI's words for them.
_SPLITS = {"train": "training", "val": "validation", "holdout": "test"}


class DataSet(ABC):
    """What every module of `medrl_datasets` has as `DATASET`; `root` is the folder of a local copy.

    Attributes:
        card: The data card.
        subjects: All of a set that is for tests and demonstrations only, so that all are held out;
            None if `splits.csv` of the copy says who is.
        channels: Of a set with several images of each patient, the name of each for a model, and
            the key of its file in an entry; a model works on the grid of the first.
        targets: Of a set with masks, what a model can be asked for, and the values of the masks
            that make up each.
    """

    card: ClassVar[Card]
    subjects: ClassVar[tuple[str, ...] | None] = None
    channels: ClassVar[Mapping[str, str]] = {}
    targets: ClassVar[Mapping[str, tuple[int, ...]]] = {}

    @abstractmethod
    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a subject: `image`, and others by their keys."""

    def splits(self, root: Path) -> Splits:
        """Return the subjects for training, validation and holdout."""
        if self.subjects is None:
            return read_splits(root, self.card)
        return {"train": (), "val": (), "holdout": self.subjects}

    def datalist(self, root: Path) -> Datalist:
        """Return MONAI's datalist, with full paths."""
        splits = self.splits(root)
        return {
            key: [
                {**{k: str(file) for k, file in self.files(root, s).items()}, "subject": s}
                for s in splits[split]
            ]
            for split, key in _SPLITS.items()
        }

    def landmarks(self, root: Path) -> Landmarks:
        """Return the landmarks of every subject; none if the set has none.

        Raises:
            MedrlError: If a file is missing or broken.
        """
        return {}

    def verify(self, root: Path) -> tuple[str, ...]:
        """Return what is missing from or differs in the copy, a line each."""
        return verify_files(root, self.card.name)


def root_of(name: str, root: str | os.PathLike[str] | None = None) -> Path:
    """Find the folder of a local copy.

    Args:
        name: Name of the data set.
        root: Its folder; None means the folder `name` in the folder that MEDRL_DATA names.

    Raises:
        MedrlError: If there is no such folder.
    """
    if root is None:
        base = os.environ.get("MEDRL_DATA")
        if not base:
            raise MedrlError(
                f"where is the data set {name}? name its folder with --root, "
                "or the folder of all data sets with the variable MEDRL_DATA"
            )
        root = Path(base) / name
    folder = Path(root)
    if not folder.is_dir():
        raise MedrlError(f"{folder} is not a folder: it should hold a copy of the data set {name}")
    return folder


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read a CSV file with a header.

    Raises:
        MedrlError: If the file cannot be read or lacks one of `columns`.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MedrlError(f"cannot read {path}: {error}") from error
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise MedrlError(f"{path} has no column {', '.join(missing)}")
    if any(row[column] is None for row in rows for column in columns):
        raise MedrlError(f"{path} has a line with too few fields")
    return rows


def read_landmarks(path: Path) -> Landmarks:
    """Read a table of landmarks: columns subject, landmark, x, y, z, RAS+ millimetres.

    Raises:
        MedrlError: If the file is missing or broken.
    """
    points: Landmarks = {}
    for row in read_table(path, ("subject", "landmark", "x", "y", "z")):
        try:
            position = np.array([float(row[axis]) for axis in "xyz"])
        except ValueError as error:
            raise MedrlError(f"{path}: a coordinate of {row['subject']}: {error}") from error
        points.setdefault(row["subject"], {})[row["landmark"]] = position
    return points


def read_splits(root: Path, card: Card) -> Splits:
    """Read `splits.csv` (columns subject, split) of a local copy.

    Raises:
        MedrlError: If the file is missing or broken, names a subject twice, or gives a subject
            that the card holds out to training or validation.
    """
    path = root / "splits.csv"
    found: dict[str, list[str]] = {split: [] for split in _SPLITS}
    seen: set[str] = set()
    for row in read_table(path, ("subject", "split")):
        subject, split = row["subject"].strip(), row["split"].strip()
        if split not in found:
            raise MedrlError(f"{path}: {split!r} is not one of {', '.join(_SPLITS)}")
        if subject in seen:
            raise MedrlError(f"{path} names {subject} twice")
        if split != "holdout" and subject in card.holdout:
            raise MedrlError(f"{path} gives {subject} to {split}, but it is held out")
        seen.add(subject)
        found[split].append(subject)
    return {split: tuple(subjects) for split, subjects in found.items()}


def manifest(name: str) -> dict[str, str]:
    """Return the SHA-256 of every file that a copy of the set is expected to hold, by path."""
    text = (files("medrl_datasets") / "manifests" / f"{name}.sha256").read_text(encoding="utf-8")
    return {path: digest for digest, path in (line.split("  ", 1) for line in text.splitlines())}


def verify_files(root: Path, name: str) -> tuple[str, ...]:
    """Compare a local copy with the manifest of the set.

    Args:
        root: Folder of the copy.
        name: Name of the data set.

    Returns:
        One line for each file that is missing or differs; empty when the copy is whole. Files that
        the manifest does not know are ignored.
    """
    problems = []
    for path, expected in manifest(name).items():
        file = root / path
        if not file.is_file():
            problems.append(f"missing: {path}")
            continue
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != expected:
            problems.append(f"differs: {path}")
    return tuple(problems)
