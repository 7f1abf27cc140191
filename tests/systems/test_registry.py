"""The registry: one line a system, loaded on first use, entry points of other packages."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medrl import systems
from medrl.errors import MedrlError


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder whose packages are installed, as far as entry points tell."""
    monkeypatch.syspath_prepend(tmp_path)
    systems._sources.cache_clear()
    systems.get.cache_clear()
    yield tmp_path
    systems._sources.cache_clear()
    systems.get.cache_clear()


def install(folder: Path, name: str, source: str, module: str) -> None:
    package = folder / f"{name}_system-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-system\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[medrl.systems]\n{name} = {name}_system:{source}\n")
    (folder / f"{name}_system.py").write_text(module)
    sys.modules.pop(f"{name}_system", None)
    importlib.invalidate_caches()


MODULE = """
from medrl.systems import System

class Echo(System):
    name, verb, summary = "echo", "echo", "say it again"
    def load(self, bundle, *, device="cpu"): return None
    def predict(self, predictor, data, options, *, progress=None, watch=None): return list(data)
    def rows(self, result): return [{"said": result}]
"""


def test_another_package_brings_a_system(others: Path) -> None:
    install(others, "echo", "Echo", MODULE)
    assert "echo" in systems.names()
    assert systems.by_verb("echo").rows("hello") == [{"said": "hello"}]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("import nothing_of_this_name", "cannot be loaded"),
        ("Echo = dict", "is not the medrl system"),
    ],
)
def test_a_broken_package_is_named_and_left_out(others: Path, module: str, line: str) -> None:
    install(others, "echo", "Echo", module)
    with pytest.raises(MedrlError, match=line):
        systems.get("echo")
    assert "echo" not in [system.name for system in systems.all_systems()]


def test_an_unknown_system_is_refused() -> None:
    with pytest.raises(MedrlError, match="there is no system 'nothing'"):
        systems.get("nothing")


@pytest.mark.parametrize("name", ["landmark", "seednet", "registration", "alignment"])
def test_asking_what_there_is_imports_nothing_heavy(name: str) -> None:
    program = (
        f"import sys; from medrl import systems; s = systems.get({name!r}); s.options, s.given;"
        "print(sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    )
    done: Any = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
