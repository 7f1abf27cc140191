"""MONAI datalists: which scans are for training, validation and test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medrl.errors import MedrlError

SPLITS = ("training", "validation", "test")


def read_splits(path: Path, *, what: str) -> dict[str, list[Any]]:
    """Read the entries of a datalist, a JSON object with a list for each split.

    Args:
        path: The JSON file.
        what: What the entries are of, for messages.

    Returns:
        Entries of each split, as they stand there; missing splits are empty.

    Raises:
        MedrlError: If the file cannot be read, is not JSON, a split is not a list, or there is
            nothing to train on.
    """
    try:
        content: Any = json.loads(path.read_text())
    except OSError as error:
        raise MedrlError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise MedrlError(f"{path} is not a JSON datalist: {error}") from error
    if not isinstance(content, dict) or not content.get("training"):
        raise MedrlError(f'{path} has no "training" list of {what}')
    splits = {split: content.get(split) or [] for split in SPLITS}
    for split, entries in splits.items():
        if not isinstance(entries, list):
            raise MedrlError(f'{path}: "{split}" is not a list')
    return splits
