"""Where the frames of DICOM images lie, and what their stored values stand for.

The one place that knows where objects say this: at the top level (PS3.3 C.7.6.2, C.11.1), in the
functional groups of all frames or of each (C.7.6.16), in what a gamma camera's detector saw
(C.8.4.11, C.8.4.15) or beside the grid of a dose (C.8.8.3). What decodes pixels gives stored values
and nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume._dicom_headers import Image
from medrl.volume.dicom_files import MOST_FILES

#: Functional groups by what they say.
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    **dict.fromkeys(
        ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"), "PixelMeasuresSequence"
    ),
    **dict.fromkeys(("RescaleSlope", "RescaleIntercept"), "PixelValueTransformationSequence"),
}
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
#: What frames that lie at one place may differ in: words for it, and where it is said.
_ASPECTS = (
    ("stacks", "FrameContentSequence", "StackID"),
    ("times", "FrameContentSequence", "TemporalPositionIndex"),
    ("echoes", "MREchoSequence", "EffectiveEchoTime"),
    ("diffusion weightings", "MRDiffusionSequence", "DiffusionBValue"),
)


#: How much direction cosines may be off unit length and right angles.
_PERPENDICULAR = 0.01


@dataclass(frozen=True)
class Frame:
    """One slice: a frame of an image, or the only one.

    Attributes:
        image: The file that it is in.
        number: Of the frame in the file, from 0.
        position: Centre of the first pixel, LPS mm.
        cosines: Directions of rows and of columns, six numbers (LPS).
        spacing: Between rows and between columns, mm.
        between_slices: What the header says of the way to the next slice, mm; None for nothing.
        aspects: What tells it from others at the same place.
    """

    image: Image
    number: int
    position: NDArray[np.float64]
    cosines: NDArray[np.float64]
    spacing: NDArray[np.float64]
    between_slices: float | None
    aspects: tuple[str, ...]

    @property
    def name(self) -> tuple[str, int]:
        """What nothing but copies of it are called."""
        return str(self.image.header.get("SOPInstanceUID", self.image.file)), self.number

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.image.header.Rows), int(self.image.header.Columns)

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector that rows and columns are perpendicular to."""
        normal: NDArray[np.float64] = np.cross(self.cosines[:3], self.cosines[3:])
        return normal

    @property
    def plane(self) -> NDArray[np.float64]:
        """Pixel (column, row, 0) to LPS mm, position left out: what slices of a volume share.

        A step along the normal is as long as the smaller one in the plane.
        """
        plane = np.eye(4)
        plane[:3, 0] = self.cosines[:3] * self.spacing[1]
        plane[:3, 1] = self.cosines[3:] * self.spacing[0]
        plane[:3, 2] = self.normal * self.spacing.min()
        return plane


@dataclass(frozen=True)
class Values:
    """What stored values stand for: a line, or a table.

    Attributes:
        slope: Of the line.
        intercept: Of the line.
        table: Values for stored ones from `first` on; None for the line. Smaller stored values have
            the table's first, greater ones its last (PS3.3 C.11.1.1.1).
        first: The stored value that the table begins with.
    """

    slope: float = 1.0
    intercept: float = 0.0
    table: NDArray[np.generic] | None = None
    first: int = 0

    def of(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        """Values of stored ones, in the same shape."""
        if self.table is not None:
            index = np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)
            return np.asarray(self.table[index])
        if (self.slope, self.intercept) == (1, 0):
            return stored
        return np.asarray(stored.astype(np.float64) * self.slope + self.intercept)


def frames_of(path: Path, images: Sequence[Image]) -> list[Frame]:
    """All frames of the images of a series.

    Args:
        path: What the user named, for messages.
        images: With what their headers say of frames.

    Raises:
        MedrlError: If a frame has no place in the patient.
    """
    found: list[Frame] = []
    lacking: dict[str, list[str]] = defaultdict(list)
    for image in images:
        offsets = _offsets(path, image)
        for number, offset in enumerate(offsets):
            levels = _levels(image.header, number)
            place = {tag: _find(levels, _GROUPS[tag], tag) for tag in _PLACE}
            missing = [tag for tag, value in place.items() if not value]
            for tag in missing:
                lacking[tag].append(image.file.name)
            if not missing:
                found.append(_frame(path, image, number, levels, list(place.values()), offset))
    for tag, names in lacking.items():
        count = sum(image.frame_count for image in images)
        raise MedrlError(
            f"{path}: {len(names)} of its {count} slices have no {tag}: their place in space is "
            f"unknown; the first is in {names[0]}"
        )
    return found


def said(header: pydicom.Dataset, number: int, tag: str) -> Any:
    """What a header says of a frame, numbered from 0, wherever it says it; None for nothing."""
    return _find(_levels(header, number), _GROUPS[tag], tag)


def values_of(dataset: pydicom.Dataset, number: int) -> Values:
    """What the stored values of a frame stand for, from a dataset with all its elements.

    A mapping to real-world values beside them is not used: it may be to any quantity. Nor is the
    photometric interpretation: it says how values are shown, not what they are.

    Raises:
        MedrlError: If a table is damaged.
    """
    if dataset.get("ModalityLUTSequence"):
        return _table(dataset)
    slope, intercept = (said(dataset, number, f"Rescale{tag}") for tag in ("Slope", "Intercept"))
    if slope is None and intercept is None:
        slope = dataset.get("DoseGridScaling")
    return Values(
        1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    )


