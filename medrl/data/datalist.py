"""MONAI datalists: which scans are for training, validation and test."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from medrl.errors import MedrlError

SPLITS = ("training", "validation", "test")

T = TypeVar("T")


class NoSamplesError(MedrlError):
    """A split has nothing to measure on."""


@dataclass(frozen=True)
class Entry:
    """One object of a datalist, as it stands there.

    Attributes:
        fields: What it holds, by key.
        datalist: The file; paths in the object are relative to it.
        where: Which object it is, for messages.
    """

    fields: dict[str, Any]
    datalist: Path
    where: str

    def path(self, key: str) -> Path:
        """The path that a key names, whether it is there or not."""
        return self.datalist.parent / str(self.fields[key])

    def file(self, key: str) -> Path:
        """The file or folder that a key names.

        Raises:
            MedrlError: If it is not there.
        """
        return self._existing(self.path(key))

    def images(self, channels: Sequence[str]) -> dict[str, Path]:
        """Files or folders by channel: ``image`` is one path, or an object of paths.

        Args:
            channels: The names that are known; a single path is the first.

        Raises:
            MedrlError: If there is none, one is not known or not there.
        """
        named = self.fields["image"]
        if not isinstance(named, dict):
            named = {channels[0]: named}
        unknown = sorted(set(named) - set(channels))
        if unknown or not named:
            raise MedrlError(
                f"{self.datalist}: {self.where} has images {unknown}; "
                f"the model knows {list(channels)}"
            )
        folder = self.datalist.parent
        return {name: self._existing(folder / str(file)) for name, file in named.items()}

    def _existing(self, path: Path) -> Path:
        if not os.path.exists(path):  # which says so of names that are too long, too
            raise MedrlError(f"{self.datalist}: {path} does not exist")
        return path


def read_samples(
    path: Path, *, keys: Sequence[str], sample: Callable[[Entry], T]
) -> dict[str, list[T]]:
    """Read a datalist, a JSON object with a list of objects for each split.

    An object may be a plain name, that of its image, as under "test" in the lists of the Medical
    Segmentation Decathlon. Scans for validation and test of which nothing but the image is known
    are left out, and a UserWarning counts them; entries of macOS's shadow files (``._name``) are
    passed over.

    Args:
        path: The JSON file.
        keys: What every object must have.
        sample: Makes a labelled scan of an object.

    Returns:
        Samples of each split; missing splits are empty.

    Raises:
        MedrlError: If the file cannot be read, is not JSON, an entry is not as expected, there is
            nothing to train on, or what ``sample`` raises.
    """
    content = read_content(path)
    if not content.get("training"):
        raise MedrlError(f'{path} has no "training" list of {" and ".join(keys)}')
    samples: dict[str, list[T]] = {}
    for split in SPLITS:
        samples[split] = []
        left_out = 0
        for number, fields in enumerate(_objects(content.get(split) or [])):
            where = f'entry {number} of "{split}"'
            if not isinstance(fields, dict) or not set(keys) <= set(fields):
                if split != "training" and isinstance(fields, dict) and set(fields) == {"image"}:
                    left_out += 1
                    continue
                needed = " and ".join(f'"{key}"' for key in keys)
                raise MedrlError(f"{path}: {where} needs {needed}")
            samples[split].append(sample(Entry(fields, path, where)))
        if left_out:
            remark = f'{left_out} scans of "{split}" come without what is to be found in them'
            warnings.warn(f"{path}: {remark}: left out", UserWarning, stacklevel=2)
    return samples


def samples_of(samples: Mapping[str, list[T]], split: str, path: Path) -> list[T]:
    """The samples of a split.

    Raises:
        NoSamplesError: If the datalist that they were read from has none.
    """
    if not samples[split]:
        raise NoSamplesError(f"{path} has no scans in the split {split!r} to measure on")
    return samples[split]


def has_scans(path: Path, split: str) -> bool:
    """Whether a datalist names scans for a split.

    Raises:
        MedrlError: If it cannot be read.
    """
    return bool(read_content(path).get(split))


def read_content(path: Path) -> dict[str, Any]:
    """Read a datalist as it stands, whatever else it holds.

    Args:
        path: The JSON file.

    Returns:
        Its object; every split that is there is a list.

    Raises:
        MedrlError: If the file cannot be read, is not JSON, or a split is not a list.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise MedrlError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise MedrlError(f"{path} is not a JSON datalist: {error}") from error
    if not isinstance(content, dict):
        raise MedrlError(f'{path} is not a datalist: it has no "training" list')
    for split in SPLITS:
        if not isinstance(content.get(split) or [], list):
            raise MedrlError(f'{path}: "{split}" is not a list')
    return content


def read_targets(path: Path) -> dict[str, tuple[int, ...]]:
    """Read what the masks of a datalist hold: ``"targets": {"L1": [1], "whole": [1, 2]}``.

    Args:
        path: The JSON file.

    Returns:
        Values of the masks, above 0, by the name of what they make up; empty if it does not say.

    Raises:
        MedrlError: If the file cannot be read, or its targets are not lists of labels by name.
    """
    content = read_content(path).get("targets") or {}
    if not isinstance(content, dict) or not all(
        isinstance(labels, list)
        and labels
        and all(type(label) is int and label > 0 for label in labels)
        for labels in content.values()
    ):
        raise MedrlError(f'{path}: "targets" is not an object of lists of labels above 0')
    return {name: tuple(labels) for name, labels in content.items()}


def _objects(entries: list[Any]) -> Iterator[Any]:
    """The entries of a list, plain names as objects, without those of shadow files."""
    for entry in entries:
        fields = {"image": entry} if isinstance(entry, str) else entry
        image = fields.get("image") if isinstance(fields, dict) else None
        if not (isinstance(image, str) and re.split(r"[/\\]", image)[-1].startswith("._")):
            yield fields
