"""A model with random weights, whose agents stop after a few steps, and a scan for it."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medrl.bundles import load_weights, read_manifest, save
from medrl.cli import main
from medrl.landmark.model import LandmarkModel, ModelSettings

NAMES = ("AC", "PC", "Putamen_L_centroid", "Putamen_R_centroid", "Genu of CC")


def make_bundle(folder: Path, *, names=NAMES, max_steps: int = 3, modality: str = "MR") -> Path:
    """Random weights; after a few steps on each scale agents are stopped, so they stay inside."""
    torch.manual_seed(0)
    settings = ModelSettings(
        window=9,
        channels=(4, 8),
        features=16,
        max_steps=max_steps,
        modality=modality,
    )
    networks = tuple(settings.build_network(len(names)).eval() for _ in settings.spacings)
    model = LandmarkModel(tuple(names), settings, networks)
    manifest = {
        "format": "medrl-bundle",
        "version": 1,
        "name": "random",
        "task": "landmark",
        "landmarks": list(names),
        "settings": asdict(settings),
        "card": {"title": "Random weights", "licence": "CC0"},
        "metrics": {"test": {"mean_mm": 99.5}},
        "versions": {"medrl": "0"},
    }
    return save(folder, model.tensors(), manifest, licence="Public domain.\n")


def head_like(shape=(60, 70, 50), spacing=(2.5, 2.0, 3.0)) -> nib.Nifti1Image:
    """An ellipsoid with noise in air, oblique and off centre."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1.2, 1.2, n) for n in shape], indexing="ij"))
    rng = np.random.default_rng(0)
    volume = 600.0 * ((grid**2).sum(axis=0) < 1) + rng.uniform(0, 60, shape)
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    turn = np.radians(8)
    affine[:3, :3] = (
        np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        @ affine[:3, :3]
    )
    affine[:3, 3] = (75, -80, -60)
    return nib.Nifti1Image(volume.astype(np.int16), affine)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="session")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose agents go right until they have left the scan."""
    folder = make_bundle(tmp_path_factory.mktemp("models") / "walker", max_steps=200)
    tensors = load_weights(folder)
    for name, tensor in tensors.items():
        if ".actions." in name:
            tensor.zero_()
    return save(folder, tensors, read_manifest(folder))


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "head.nii.gz"
    nib.save(head_like(), path)
    return path


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


@pytest.fixture
def medrl(capsys: pytest.CaptureFixture[str]):
    """Run `medrl` in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def medrl_process():
    """Run `medrl` as a user does, in a process of its own."""

    def run(*arguments: object) -> Ended:
        script = "import sys, medrl.cli; sys.exit(medrl.cli.main())"
        line = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run
