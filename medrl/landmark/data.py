"""Reading a user's scans and points for training and evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from medrl.data import adding
from medrl.data.datalist import read_samples
from medrl.data.loading import load_samples
from medrl.errors import MedrlError
from medrl.files import stem_of
from medrl.volume.points import read_points, write_markups
from medrl.volume.prepare import Preprocessing, ResampleIsotropic
from medrl.volume.read import read, read_labels
from medrl.volume.resample import move_scan
from medrl.volume.space import apply_affine, as_affine, world_to_voxel

if TYPE_CHECKING:
    from medrl.landmark.frame import Frame

#: A landmark labelled in fewer training scans than this cannot be learned.
_LEAST_SCANS = 5


@dataclass(frozen=True)
class Sample:
    """A scan of a datalist with its landmarks.

    Attributes:
        image: The scan's file or folder.
        points_world: Landmarks by name, each (3,) RAS mm.
        straight: (4, 4), from its world to the one where it lies straight, perhaps mirrored.
        tissues: File with a map of its tissues, of which other contrasts are made up.
    """

    image: Path
    points_world: Mapping[str, NDArray[np.float64]]
    straight: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    tissues: Path | None = None

    @property
    def name(self) -> str:
        """The scan's file name without its endings."""
        return self.image.name.split(".")[0]


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A scan with its landmarks, on the grid where agents walk.

    Attributes:
        name: Subject, for messages.
        volume: (C, I, J, K) float32, isotropic at the finest spacing, not yet normalised.
        points_voxel: (K, 3) float32, voxels of that grid, in the model's order; NaN where the
            landmark was not labelled.
        tissues: (I, J, K) uint8, indices of :data:`medrl.data.contrast.TISSUES`; None if unknown.
    """

    name: str
    volume: Tensor
    points_voxel: Tensor
    tissues: Tensor | None = None


def read_datalist(path: Path) -> dict[str, list[Sample]]:
    """Read a MONAI datalist of scans with landmark files.

    The file is JSON: ``{"training": [{"image": "a.nii.gz", "landmarks": "a.mrk.json"}, ...],
    "validation": [...], "test": [...]}``, paths relative to it. A scan may come with ``tissues``, a
    map on any grid whose values are indices of :data:`medrl.data.contrast.TISSUES`.

    Args:
        path: The JSON file.

    Returns:
        Samples of each split; missing splits are empty.

    Raises:
        MedrlError: If the file or one it names is missing or not as expected.
    """
    return read_samples(
        path,
        keys=("image", "landmarks"),
        sample=lambda entry: Sample(
            entry.file("image"),
            read_points(entry.path("landmarks")),
            tissues=entry.file("tissues") if "tissues" in entry.fields else None,
        ),
    )


def add_sample(
    datalist: Path, image: Path, points_world: Mapping[str, ArrayLike], *, split: str = "training"
) -> Path:
    """Add a scan with its landmarks to a MONAI datalist, as :func:`read_datalist` reads it.

    The landmarks are written beside the datalist, as 3D Slicer markups named after the scan. A
    scan that the datalist has already keeps its split, and those of its landmarks that are not
    given anew. Either both files are written or none.

    Args:
        datalist: The JSON file; made, with its folder, if missing.
        image: The scan's file or folder.
        points_world: Landmarks by name, each (3,) RAS mm; at least one.
        split: Where a new scan goes: ``training``, ``validation`` or ``test``.

    Returns:
        The file with the landmarks.

    Raises:
        MedrlError: If the scan is not there, a position is not three finite numbers, the datalist
            is none, or the files cannot be written.
    """
    return adding.add_sample(
        datalist,
        image,
        points_world,
        key="landmarks",
        read=read_points,
        write=lambda path, points: write_markups(path, points, name=stem_of(image)),
        split=split,
    )


def landmark_names(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Names of the landmarks that enough scans are labelled with, sorted.

    Raises:
        MedrlError: If there is none.
    """
    seen = Counter(name for sample in samples for name in sample.points_world)
    names = tuple(
        sorted(n for n, count in seen.items() if count >= min(_LEAST_SCANS, len(samples)))
    )
    if not names:
        raise MedrlError(f"no landmark is labelled in {_LEAST_SCANS} or more training scans")
    return names


def points_array(sample: Sample, names: Sequence[str]) -> NDArray[np.float64]:
    """(K, 3) RAS mm in the order of the names, NaN where not labelled."""
    missing = np.full(3, np.nan)
    return np.stack([np.asarray(sample.points_world.get(name, missing)) for name in names])


def load_labelled(
    samples: Sequence[Sample],
    names: Sequence[str],
    preprocessing: Preprocessing,
    *,
    frame: Frame | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[LabelledScan]:
    """Read scans onto the grid where agents walk, before normalisation.

    Args:
        samples: What to read.
        names: Landmarks, in the model's order.
        preprocessing: Gives the grid's spacing.
        frame: What is seen of samples that are laid straight; of others, all of them.
        progress: Called with the scans read and their number.

    Returns:
        One labelled scan a sample.

    Raises:
        MedrlError: If a scan cannot be read.
    """
    resample = ResampleIsotropic(spacing=preprocessing.spacing)

    def load(sample: Sample) -> LabelledScan:
        scan = read(sample.image)
        grid = resample(scan) if frame is None else frame.seen(scan, sample.straight)
        places = apply_affine(sample.straight, points_array(sample, names))
        points = world_to_voxel(places, as_affine(grid.affine))
        volume = grid.as_tensor()
        return LabelledScan(
            sample.name,
            volume - volume.min(),
            torch.from_numpy(points).float(),
            None if sample.tissues is None else _tissues(sample.tissues, grid, sample.straight),
        )

    return load_samples(samples, load, files=lambda sample: [sample.image], progress=progress)


def _tissues(path: Path, grid: MetaTensor, straight: NDArray[np.float64]) -> Tensor:
    """The map of a file on the grid of a scan that was laid straight."""
    found = read_labels(path)
    from_straight = np.linalg.inv(straight)
    return move_scan(found, from_straight, grid, nearest=True).as_tensor()[0].to(torch.uint8)
