"""Results on disk: committed JSON that says what it was measured with."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medrl.files import atomic_path

#: Where results are committed.
RESULTS = Path(__file__).resolve().parents[1] / "results"


def environment() -> dict[str, str]:
    """Versions that results depend on."""
    packages = ("medrl", "torch", "monai", "numpy", "SimpleITK")
    versions = {name: version(name) for name in packages}
    return {"python": platform.python_version(), **versions, "machine": platform.machine()}


def save(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all; numbers rounded to 4 digits, NaN as null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        text = json.dumps(_plain(result), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read a result; an empty one if the file does not exist."""
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def markdown(header: list[str], rows: list[list[object]]) -> str:
    """A table in Markdown; floats with two digits."""

    def cell(value: object) -> str:
        return f"{value:.2f}" if isinstance(value, float) else str(value)

    lines = [header, ["---"] * len(header), *[[cell(v) for v in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return round(float(value), 4) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