def real_world(dataset: pydicom.Dataset, number: int) -> tuple[float, float] | None:
    """Slope and intercept of the first mapping of a frame to real-world values; None for none."""
    for level in _levels(dataset, number):
        for mapping in level.get("RealWorldValueMappingSequence") or ():
            slope = mapping.get("RealWorldValueSlope")
            if slope is not None:
                return float(slope), float(mapping.get("RealWorldValueIntercept") or 0)
    return None


def differences(frames: Sequence[Frame]) -> str:
    """What frames of a series differ in besides their place, such as "2 stacks, 3 times"."""
    kinds = [set(said) for said in zip(*(frame.aspects for frame in frames), strict=True)]
    named = zip(_ASPECTS, kinds, strict=True)
    return ", ".join(f"{len(kind)} {word}" for (word, *_), kind in named if len(kind) > 1)


# -------------------------------------------------------------------------------------------------


def _levels(header: pydicom.Dataset, number: int) -> list[pydicom.Dataset]:
    """Datasets that may say something of a frame, the closest to it first."""
    levels = []
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if frames and number < len(frames):
        levels.append(frames[number])
    levels += list(header.get("SharedFunctionalGroupsSequence") or ())[:1]
    levels.append(header)
    levels += list(header.get("DetectorInformationSequence") or ())[:1]
    return levels


def _find(levels: Sequence[pydicom.Dataset], group: str, tag: str) -> Any:
    """What the closest level says, in a functional group or plainly; None if none does."""
    for level in levels:
        for inner in (*(level.get(group) or ())[:1], level):
            value = inner.get(tag)
            if value is not None and value != "":
                return value
    return None


def _aspects(levels: Sequence[pydicom.Dataset]) -> tuple[str, ...]:
    return tuple(str(_find(levels, group, tag)) for _, group, tag in _ASPECTS)


def _offsets(path: Path, image: Image) -> NDArray[np.float64]:
    """Millimetres along the normal from the place that is said to each frame: mostly none."""
    header, count = image.header, image.frame_count
    if count > MOST_FILES:
        raise MedrlError(
            f"{path}: says that {image.file.name} holds {count} frames; export it anew"
        )
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if count == 1 or (
        groups and len(groups) == count and all("PlanePositionSequence" in one for one in groups)
    ):
        return np.zeros(count)
    grid = header.get("GridFrameOffsetVector")
    if grid and not isinstance(grid, str) and len(grid) == count:
        offsets = np.array(grid, dtype=np.float64)
        # Where the first is not 0 they are places, not distances (PS3.3 C.8.8.3.2).
        return np.asarray(offsets - offsets[0])
    step = header.get("SpacingBetweenSlices")
    if {"RECON TOMO", "RECON GATED TOMO"} & set(header.get("ImageType") or ()) and step:
        numbers = np.array(header.get("SliceVector") or range(1, count + 1), dtype=np.float64)
        if numbers.shape == (count,):
            return (numbers - 1) * float(step)
    raise MedrlError(
        f"{path}: is a multi-frame DICOM file that does not place its frames in space; "
        "convert it to NIfTI"
    )


def _frame(
    path: Path,
    image: Image,
    number: int,
    levels: Sequence[pydicom.Dataset],
    place: Sequence[Any],
    offset: float,
) -> Frame:
    """A frame at a place that is said, moved along its normal; refused where that is none."""
    position, cosines, spacing = (np.array(value, dtype=np.float64) for value in place)
    if (position.shape, cosines.shape, spacing.shape) != ((3,), (6,), (2,)):
        raise MedrlError(
            f"{path}: the place of the slice in {image.file.name} is damaged; export it anew"
        )
    axes = cosines.reshape(2, 3)
    good = np.isfinite(np.concatenate([position, cosines, spacing])).all() and (spacing > 0).all()
    if not good or np.abs(axes @ axes.T - np.eye(2)).max() > _PERPENDICULAR:
        raise MedrlError(
            f"{path}: the rows and columns of the slice in {image.file.name} are not "
            "perpendicular directions, or its pixels have no size; export it anew"
        )
    step = _find(levels, "PixelMeasuresSequence", "SpacingBetweenSlices")
    return Frame(
        image,
        number,
        position + offset * np.cross(axes[0], axes[1]),
        cosines,
        spacing,
        abs(float(step)) if step else None,
        _aspects(levels),
    )


def _table(dataset: pydicom.Dataset) -> Values:
    """The Modality LUT (PS3.3 C.11.1.1)."""
    item = dataset.ModalityLUTSequence[0]
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    # A kind of number that depends on others is not always the one that was written.
    count = count % 2**16 or 2**16
    signed = bool(dataset.get("PixelRepresentation"))
    first = (first + 2**15) % 2**16 - 2**15 if signed else first % 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.original_encoding[1] is not False else ">"
        packed = bits <= 8 and len(data) in (count, count + 1)
        table = np.frombuffer(data, "u1" if packed else f"{order}u2")
    else:
        table = np.atleast_1d(np.array(data, dtype=np.int64)) % 2**16
        if bits <= 8 and len(table) == (count + 1) // 2 < count:
            table = table.astype("<u2").view("u1")
    if len(table) < count:
        raise MedrlError("a Modality LUT that is shorter than it says")
    return Values(table=table[:count], first=first)
