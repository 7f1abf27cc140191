"""Reading a user's scans and points for training and evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.datalist import read_splits
from medrl.errors import MedrlError
from medrl.landmark.pool import LabelledScan
from medrl.volume.points import read_points
from medrl.volume.prepare import Preprocessing, ResampleIsotropic
from medrl.volume.read import read
from medrl.volume.space import as_affine, world_to_voxel

#: A landmark labelled in fewer training scans than this cannot be learned.
_LEAST_SCANS = 5


@dataclass(frozen=True)
class Case:
    """One entry of a datalist.

    Attributes:
        image: The scan's file or folder.
        points_world: Landmarks by name, each (3,) RAS mm.
    """

    image: Path
    points_world: Mapping[str, NDArray[np.float64]]

    @property
    def name(self) -> str:
        """The scan's file name without its endings."""
        return self.image.name.split(".")[0]


def read_datalist(path: Path) -> dict[str, list[Case]]:
    """Read a MONAI datalist of scans with landmark files.

    The file is JSON: ``{"training": [{"image": "a.nii.gz", "landmarks": "a.mrk.json"}, ...],
    "validation": [...], "test": [...]}``, paths relative to it.

    Args:
        path: The JSON file.

    Returns:
        Cases of each split; missing splits are empty.

    Raises:
        MedrlError: If the file or one it names is missing or not as expected.
    """
    cases: dict[str, list[Case]] = {}
    for split, entries in read_splits(path, what="images and landmarks").items():
        cases[split] = []
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not {"image", "landmarks"} <= set(entry):
                raise MedrlError(
                    f'{path}: entry {number} of "{split}" needs "image" and "landmarks"'
                )
            image = path.parent / str(entry["image"])
            if not image.exists():
                raise MedrlError(f"{path}: {image} does not exist")
            points = read_points(path.parent / str(entry["landmarks"]))
            cases[split].append(Case(image, points))
    return cases


def landmark_names(cases: Sequence[Case]) -> tuple[str, ...]:
    """Names of the landmarks that enough scans are labelled with, sorted.

    Raises:
        MedrlError: If there is none.
    """
    seen = Counter(name for case in cases for name in case.points_world)
    names = tuple(sorted(n for n, count in seen.items() if count >= min(_LEAST_SCANS, len(cases))))
    if not names:
        raise MedrlError(f"no landmark is labelled in {_LEAST_SCANS} or more training scans")
    return names


def points_array(case: Case, names: Sequence[str]) -> NDArray[np.float64]:
    """(K, 3) RAS mm in the order of the names, NaN where not labelled."""
    missing = np.full(3, np.nan)
    return np.stack([np.asarray(case.points_world.get(name, missing)) for name in names])


def load_labelled(
    cases: Sequence[Case],
    names: Sequence[str],
    preprocessing: Preprocessing,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[LabelledScan]:
    """Read scans onto the grid where agents walk, before normalisation.

    Args:
        cases: What to read.
        names: Landmarks, in the model's order.
        preprocessing: Gives the grid's spacing.
        progress: Called with the scans read and their number.

    Returns:
        One labelled scan a case.

    Raises:
        MedrlError: If a scan cannot be read.
    """
    resample = ResampleIsotropic(spacing=preprocessing.spacing)
    scans = []
    for case in cases:
        grid: MetaTensor = resample(read(case.image))
        points = world_to_voxel(points_array(case, names), as_affine(grid.affine))
        volume = grid.as_tensor()
        scans.append(
            LabelledScan(case.name, volume - volume.min(), torch.from_numpy(points).float())
        )
        if progress is not None:
            progress(len(scans), len(cases))
    return scans
