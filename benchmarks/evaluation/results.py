"""Results on disk: committed JSON that says what it shows and what it was measured with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medrl.evaluation import Table, plain, versions, write_json

#: Where results are committed.
RESULTS = Path(__file__).resolve().parents[1] / "results"

Claims = Mapping[str, Callable[[dict[str, Any]], str]]


def save(path: Path, result: Mapping[str, Any], claims: Claims | None = None) -> None:
    """Write a result, numbers rounded to 4 digits, with the versions it was measured with.

    Args:
        path: The file; its folder is made if missing.
        result: The figures.
        claims: What the README says of it, and for each how the figures read in one line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = plain(result, digits=4)
    about = {}
    if claims:
        lines = {claim: measured(figures) for claim, measured in claims.items()}
        about = {"script": Path(sys.argv[0]).name, "claims": lines}
    write_json(path, {**about, **figures, **about, "environment": versions()})


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown; floats with two digits."""
    print(Table("", header, rows).markdown(), flush=True)
