"""What is known of a case that is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Record:
    """What became of a case.

    Attributes:
        rows: For the table of the run.
        warnings: What the user should know, one line each.
        picture: Name of a picture among its files, if there is one.
    """

    rows: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)
    picture: str | None = None
