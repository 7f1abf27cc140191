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
from medrl.batch.store import Store
from medrl.files import atomic_path

_PACKAGES = ("torch", "monai", "numpy", "nibabel", "pydicom", "SimpleITK")


def write_tables(store: Store, facts: dict[str, Any]) -> None:
    """Write ``results.csv``, ``failures.csv`` and ``run.json`` from what is in the output folder.

    Args:
        store: The output folder; what other runs did there, such as of other shards, counts too.
        facts: Model, options and times, in terms of JSON.

    Raises:
        MedrlError: If they cannot be written.
    """
    done, failed = store.records(), store.failures()
    rows = [
        {"case": name, **row, "warnings": "; ".join(record["warnings"]) if not n else ""}
        for name, record in done.items()
        for n, row in enumerate(record["rows"])
    ]
    _write_csv(store.root / "results.csv", rows, ["case"])
    paths = [
        {
            "case": name,
            "reason": failure["reason"],
            **{role: source["path"] for role, source in failure["case"]["sources"].items()},
        }
        for name, failure in failed.items()
    ]
    _write_csv(store.root / "failures.csv", paths, ["case", "reason"])
    summary = {
        "medrl": medrl.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        **facts,
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "done": len(done),
        "failed": len(failed),
        "seconds": {name: record["seconds"] for name, record in done.items()},
    }
    with atomic_path(store.root / "run.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, allow_nan=False), encoding="utf-8")


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
