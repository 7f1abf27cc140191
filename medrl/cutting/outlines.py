"""Outlines that a person made: on slices of a scan, or frames of a film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.files import PICTURE_ENDINGS, is_film
from medrl.volume.film import Film, read_picture
from medrl.volume.read import read_labels
from medrl.volume.space import as_affine

#: An outline in a scan lies on the scan's grid up to this, mm.
_SAME_MM = 1e-2


@dataclass(frozen=True, eq=False)
class Outlines:
    """What is outlined, on the grid of a scan or film.

    Attributes:
        labels: Numbers of the objects, 0 for none: (I, J, K) of a scan; of a film (I, J, K) by the
            number of the frame.
        names: What each number stands for.
    """

    labels: NDArray[np.int64] | Mapping[int, NDArray[np.int64]]
    names: Mapping[int, str]


def scan_outlines(
    mask: MetaTensor, scan: MetaTensor, *, names: Mapping[int, str] | None = None
) -> Outlines:
    """Outlines on slices of a scan, of a label map on its grid.

    Args:
        mask: (1, I, J, K) whole numbers; slices of which nothing is outlined are 0.
        scan: (C, I, J, K).
        names: What the numbers stand for.

    Raises:
        MedrlError: If it is empty, or lies on another grid.
    """
    labels = mask.as_tensor()[0].numpy().astype(np.int64)
    if labels.shape != tuple(scan.shape[1:]) or not np.allclose(
        as_affine(mask.affine), as_affine(scan.affine), atol=_SAME_MM
    ):
        raise MedrlError("the outline does not lie on the grid of the scan: draw it on the scan")
    return Outlines(labels, _named(labels, names))


def film_outlines(
    frames: Mapping[int, NDArray[np.int64]], film: Film, *, names: Mapping[int, str] | None = None
) -> Outlines:
    """Outlines on frames of a film.

    Args:
        frames: Numbers of the objects (I, J) or (I, J, K) by the number of the frame, from 0.
        film: The film.
        names: What the numbers stand for.

    Raises:
        MedrlError: If they are empty, of another size, or of a frame that is not there.
    """
    size = tuple(film.frames.shape[2:])
    found = {}
    for number, frame in frames.items():
        if not 0 <= number < len(film):
            raise MedrlError(
                f"there is no frame {number} to be outlined: the film has 0 to {len(film) - 1}"
            )
        whole = frame[..., None] if frame.ndim == 2 else frame
        if whole.shape != size:
            sizes = [" x ".join(str(n) for n in one) for one in (whole.shape, size)]
            raise MedrlError(f"the outline of frame {number} is {sizes[0]}, the film {sizes[1]}")
        if whole.any():
            found[number] = whole
    values = np.unique(np.concatenate([np.zeros(1, np.int64), *map(np.unique, found.values())]))
    return Outlines(found, _named(values, names))


def read_outlines(paths: Sequence[Path], of: MetaTensor | Film, *, at: str | None) -> Outlines:
    """Read what a person outlined.

    Of a scan: a label map on its grid, in which the outlined slices are filled. Of a film: pictures
    called as its frames, a folder of such, or a single picture and ``at``; a label map of a scan of
    four dimensions with ``at``, or one of four dimensions.

    Args:
        paths: Files or folders.
        of: The scan or film.
        at: Name or number of the frame that a single file belongs to.

    Raises:
        MedrlError: If a file cannot be read or does not go with the scan or film.
    """
    if not isinstance(of, Film):
        if len(paths) != 1:
            raise MedrlError("outlines on slices of a scan are one label map: name one --outline")
        if at is not None:
            raise MedrlError("--at is for films: of a scan the label map says which slices")
        return scan_outlines(read_labels(paths[0]), of)
    frames: dict[int, NDArray[np.int64]] = {}
    files = [file for path in paths for file in _files(path)]
    if at is not None and len(files) != 1:
        raise MedrlError("--at is for a single outline: of several, names say which frames")
    for file in files:
        for number, labels in _frames_of(file, of, at).items():
            if number in frames:
                raise MedrlError(f"{file}: frame {number} is outlined twice")
            frames[number] = labels
    return film_outlines(frames, of)


def _files(path: Path) -> list[Path]:
    """The pictures of a folder, or the file itself."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_ENDINGS)
    return [path]


def _frames_of(file: Path, film: Film, at: str | None) -> dict[int, NDArray[np.int64]]:
    """What a file outlines, by frame."""
    if not is_film(file) and file.suffix.lower() not in PICTURE_ENDINGS:
        mask = read_labels(file).as_tensor().numpy().astype(np.int64)
        if len(mask) == 1:
            return {_number(at if at is not None else "0", film, file): mask[0]}
        if len(mask) != len(film):
            raise MedrlError(f"{file}: has {len(mask)} frames, the film {len(film)}")
        return {number: one for number, one in enumerate(mask) if one.any()}
    pixels = read_picture(file).astype(np.int64)
    if pixels.ndim == 3:
        pixels = pixels[..., :3].max(axis=-1)
    values = np.unique(pixels)
    if len(values) == 2:
        pixels = (pixels != values[0]).astype(np.int64)
    return {_number(at if at is not None else file.stem, film, file): pixels.T}


def _number(name: str, film: Film, file: Path) -> int:
    """The frame of a name or number."""
    if name in film.names:
        return film.names.index(name)
    if name.isdigit() and int(name) < len(film):
        return int(name)
    raise MedrlError(f"{file}: there is no frame {name} in the film: say which by --at")


def _named(labels: NDArray[np.int64], names: Mapping[int, str] | None) -> dict[int, str]:
    values = [int(value) for value in np.unique(labels) if value]
    if not values:
        raise MedrlError("nothing is outlined: the outline is empty")
    if values[0] < 0:
        raise MedrlError("numbers of objects are above 0")
    if names:
        return {value: names.get(value, f"object {value}") for value in values}
    return {value: "object" if len(values) == 1 else f"object {value}" for value in values}
