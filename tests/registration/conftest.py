"""Made-up heads, and agents that have learned nothing: they find their way by looking ahead."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.ndimage import gaussian_filter

from medrl.registration.model import ModelSettings, RegistrationModel
from medrl.registration.network import LevelSettings, RegistrationNetwork

SHAPE, SPACING = (34, 40, 36), 5.0
#: Centre, half-axes and brightness of what is in a head; shares of its own half-axes.
PARTS = (
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 400.0),
    ((0.0, 0.05, 0.1), (0.8, 0.8, 0.75), 700.0),
    ((0.25, 0.3, 0.2), (0.3, 0.2, 0.25), 150.0),
    ((-0.35, -0.2, -0.1), (0.2, 0.35, 0.3), 950.0),
    ((0.1, -0.45, -0.4), (0.4, 0.25, 0.15), 250.0),
    ((0.0, 0.95, -0.3), (0.2, 0.25, 0.2), 600.0),
)


def head(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """Intensities (...) of a head at points (..., 3) in mm from its centre."""
    sizes = np.random.default_rng(seed).uniform(0.9, 1.1, 3) * (68, 82, 74)
    values = np.zeros(points.shape[:-1])
    for center, axes, bright in PARTS:
        inside = (((points / sizes - center) / axes) ** 2).sum(axis=-1) < 1
        values[inside] = bright
    return values


def head_scan(seed: int = 0, *, truth: np.ndarray | None = None, noise: int = 0) -> MetaTensor:
    """A head, posed: a point p of the plain one lies at truth @ p here."""
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = -SPACING * (np.array(SHAPE) - 1) / 2
    # Two samples a voxel and axis, so that borders are not stairs.
    fine = np.stack(np.meshgrid(*[np.arange(2 * n) / 2 - 0.25 for n in SHAPE], indexing="ij"), -1)
    world = fine @ affine[:3, :3].T + affine[:3, 3]
    back = np.eye(4) if truth is None else np.linalg.inv(truth)
    values = head(world @ back[:3, :3].T + back[:3, 3], seed)
    values = values.reshape(SHAPE[0], 2, SHAPE[1], 2, SHAPE[2], 2).mean(axis=(1, 3, 5))
    values = gaussian_filter(values, 0.5)
    values += np.random.default_rng(noise).uniform(0, 25, SHAPE)
    return MetaTensor(torch.from_numpy(values)[None].float(), affine=torch.from_numpy(affine))


COARSE = LevelSettings(
    spacing=10.0, window=16, channels=(4, 8), strides=(2, 2), squeeze=4, features=16, memory=8
)
FINE = LevelSettings(
    spacing=5.0, window=24, channels=(4, 8), strides=(2, 2), squeeze=4, features=16, memory=8
)


@pytest.fixture
def levels() -> tuple[LevelSettings, LevelSettings]:
    """Small ones, fine and coarse."""
    return FINE, COARSE


@pytest.fixture
def untrained(levels) -> RegistrationModel:
    torch.manual_seed(0)
    networks = tuple(RegistrationNetwork(level).eval() for level in levels)
    return RegistrationModel(ModelSettings(levels=levels), networks)


@pytest.fixture(scope="session")
def make_head():
    return head_scan


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datalist of heads."""
    folder = tmp_path_factory.mktemp("heads")
    content: dict[str, list[dict[str, str]]] = {}
    for split, count in (("training", 3), ("validation", 1), ("test", 1)):
        content[split] = []
        for n in range(count):
            seed = 10 * len(content) + n
            scan = head_scan(seed, noise=seed)
            name = f"{split}{n}.nii.gz"
            nib.save(nib.Nifti1Image(scan.numpy()[0], scan.affine.numpy()), folder / name)
            content[split].append({"image": name})
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path
