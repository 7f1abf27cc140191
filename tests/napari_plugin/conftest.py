"""Scans that lie in every way in the patient, and a napari that has a screen to be drawn on."""

import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation


def _hindrance() -> str:
    """Why there can be no window here, if so."""
    if find_spec("napari") is None:
        return "napari is not installed: pip install 'medrl[napari]'"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or shutil.which("Xvfb")):
        # Qt would end the interpreter.
        return "no screen, real or virtual: install xvfb"
    return ""


def pytest_pycollect_makemodule() -> None:
    """Skip whatever needs a window where there can be none, before it imports anything."""
    if reason := _hindrance():
        pytest.skip(reason, allow_module_level=True)


MakeScan = Callable[..., MetaTensor]


def made_scan(
    orientation: str = "RAS",
    *,
    shape: tuple[int, int, int] = (30, 36, 24),
    spacing: tuple[float, float, float] = (2.0, 1.5, 3.0),
    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
    channels: int = 1,
    seed: int = 0,
) -> MetaTensor:
    """A scan of noise whose array axes run to the given sides, turned about x, y, z."""
    directions = {"R": (1, 0, 0), "A": (0, 1, 0), "S": (0, 0, 1)}
    directions |= {a: tuple(-v for v in directions[b]) for a, b in zip("LPI", "RAS", strict=True)}
    columns = np.array([directions[letter] for letter in orientation], dtype=float).T
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    affine[:3, :3] = turn @ columns @ np.diag(spacing)
    affine[:3, 3] = (-21.0, 13.0, 8.5)
    values = np.random.default_rng(seed).uniform(0, 100, (channels, *shape)).astype(np.float32)
    return MetaTensor(torch.from_numpy(values), affine=torch.from_numpy(affine))


@pytest.fixture
def make_scan() -> MakeScan:
    """Makes scans."""
    return made_scan
