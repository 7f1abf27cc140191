"""Scans to train on: read, prepared and ready to be made into pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.data.datalist import read_samples
from medrl.data.loading import load_samples
from medrl.errors import MedrlError
from medrl.registration.synthesis import Source
from medrl.volume.intensity import NormalizeForeground
from medrl.volume.prepare import ResampleIsotropic
from medrl.volume.read import read

#: Points on each scan whose distance from where they belong is what agents are rewarded for.
POINTS = 64
#: Normalised intensity above which a voxel is taken for the object rather than air.
BODY = 0.15


def read_datalist(path: Path) -> dict[str, list[Path]]:
    """Read a MONAI datalist of scans, ``{"training": [{"image": "a.nii.gz"}, ...], ...}``.

    Args:
        path: The JSON file; paths in it are relative to it.

    Returns:
        Scans of each split; missing splits are empty.

    Raises:
        MedrlError: If the file or one it names is missing or not as expected.
    """
    return read_samples(path, keys=("image",), sample=lambda entry: entry.file("image"))


def load_sources(
    scans: Sequence[Path],
    *,
    spacing: float,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Source]:
    """Read scans to make pairs of.

    Args:
        scans: Their files.
        spacing: Voxel size that agents work at, mm.
        seed: Fixes which points are followed.
        progress: Called with the scans read and their number.

    Raises:
        MedrlError: If a scan cannot be read or is constant.
    """
    resample, normalize = ResampleIsotropic(spacing=spacing / 2), NormalizeForeground()
    generator = Generator().manual_seed(seed)

    def load(scan: Path) -> Source:
        volume = normalize(resample(read(scan))).as_tensor()[:1]
        volume = volume[:, *(slice(n // 2 * 2) for n in volume.shape[1:])]
        low = F.avg_pool3d(volume, 2)
        body = body_mask(low)
        points = body_points(low, body, generator=generator)
        stored = (volume * (255 / 1.5)).round().to(torch.uint8)
        return Source(stored, F.avg_pool3d(body.float(), 3, 1, 1), points)

    return load_samples(scans, load, files=lambda scan: [scan], progress=progress)


def body_mask(volume: Tensor) -> Tensor:
    """The object without the air around it, air inside it included: (1, I, J, K) bool."""
    solid = ndimage.binary_closing(volume[0].numpy() > BODY, iterations=2)
    parts, count = ndimage.label(solid)
    if count > 1:
        solid = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    filled = np.asarray(ndimage.binary_fill_holes(solid))
    return torch.from_numpy(filled)[None]


def body_points(volume: Tensor, body: Tensor, *, generator: Generator) -> Tensor:
    """POINTS voxels (P, 3) of the object that are not dark, at random."""
    found = ((volume[0] > BODY) & body[0]).nonzero()
    if len(found) == 0:
        raise MedrlError("nothing in the scan stands out from the air around it")
    return found[torch.randint(len(found), (POINTS,), generator=generator)].float()
