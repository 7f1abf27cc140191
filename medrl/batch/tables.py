"""The tables of a run: a row a landmark, an object or a pair; failures; the run itself."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import medrl
from medrl.batch.cases import Case
from medrl.batch.store import Store
from medrl.files import atomic_path

_PACKAGES = ("torch", "monai", "numpy", "nibabel", "pydicom", "SimpleITK")


def write_tables(store: Store, cases: Sequence[Case], facts: dict[str, Any]) -> tuple[int, int]:
    """Write ``results.csv``, ``failures.csv`` and ``run.json`` from what is in the output folder.

    Args:
        store: The output folder.
        cases: All cases of the run, done or not.
        facts: Model, options and times, in terms of JSON.

    Returns:
        How many are done, and how many have failed.

    Raises:
        MedrlError: If they cannot be written.
    """
    records = [(case, store.record(case)) for case in cases]
    done = [(case, record) for case, record in records if record is not None]
    failures = [(case, store.failure(case) or {}) for case, record in records if record is None]
    failed = [(case, known["reason"]) for case, known in failures if "reason" in known]
    rows = [
        {"case": case.name, **row, "warnings": "; ".join(record["warnings"]) if not n else ""}
        for case, record in done
        for n, row in enumerate(record["rows"])
    ]
    _write_csv(store.root / "results.csv", rows, ["case"])
    paths = [
        {"case": case.name, "reason": why, **{r: str(s.path) for r, s in case.sources.items()}}
        for case, why in failed
    ]
    _write_csv(store.root / "failures.csv", paths, ["case", "reason"])
    summary = {
        "medrl": medrl.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        **facts,
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cases": len(cases),
        "done": len(done),
        "failed": len(failed),
        "seconds": {case.name: record["seconds"] for case, record in done},
    }
    with atomic_path(store.root / "run.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, allow_nan=False), encoding="utf-8")
    return len(done), len(failed)


def _write_csv(path: Path, rows: Iterable[dict[str, Any]], least: Sequence[str]) -> None:
    """A table with the columns of all rows, in the order in which they are first met."""
    rows = list(rows)
    columns = list(dict.fromkeys([*least, *(key for row in rows for key in row)]))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
