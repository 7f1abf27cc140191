"""Blobs whose intensity follows their mask, in memory and as files, and the smallest model."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medrl.data.targets import Target
from medrl.seednet.data import LabelledGrid
from medrl.seednet.model import ModelSettings, SeedModel
from medrl.seednet.windows import Grid
from medrl.volume.channels import Channel

MakeBlob = Callable[..., tuple[NDArray[np.float32], NDArray[np.uint8]]]
MakeCases = Callable[..., list[LabelledGrid]]


def blob(
    seed: int, shape: tuple[int, int, int] = (28, 32, 26), noise: float = 4.0
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A bright ellipsoid in noise; labels 1 in its front half and 2 behind."""
    rng = np.random.default_rng(seed)
    center = np.array(shape) / 2 + rng.uniform(-2, 2, 3)
    radii = rng.uniform(4.5, 7.0, 3)
    places = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    inside = (((places - center) / radii) ** 2).sum(-1) < 1
    labels = np.where(inside, np.where(places[..., 1] > center[1], 1, 2), 0)
    image = 100 + 80 * inside + noise * rng.normal(size=shape)
    return image.astype(np.float32), labels.astype(np.uint8)


@pytest.fixture(scope="session")
def make_blob() -> MakeBlob:
    """See :func:`blob`."""
    return blob


@pytest.fixture(scope="session")
def make_cases() -> MakeCases:
    """Blobs on the grid of a model with one CT channel and two targets, the whole and its front."""

    def make(count: int, *, first: int = 0, **options: object) -> list[LabelledGrid]:
        cases = []
        for n in range(first, first + count):
            image, labels = blob(n, **options)
            truth = np.stack([labels > 0, labels == 1])
            grid = Grid((torch.from_numpy(image),), (Channel("CT", "hounsfield"),), np.eye(4))
            cases.append(LabelledGrid(f"blob{n}", grid, torch.from_numpy(truth)))
        return cases

    return make


@pytest.fixture(scope="session")
def settings() -> ModelSettings:
    """The smallest model of blobs."""
    return ModelSettings(
        channels=(Channel("CT", "hounsfield"),),
        targets=(Target("whole", (1, 2)), Target("front", (1,))),
        half_width=12,
        widths=(4, 4, 8, 8),
        edges=2,
        max_seeds=4,
    )


@pytest.fixture
def model(settings: ModelSettings) -> SeedModel:
    """Random weights; the values of seeds are random too, not 0 as at the beginning."""
    torch.manual_seed(0)
    network = settings.build_network()
    for layer in (network.value_head.advantage, network.value_head.state):
        torch.nn.init.normal_(layer.weight, std=0.5)
    return SeedModel(settings, network.eval())


@pytest.fixture(scope="session")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blobs as files: 4 for training, 2 for validation, 2 for the test."""
    folder = tmp_path_factory.mktemp("blobs")
    content: dict[str, list[dict[str, str]]] = {}
    number = 0
    for split, count in (("training", 4), ("validation", 2), ("test", 2)):
        content[split] = []
        for _ in range(count):
            image, labels = blob(number)
            for name, array in ((f"b{number}", image), (f"b{number}_mask", labels)):
                nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}.nii.gz")
            files = {"image": f"b{number}.nii.gz", "label": f"b{number}_mask.nii.gz"}
            content[split].append(files)
            number += 1
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path
