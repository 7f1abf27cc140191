"""Damaged files can end ITK's, GDCM's and HDF5's C++: they are asked in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.files import printable

_LIMIT = (
    "import json, resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)"
)
_TRANSFORM = """
import SimpleITK as sitk
file, out = json.load(sys.stdin)
sitk.WriteTransform(sitk.ReadTransform(file), out + "/transform.tfm")
"""
_IMAGES = """
import numpy as np, SimpleITK as sitk
files, out = json.load(sys.stdin)
for number, file in enumerate(files):
    np.save(f"{out}/{number}.npy", sitk.GetArrayFromImage(sitk.ReadImage(file)))
"""
#: Address space that the process may take beyond what its files may decode to: mostly libraries.
_ROOM = 4 * 2**30
#: Seconds for the process to start, and bytes a second that it decodes at the least.
_PATIENCE, _PACE = 60, 2**20


def transform_text(file: Path) -> tuple[str, str]:
    """A transform file that ITK knows as its text, and what ITK said of it.

    Raises:
        MedrlError: If ITK cannot read it.
    """
    with tempfile.TemporaryDirectory(prefix="medrl-") as folder:
        name = _name_for_itk(file, folder)
        said = _run(_TRANSFORM, [name, folder], folder, file.stat().st_size)
        try:
            return (Path(folder) / "transform.tfm").read_text(encoding="utf-8"), said
        except (OSError, UnicodeDecodeError) as error:
            raise MedrlError("cannot be read by ITK") from error


def decode(files: Sequence[Path]) -> list[NDArray[np.generic]]:
    """Voxels (K, J, I) of image files as ITK reads them.

    Raises:
        MedrlError: If ITK cannot read one.
    """
    with tempfile.TemporaryDirectory(prefix="medrl-") as folder:
        paths = [Path(os.path.realpath(file)) for file in files]
        size = sum(path.stat().st_size for path in paths)
        names = [_name_for_itk(path, folder, n) for n, path in enumerate(paths)]
        _run(_IMAGES, [names, folder], folder, size)
        return [np.load(f"{folder}/{n}.npy", allow_pickle=False) for n in range(len(paths))]


def _name_for_itk(file: Path, folder: str, number: int = 0) -> str:
    """A name of a file that ITK takes, which ends the process over one that is not UTF-8."""
    name = os.path.realpath(file)
    if name == printable(name):
        return name
    link = Path(folder) / f"input-{number}{printable(file.suffix)}"
    link.symlink_to(name)
    return str(link)


def _run(script: str, request: Any, folder: str, size: int) -> str:
    """Run a script; what it said on standard error."""
    line = [sys.executable, "-P", "-c", _LIMIT + script, str(_ROOM + 16 * size)]
    try:
        done = subprocess.run(
            line,
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=_PATIENCE + size / _PACE,
            check=False,
            cwd=folder,
        )
    except subprocess.TimeoutExpired:
        raise MedrlError("takes too long to decode; copy or export it again") from None
    if done.returncode:
        raise MedrlError("is damaged, or of a kind that ITK does not read; copy or export it again")
    return done.stderr.decode("utf-8", errors="replace")
