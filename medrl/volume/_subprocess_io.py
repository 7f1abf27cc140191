"""Damaged files can end ITK's, GDCM's and HDF5's C++: they are asked in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError

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
facts = []
for number, file in enumerate(files):
    image = sitk.ReadImage(file)
    np.save(f"{out}/{number}.npy", sitk.GetArrayFromImage(image))
    facts.append([image.GetDirection(), image.GetSpacing(), image.GetOrigin()])
with open(out + "/facts.json", "w") as stream:
    json.dump(facts, stream)
"""
#: Address space that the process may take beyond what its files may decode to: mostly libraries.
_ROOM = 4 * 2**30
#: Seconds for the process to start, and bytes a second that it decodes at the least.
_PATIENCE, _PACE = 60, 2**20


@dataclass(frozen=True)
class ItkImage:
    """What ITK reads from an image file.

    Attributes:
        array: Voxels (K, J, I), intensities rescaled as the file says.
        direction: 3x3, LPS.
        spacing: Along the axes i, j, k, mm.
        origin: Of the first voxel, LPS mm.
    """

    array: NDArray[np.generic]
    direction: NDArray[np.float64]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]


def transform_text(file: Path) -> tuple[str, str]:
    """A transform file that ITK knows as its text, and what ITK said of it.

    Raises:
        MedrlError: If ITK cannot read it.
    """
    with tempfile.TemporaryDirectory(prefix="medrl-") as folder:
        said = _run(_TRANSFORM, [os.path.realpath(file), folder], folder, file.stat().st_size)
        try:
            return (Path(folder) / "transform.tfm").read_text(encoding="utf-8"), said
        except (OSError, UnicodeDecodeError) as error:
            raise MedrlError("cannot be read by ITK") from error


def images(files: Sequence[str | Path]) -> list[ItkImage]:
    """Image files as ITK reads them.

    Raises:
        MedrlError: If ITK cannot read one.
    """
    with tempfile.TemporaryDirectory(prefix="medrl-") as folder:
        paths = [Path(os.path.realpath(file)) for file in files]
        size = sum(path.stat().st_size for path in paths)
        _run(_IMAGES, [[str(path) for path in paths], folder], folder, size)
        facts = json.loads((Path(folder) / "facts.json").read_text(encoding="utf-8"))
        return [
            ItkImage(
                np.load(f"{folder}/{number}.npy", allow_pickle=False),
                np.array(direction, dtype=np.float64).reshape(3, 3),
                tuple(spacing),
                tuple(origin),
            )
            for number, (direction, spacing, origin) in enumerate(facts)
        ]


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
