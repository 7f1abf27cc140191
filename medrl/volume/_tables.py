"""Tables of places: text with a header, as any spreadsheet reads and writes it."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from medrl.errors import MedrlError
from medrl.files import atomic_path


def write_table(
    path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]], *, header: Sequence[str]
) -> None:
    """Write a table; floats with four decimals, NaN and None as nothing.

    Args:
        path: File to write.
        rows: One mapping a row, with equal keys, which become the header.
        header: That of a table without rows.

    Raises:
        MedrlError: If the rows differ in their keys or the file cannot be written.
    """
    table = list(rows)
    columns = list(table[0]) if table else list(header)
    if any(list(row) != columns for row in table):
        raise MedrlError(f"cannot write {path}: its rows differ in their columns")
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row.values()] for row in table)


def read_table(text: str, delimiter: str | None = None) -> tuple[list[str], list[list[str]]]:
    """The cells of a table.

    Args:
        text: With at least one line that is not empty.
        delimiter: Between cells; the most frequent of comma, semicolon and tab if left out.

    Returns:
        The header in lower case, and the rows, each with as many cells.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = delimiter or max(",;\t", key=lines[0].count)
    table = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    header = [cell.strip().lower() for cell in next(table)]
    rows = [[cell.strip() for cell in row] for row in table]
    return header, [(row + [""] * len(header))[: len(header)] for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.4f}"
    return str(value)
