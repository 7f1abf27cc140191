"""Compiled loops: where their machine code is kept makes no difference to what they compute."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import caching

from medrl.compiled import compile_with

LOOP = """
from medrl.compiled import compile_with

@compile_with(error_model="numpy")
def total(values):
    out = 0.0
    for value in values:
        out += value
    return out
"""
CALL = (
    "import numpy, loops;"
    "print(loops.total(numpy.arange(5.0)), loops.total.stats.cache_hits.total())"
)


def call(folder: Path) -> list[str]:
    """What the loop says in a process of its own, and how often its code was found on disk."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {CALL}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_the_next_process_finds_the_code_unless_it_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "loops.py").write_text(LOOP)
    assert call(tmp_path) == ["10.0", "0"]
    assert call(tmp_path) == ["10.0", "1"]
    for ending in ("nbc", "nbi"):
        (file,) = (tmp_path / "__pycache__").glob(f"loops.total*.{ending}")
        file.write_bytes(b"\x80\x04nonsense")
        assert call(tmp_path) == ["10.0", "0"]


def test_no_place_for_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])

    @compile_with(fastmath=True)
    def twice(value: float) -> float:
        return 2 * value

    assert twice(1.5) == 3.0


def test_a_disk_that_is_full_when_the_code_is_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)

    @compile_with()
    def squares(values: np.ndarray) -> np.ndarray:
        return values * values

    np.testing.assert_array_equal(squares(np.arange(3)), [0, 1, 4])
