"""Reading labelled scans and films, for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrl.cutting.samples import WHOLE, Source
from medrl.data.datalist import Entry, read_samples
from medrl.errors import MedrlError
from medrl.files import is_film
from medrl.volume.film import Film, read_film
from medrl.volume.read import read, read_labels
from medrl.volume.space import as_affine, spacing_of


@dataclass(frozen=True)
class Sample:
    """A scan or film of a datalist with its masks.

    Attributes:
        image: File or folder.
        label: File, or folder of pictures for a film; 0 is the background.
        axes: Axes along which pictures follow one another; all of them if empty.
        values: Values of the masks that are objects, 0 for all of them as one; each by itself if
            empty.
        cohort: Where it is from.
    """

    image: Path
    label: Path
    axes: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    cohort: str = ""

    @property
    def name(self) -> str:
        """Without endings."""
        return self.image.name.split(".")[0]

    def load(self) -> Source:
        """Read it.

        Raises:
            MedrlError: If a file cannot be read, or image and masks differ in size.
        """
        if is_film(self.image):
            film = read_film(self.image)
            labels = masks_of_film(self.label, film)
            volume = film.frames[..., 0].movedim(0, 1)
            return self._source(volume, labels, (0.0, 1.0, 1.0), (0,))
        scan, mask = read(self.image), read_labels(self.label)
        if scan.shape[1:] != mask.shape[1:]:
            raise MedrlError(f"{self.label}: is of another size than {self.image}")
        spacing = spacing_of(as_affine(scan.affine))
        volume = scan.as_tensor()
        if float(volume.min()) >= 0 and float(volume.max()) <= 255:
            rounded = volume.round()
            volume = rounded.byte() if bool((rounded == volume).all()) else volume
        labels = mask.as_tensor()[0].to(torch.int16)
        i, j, k = (float(one) for one in spacing)
        return self._source(volume, labels, (i, j, k), self.axes or (0, 1, 2))

    def _source(
        self,
        volume: Tensor,
        labels: Tensor,
        spacing: tuple[float, float, float],
        axes: tuple[int, ...],
    ) -> Source:
        found = [int(value) for value in labels.unique() if value]
        values = tuple(v for v in self.values or found if v in found or (v == WHOLE and found))
        if not values:
            raise MedrlError(f"{self.label}: holds none of the objects that are to be learned")
        return Source(self.name, volume, labels, spacing, axes, values, self.cohort)


def masks_of_film(path: Path, film: Film) -> Tensor:
    """The masks of all frames of a film, from a folder of pictures, (T, I, J) int16.

    Raises:
        MedrlError: If they cannot be read, or do not go with the film.
    """
    masks = read_film(path)
    if len(masks) != len(film) or masks.frames.shape[2:] != film.frames.shape[2:]:
        raise MedrlError(f"{path}: has frames of another number or size than the film")
    return (masks.frames[:, 0, :, :, 0] > 0).to(torch.int16)


def read_datalist(path: Path) -> dict[str, list[Sample]]:
    """Read a MONAI datalist of scans and films with masks.

    The file is JSON: ``{"training": [{"image": "a.nii.gz", "label": "a_mask.nii.gz"}, ...], ...}``,
    paths relative to it. An entry may say ``"axes"``, along which slices follow one another,
    ``"values"`` of the masks that are objects, and its ``"cohort"``: every cohort is learned
    equally.

    Returns:
        Samples of each split.

    Raises:
        MedrlError: If the file cannot be read, or an entry is not as expected.
    """
    return read_samples(path, keys=("image", "label"), sample=_sample)


def load_sources(
    samples: Sequence[Sample], progress: Callable[[int, int], None] | None = None
) -> list[Source]:
    """Read samples.

    Raises:
        MedrlError: As :meth:`Sample.load`.
    """
    sources = []
    for number, sample in enumerate(samples):
        sources.append(sample.load())
        if progress is not None:
            progress(number + 1, len(samples))
    return sources


def _sample(entry: Entry) -> Sample:
    return Sample(
        entry.file("image"),
        entry.file("label"),
        _numbers(entry, "axes", most=2),
        _numbers(entry, "values", most=np.iinfo(np.int16).max),
        str(entry.fields.get("cohort", "")),
    )


def _numbers(entry: Entry, key: str, *, most: int) -> tuple[int, ...]:
    value: Any = entry.fields.get(key, [])
    if not isinstance(value, list) or not all(type(v) is int and 0 <= v <= most for v in value):
        raise MedrlError(f'{entry.datalist}: {entry.where}: "{key}" is not a list of whole numbers')
    return tuple(value)
