"""The tables of a run: a row a landmark, an object or a pair; failures; the run itself."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import medrl
from medrl.batch.found import LeftOut
from medrl.batch.history import entries, now
from medrl.batch.store import Store
from medrl.files import atomic_path, printable

_PACKAGES = ("torch", "monai", "numpy", "nibabel", "pydicom", "SimpleITK")
#: Of the latest run, what ``run.json`` says beside what it says of all of them.
_LATEST = ("ended", "end", "wall_seconds", "host", "system", "shard", "options")


def write_tables(store: Store, fingerprint: Mapping[str, Any]) -> None:
    """Write ``results.csv``, ``results.parquet``, ``failures.csv`` and ``run.json``.

    They are made from what is in the output folder; what other runs did there, such as of other
    shards, counts too. The Parquet file is left out if pyarrow is not installed.

    Args:
        store: The output folder.
        fingerprint: What was done and with which model, in terms of JSON.

    Raises:
        MedrlError: If they cannot be written.
    """
    done, failed = store.records(), store.failures()
    rows = [
        {
            "case": name,
            **row,
            "doubtful": bool(record.get("doubtful")),
            "warnings": "; ".join(record["warnings"]) if not n else "",
        }
        for name, record in done.items()
        for n, row in enumerate(record["rows"])
    ]
    _write_csv(store.root / "results.csv", rows, ["case"])
    parquet = _write_parquet(store.root / "results.parquet", rows, ["case"])
    paths = [
        {
            "case": name,
            "reason": failure["reason"],
            **{role: source["path"] for role, source in failure["case"]["sources"].items()},
        }
        for name, failure in failed.items()
    ]
    _write_csv(store.root / "failures.csv", paths, ["case", "reason"])
    runs = entries(store)
    summary = {
        "medrl": medrl.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        **fingerprint,
        "started": runs[0]["started"] if runs else None,
        **{key: runs[-1][key] if runs else None for key in _LATEST},
        "written": now(),
        "parquet": parquet,
        "done": len(done),
        "failed": len(failed),
        "runs": runs,
        "seconds": {name: record["seconds"] for name, record in done.items()},
    }
    with atomic_path(store.root / "run.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, allow_nan=False), encoding="utf-8")


def write_left_out(store: Store, left_out: Sequence[LeftOut]) -> None:
    """Write ``left_out.csv``: what was met and is not worked on, and why.

    Raises:
        MedrlError: If it cannot be written.
    """
    rows = [{"path": printable(str(one.path)), "reason": one.reason} for one in left_out]
    _write_csv(store.root / "left_out.csv", rows, ["path", "reason"])


def _columns(rows: Iterable[Mapping[str, Any]], least: Sequence[str]) -> list[str]:
    """The columns of all rows, in the order in which they are first met."""
    return list(dict.fromkeys([*least, *(key for row in rows for key in row)]))


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], least: Sequence[str]) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as out,
    ):
        writer = csv.DictWriter(out, _columns(rows, least), restval="")
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], least: Sequence[str]) -> str:
    """The same table with types; says whether it could be written."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        path.unlink(missing_ok=True)  # one of an earlier run would be out of date
        return "not written: pip install 'medrl[parquet]'"
    columns = {}
    for name in _columns(rows, least):
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if kinds <= {bool}:
            columns[name] = pa.array(values, pa.bool_() if kinds else pa.string())
        elif kinds <= {int}:
            columns[name] = pa.array(values, pa.int64())
        elif kinds <= {int, float}:
            columns[name] = pa.array(values, pa.float64())
        else:
            texts = [None if value is None else printable(str(value)) for value in values]
            columns[name] = pa.array(texts, pa.string())
    with atomic_path(path) as temporary:
        parquet.write_table(pa.table(columns), temporary)
    return "written"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
