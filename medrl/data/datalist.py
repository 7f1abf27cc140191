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
    content = read_content(path)
    if not content.get("training"):
        raise MedrlError(f'{path} has no "training" list of {what}')
    return {split: content.get(split) or [] for split in SPLITS}


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
        content: Any = json.loads(path.read_text(encoding="utf-8"))
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
