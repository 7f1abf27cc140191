"""What the commands share that leave identities out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medrl.errors import MedrlError
from medrl.files import printable

if TYPE_CHECKING:
    from medrl.dicom import Pseudonyms


def pseudonyms_of(deidentify: bool, key: Path | None, out: Path) -> Pseudonyms | None:
    """What identities are replaced by.

    Args:
        deidentify: Whether they are.
        key: File with the key; the user's own if None.
        out: Folder for the results, which is meant to be given away.

    Returns:
        None if identities stay.

    Raises:
        MedrlError: If there is no key, or it would lie among the results.
    """
    if not deidentify:
        if key is not None:
            raise MedrlError("--key is for --deidentify")
        return None
    from medrl.dicom.deidentify import Pseudonyms, default_key_file

    file = default_key_file() if key is None else key
    if file.resolve().is_relative_to(out.resolve()):
        raise MedrlError(f"{file}: keep the key apart from the results in {out}")
    return Pseudonyms.load(file)


def shown_line(error: str, labels: Mapping[str, str], scans: Mapping[str, Path]) -> str:
    """What to say of an error with the scans of a case.

    Args:
        error: What went wrong.
        labels: What each scan is called: its path, or what stands for it.
        scans: Where each lies; not said if it is called otherwise.

    Returns:
        A line that names one of the scans.
    """
    line = printable(error)
    for role, label in labels.items():
        if label != printable(str(scans[role])):
            from medrl.dicom.deidentify import without_paths

            line = without_paths(line, [scans[role]], label)
    if any(label in line for label in labels.values()):
        return line
    return f"{list(labels.values())[-1]}: {line}"
