"""Cases without a model, whose tasks also run in other processes."""

import sys
from pathlib import Path

import pytest

# Spawned processes inherit the path, and find the stub there.
sys.path.insert(0, str(Path(__file__).parent / "stubs"))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of six files that are called scans."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        (folder / f"scan{number}.nii.gz").write_text(str(number))
    return folder
