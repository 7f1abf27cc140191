"""Reading a user's scans and masks for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrl.data.datalist import read_samples
from medrl.data.loading import load_samples
from medrl.data.targets import Target, read_mask
from medrl.errors import MedrlError
from medrl.seednet.windows import Grid, to_grid
from medrl.volume.channels import Channel
from medrl.volume.read import read
from medrl.volume.resample import resample_onto


@dataclass(frozen=True)
class Sample:
    """Images of a datalist with their mask.

    Attributes:
        images: Files or folders by channel.
        mask: The file of the labels, whole numbers.
    """

    images: Mapping[str, Path]
    mask: Path

    @property
    def name(self) -> str:
        """The mask's file name without its endings."""
        return self.mask.name.split(".")[0]


@dataclass(frozen=True, eq=False)
class LabelledGrid:
    """A patient's images and masks on the grid where seeds are placed.

    Attributes:
        name: Subject, for messages.
        grid: The images.
        truth: (T, I, J, K) bool, one mask a target.
    """

    name: str
    grid: Grid
    truth: Tensor


def read_datalist(path: Path, channels: Sequence[str]) -> dict[str, list[Sample]]:
    """Read a MONAI datalist of images with masks.

    The file is JSON: ``{"training": [{"image": "a.nii.gz", "label": "a_mask.nii.gz"}, ...],
    "validation": [...], "test": [...]}``, paths relative to it. With several channels ``image``
    is an object, ``{"CT": "a_ct.nii.gz", "PET": "a_pet.nii.gz"}``.

    Args:
        path: The JSON file.
        channels: Names of the model's channels.

    Returns:
        Samples of each split; missing splits are empty.

    Raises:
        MedrlError: If the file or one it names is missing or not as expected.
    """
    return read_samples(
        path,
        keys=("image", "label"),
        sample=lambda entry: Sample(entry.images(channels), entry.file("label")),
    )


def load_labelled(
    samples: Sequence[Sample],
    *,
    channels: Sequence[Channel],
    targets: Sequence[Target],
    spacing: float,
    progress: Callable[[int, int], None] | None = None,
) -> list[LabelledGrid]:
    """Read images and masks onto the model's grid.

    Args:
        samples: What to read.
        channels: The model's.
        targets: The model's.
        spacing: The model's voxel size, mm.
        progress: Called with the samples read and their number.

    Raises:
        MedrlError: If a file cannot be read, or a mask holds none of the targets.
    """

    def load(sample: Sample) -> LabelledGrid:
        images = {name: read(path) for name, path in sample.images.items()}
        grid = to_grid(images, channels, spacing)
        masks = []
        for target in targets:
            mask = read_mask(sample.mask, target)
            onto = resample_onto(mask, affine=grid.affine, shape=grid.shape, background=0.0)
            masks.append(onto.as_tensor()[0] > 0.5)
        truth = torch.stack(masks)
        if not truth.any():
            wanted = sorted({value for target in targets for value in target.labels})
            raise MedrlError(f"{sample.mask} has none of the labels {wanted} inside its image")
        return LabelledGrid(sample.name, grid, truth)

    return load_samples(
        samples,
        load,
        files=lambda sample: [*sample.images.values(), sample.mask],
        progress=progress,
    )


def dice(mask: Any, truth: Any) -> float:
    """Overlap 2|A and B| / (|A| + |B|) of two masks of one shape; 1 if both are empty."""
    a, b = np.asarray(mask, dtype=bool), np.asarray(truth, dtype=bool)
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0
