"""What the commands share that leave identities out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medrl.errors import MedrlError

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


def shown_line(error: str, label: Path, files: Sequence[Path]) -> str:
    """What to say of an error with a scan.

    Args:
        error: What went wrong.
        label: The scan's path, or the pseudonym that stands for it.
        files: Where it lies; not said if the label is a pseudonym.

    Returns:
        A line that names the scan.
    """
    line = error
    if label not in files:
        from medrl.dicom.deidentify import without_paths

        line = without_paths(error, files, str(label))
    return line if str(label) in line else f"{label}: {line}"
