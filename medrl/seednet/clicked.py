"""A labelled scan that a user has clicked into, and the window that a model sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage
from torch import Generator, Tensor

from medrl.data.targets import read_mask
from medrl.errors import MedrlError
from medrl.seednet.data import Sample, dice
from medrl.seednet.editor import Editor
from medrl.seednet.model import SeedModel
from medrl.seednet.objects import Inputs, Segmented
from medrl.seednet.oracle import VoxelSeed
from medrl.seednet.seeds import Seed
from medrl.seednet.segment import SeedSegmenter
from medrl.seednet.simulated_user import Mask
from medrl.volume.read import read
from medrl.volume.resample import resample_onto
from medrl.volume.space import as_affine, voxel_to_world
from medrl.walker.segmenter import FOREGROUND


@dataclass(frozen=True, eq=False)
class ClickedScan:
    """A scan, one object in it, and a user's first click.

    Attributes:
        name: Of the case.
        subject: Whose scan it is.
        images: By channel; the first gives the grid.
        target: Name of the object's kind.
        truth: (I, J, K) in that grid.
        click: In the foreground.
    """

    name: str
    subject: str
    images: dict[str, MetaTensor]
    target: str
    truth: Mask
    click: Seed

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) voxel to RAS mm."""
        return as_affine(next(iter(self.images.values())).affine)

    def seed(self, at: VoxelSeed) -> Seed:
        """A seed in the middle of a voxel."""
        voxel, label = at
        return Seed(voxel_to_world(np.array(voxel, dtype=np.float64), self.affine), label)

    def dice(self, mask: Mask) -> float:
        """Overlap with the truth."""
        return dice(mask, self.truth)


def click_into(
    sample: Sample,
    segmenter: SeedSegmenter,
    *,
    target: int,
    seed: int,
    channels: Sequence[str],
    border: bool = False,
) -> ClickedScan | None:
    """Read a scan, and click on any voxel of an object; None if it is not there.

    Args:
        sample: What to read.
        segmenter: Whose targets.
        target: Number of the target.
        seed: Of the click.
        channels: Which images may be seen.
        border: Click on a voxel of its border, one with a neighbour (of six) outside it.

    Raises:
        MedrlError: If a file cannot be read.
    """
    kind = segmenter.model.settings.targets[target]
    images = {name: read(path) for name, path in sample.images.items() if name in channels}
    if not images:
        raise MedrlError(f"{sample.name} has no image {' or '.join(channels)}")
    first = next(iter(images.values()))
    affine, shape = as_affine(first.affine), tuple(first.shape[1:])
    mask = resample_onto(read_mask(sample.mask, kind), affine=affine, shape=shape, background=0.0)
    truth = mask.as_tensor()[0].numpy() > 0.5
    inside = np.argwhere(truth & ~ndimage.binary_erosion(truth) if border else truth)
    if not len(inside):
        return None
    generator = Generator().manual_seed(seed)
    voxel = inside[int(torch.randint(len(inside), (), generator=generator))]
    click = Seed(voxel_to_world(voxel.astype(np.float64), affine), FOREGROUND)
    return ClickedScan(sample.name, sample.name, images, kind.name, truth, click)


class ClickedWindow:
    """The model's window around the click, for methods that see nothing else."""

    def __init__(self, model: SeedModel, case: ClickedScan) -> None:
        """Encode what is in it."""
        self.case = case
        self.model = model
        self._editor = Editor(model, case.images)
        target = Inputs(model.target_index(case.target))
        segmented = self._editor.change(target, seeds=(case.click,))
        assert isinstance(segmented, Segmented)  # the click is in the foreground
        self._obj = segmented
        self._window, self.encoded = self._editor.encode(segmented.box, segmented.target)
        self.image, self.click = self._window.image[None], self.seeds([case.click])

    def seeds(self, seeds: Sequence[Seed]) -> Tensor:
        """Seeds (1, I, J, K) int8 on the window."""
        return self._editor.seed_map(seeds, self._window)

    def truth(self) -> Tensor:
        """The truth (1, I, J, K) bool on the window."""
        volume = torch.from_numpy(self.case.truth)[None].float()
        own = resample_onto(
            MetaTensor(volume, affine=torch.from_numpy(self.case.affine)),
            affine=self._window.affine,
            shape=self._window.shape,
            background=0.0,
        )
        return own.as_tensor() > 0.5

    def mask(self, probability: Tensor) -> Mask:
        """A probability (1, I, J, K) on the window as a mask in the scan's grid."""
        state = replace(self._obj.state, probability=probability)
        return self._editor.output.probability(replace(self._obj, state=state)) > 0.5
