"""Films: pictures or volumes that follow one another in time.

Convention: pixels of a picture are voxels (i, j, 0), column and row, of one millimetre; the world
is that in which ITK puts a picture without a place of its own, so that results open on it: RAS =
(-i, -j, 0).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.files import PICTURE_ENDINGS, absence, is_film
from medrl.volume.read import read
from medrl.volume.space import as_affine, spacing_of

#: As much as a film may take in memory.
_MOST_BYTES = 4 * 2**30
_MOST_FRAMES = 20_000
#: Where pictures without a place of their own lie.
_PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Film:
    """T frames of one size.

    Attributes:
        frames: (T, C, I, J, K) float32; K is 1 where frames are pictures, C 3 where they are in
            colour.
        affine: (4, 4) float64, voxel to RAS mm, the same for all frames.
        names: What each frame is called: its file, or its number.
        meta: Of the scan or file that it was read from: ``filename_or_obj``, ``remarks``.
    """

    frames: Tensor
    affine: NDArray[np.float64] = field(default_factory=_PICTURE_AFFINE.copy)
    names: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """T."""
        return len(self.frames)

    @property
    def flat(self) -> bool:
        """Whether its frames are pictures."""
        return self.frames.shape[-1] == 1

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Millimetres of a voxel along each axis, (3,)."""
        return spacing_of(self.affine)

    def scan(self, frame: int) -> MetaTensor:
        """A frame as a scan (C, I, J, K)."""
        return MetaTensor(
            self.frames[frame], affine=torch.from_numpy(self.affine), meta=dict(self.meta)
        )


def read_film(path: str | os.PathLike[str]) -> Film:
    """Read a film: a folder of pictures, a video, a multi-page TIFF, or a scan of four dimensions.

    Args:
        path: Pictures of a folder follow one another by the numbers in their names. Videos need
            the extra ``film``.

    Returns:
        At least two frames.

    Raises:
        MedrlError: If it cannot be read, its frames differ in size, or there is but one.
    """
    place = Path(path)
    if reason := absence(place):
        raise MedrlError(f"{place}: {reason}")
    if not is_film(place):
        return film_of(read(place), source=str(place))
    if place.is_dir():
        files = sorted(
            (entry for entry in place.iterdir() if entry.suffix.lower() in PICTURE_ENDINGS),
            key=_by_numbers,
        )
        names = tuple(file.stem for file in files)
        frames = _stacked((_picture(file) for file in files), place, names)
    else:
        frames = _stacked(_video(place), place, ())
        names = tuple(str(number) for number in range(len(frames)))
    if len(frames) < 2:
        raise MedrlError(f"{place}: holds a single picture: a film has two or more")
    meta = {"filename_or_obj": str(place), "remarks": ()}
    return Film(frames, names=names, meta=meta)


def film_of(scan: MetaTensor, *, source: str = "the scan") -> Film:
    """A scan (T, I, J, K), whose channels are times, as a film.

    Args:
        scan: As :func:`medrl.volume.read` gives a file of four dimensions.
        source: What to call it in an error.

    Raises:
        MedrlError: If it has but one time.
    """
    if scan.shape[0] < 2:
        raise MedrlError(
            f"{source}: is a scan of one time: name a film (a folder of pictures, a video) or a "
            "scan of four dimensions"
        )
    names = tuple(str(number) for number in range(scan.shape[0]))
    meta = {key: value for key, value in scan.meta.items() if key != "affine"}
    return Film(scan.as_tensor().float()[:, None], as_affine(scan.affine), names, meta)


def read_picture(path: Path) -> NDArray[np.generic]:
    """The values of a picture as they are stored, (rows, columns) or (rows, columns, colours).

    Raises:
        MedrlError: If it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except Exception as error:  # parsers of damaged pictures fail in every way there is
        raise MedrlError(f"{path}: cannot be read as a picture ({type(error).__name__})") from error


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    """Sorts 2 before 10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part.lower())
        for part in re.split(r"(\d+)", path.name)
        if part
    ]


def _picture(path: Path) -> NDArray[np.float32]:
    """(C, I, J), of one channel if it is grey."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _channels_first(_plain(image))
    except OSError as error:
        raise MedrlError(f"{path}: cannot be read as a picture: it is damaged") from error


def _plain(image: Any) -> NDArray[np.generic]:
    """A picture without a palette and transparency."""
    if image.mode in ("P", "PA", "RGBA", "LA", "CMYK", "YCbCr", "HSV"):
        image = image.convert("L" if image.mode == "LA" else "RGB")
    return np.asarray(image)


def _channels_first(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    values = pixels.astype(np.float32)
    if values.ndim == 2:
        return values.T[None]
    values = values[..., :3]
    if values.shape[-1] == 3 and (values == values[..., :1]).all():
        values = values[..., :1]
    return values.transpose(2, 1, 0)


def _video(path: Path) -> Iterator[NDArray[np.float32]]:
    """The frames of a file, (C, I, J) each."""
    from PIL import Image, ImageSequence

    if path.suffix.lower() in (".gif", ".webp", ".tif", ".tiff"):
        try:
            with Image.open(path) as image:
                for frame in ImageSequence.Iterator(image):
                    yield _channels_first(_plain(frame))
        except (OSError, SyntaxError, ValueError) as error:
            raise MedrlError(f"{path}: cannot be read as a film: it is damaged") from error
        return
    try:
        import imageio.v3 as iio
    except ImportError as error:
        raise MedrlError(
            f"{path}: is a video, for which an extra is needed: pip install 'medrl[film]'"
        ) from error
    try:
        for pixels in iio.imiter(path, plugin="pyav"):
            yield _channels_first(pixels)
    except ImportError as error:
        raise MedrlError(
            f"{path}: is a video, for which an extra is needed: pip install 'medrl[film]'"
        ) from error
    except Exception as error:  # decoders of damaged videos fail in every way there is
        raise MedrlError(
            f"{path}: cannot be read as a video: it is damaged or of an unknown kind"
        ) from error


def _stacked(
    pictures: Iterable[NDArray[np.float32]], source: Path, names: tuple[str, ...]
) -> Tensor:
    """Pictures of one size as (T, C, I, J, 1)."""
    frames: list[NDArray[np.float32]] = []
    size = 0
    for number, picture in enumerate(pictures):
        if frames and picture.shape[1:] != frames[0].shape[1:]:
            called = names[number] if names else str(number)
            sizes = [" x ".join(str(n) for n in one.shape[1:]) for one in (frames[0], picture)]
            raise MedrlError(
                f"{source}: frames are of different size: {sizes[0]}, and {called} is {sizes[1]}"
            )
        size += picture.nbytes
        if size > _MOST_BYTES or number >= _MOST_FRAMES:
            raise MedrlError(
                f"{source}: is too long for the memory: cut it, or make its pictures smaller"
            )
        frames.append(picture)
    if not frames:
        raise MedrlError(f"{source}: holds no picture")
    most = max(frame.shape[0] for frame in frames)
    whole = [np.broadcast_to(f, (most, *f.shape[1:])) if len(f) < most else f for f in frames]
    return torch.from_numpy(np.stack(whole))[..., None]
