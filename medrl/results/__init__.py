"""What the results of all systems share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path


class SavedFiles(dict[str, Path]):
    """Files that a result was written to, by kind.

    Attributes:
        remarks: What the user should know of them, one line each.
    """

    def __init__(self, files: Mapping[str, Path], remarks: Iterable[str] = ()) -> None:
        """Take note of files.

        Args:
            files: Paths by kind, the main one first.
            remarks: What the user should know of them.
        """
        super().__init__(files)
        self.remarks = tuple(remarks)
