"""What carrying an outline comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.cutting.pieces import Cuts, Joined, Key
from medrl.trajectory import Trajectory
from medrl.volume.film import Film

if TYPE_CHECKING:
    from medrl.dicom import Pseudonyms


@dataclass(frozen=True, eq=False)
class Thing:
    """One object.

    Attributes:
        value: Its number in the label map.
        name: What it is called.
        through: Its masks, by stack.
        outlined: Pictures that a person outlined, by stack.
    """

    value: int
    name: str
    through: Mapping[int, Joined]
    outlined: Mapping[int, tuple[int, ...]]

    @property
    def pictures(self) -> tuple[int, ...]:
        """Slices or frames that it was found in, in order."""
        found = {
            number
            for one in self.through.values()
            for number, chance in one.chance.items()
            if bool((chance > 0.5).any())
        }
        return tuple(sorted(found))

    def quality(self) -> dict[int, float]:
        """Overlap with the truth that is expected in each slice or frame, of its worst part."""
        found: dict[int, float] = {}
        for one in self.through.values():
            for number, sure in one.quality.items():
                found[number] = min(sure, found.get(number, 1.0))
        return found

    @property
    def worst(self) -> tuple[int, float]:
        """The slice or frame where the mask is least sure, and the overlap expected there."""
        quality = self.quality()
        number = min(quality, key=lambda one: (quality[one], one))
        return number, quality[number]

    @property
    def mean_quality(self) -> float:
        """Mean of the expected overlaps of what was not outlined; 1 if all was."""
        drawn = {number for numbers in self.outlined.values() for number in numbers}
        carried = [sure for number, sure in self.quality().items() if number not in drawn]
        return float(np.mean(carried)) if carried else 1.0


@dataclass(frozen=True, eq=False)
class Carried:
    """What came of carrying outlines.

    Attributes:
        data: The scan or film.
        axis: The axis that slices follow one another along; of a film of volumes, that of its
            slices.
        things: The objects.
        trajectory: What the agents did, those that were asked this time.
        warnings: What the user should know, one line each.
        seconds: Wall time.
        cuts: What every agent cut, for corrections.
    """

    data: MetaTensor | Film
    axis: int
    things: tuple[Thing, ...]
    trajectory: Trajectory
    warnings: tuple[str, ...]
    seconds: float
    cuts: Mapping[Key, Cuts] = field(repr=False)

    @property
    def confidence(self) -> None:
        """Nothing is said of the whole: see the expected overlap of each slice or frame."""
        return None

    def __getitem__(self, name: str) -> Thing:
        """An object by its name."""
        for thing in self.things:
            if thing.name == name:
                return thing
        raise KeyError(name)

    @cached_property
    def labels(self) -> MetaTensor:
        """Numbers of the objects: (1, I, J, K) on the grid of a scan, (T, I, J, K) of a film."""
        film = isinstance(self.data, Film)
        shape = self.data.frames.shape[2:] if isinstance(self.data, Film) else self.data.shape[1:]
        count = len(self.data) if film else 1
        best = torch.full((count, *shape), 0.5)
        labels = torch.zeros((count, *shape), dtype=torch.int32)
        for thing in self.things:
            for stack, one in thing.through.items():
                for number, chance in one.chance.items():
                    frame, slice_ = (number, stack) if film else (0, number)
                    over = best[frame].select(self.axis, slice_)
                    into = labels[frame].select(self.axis, slice_)
                    wins = chance > over
                    over[wins] = chance[wins]
                    into[wins] = thing.value
        affine = self.data.affine
        affine = torch.from_numpy(affine) if isinstance(affine, np.ndarray) else affine
        made = MetaTensor(labels, affine=affine)
        made.meta["labels"] = {thing.name: thing.value for thing in self.things}
        if "nifti" in self.data.meta:
            made.meta["nifti"] = self.data.meta["nifti"]
        return made

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Where an object is, (I, J, K) or (T, I, J, K)."""
        found: NDArray[np.bool_] = self.labels.numpy() == self[name].value
        return found if isinstance(self.data, Film) else found[0]

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        *,
        picture: bool = True,
        pseudonyms: Pseudonyms | None = None,
        **_: Any,
    ) -> dict[str, Path]:
        """Write masks, table, trajectory and pictures; see :mod:`medrl.cutting.results`."""
        from medrl.cutting.results import save_carried

        return save_carried(self, folder, stem, picture=picture, pseudonyms=pseudonyms)
