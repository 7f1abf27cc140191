"""DICOM series from a folder, a zip or one multi-frame file, decoded by pydicom slice by slice.

The geometry is taken from the positions of the first and last slice, so a tilted gantry (a sheared
volume) comes out right; ITK's series reader would straighten it. (MONAI's PydicomReader holds a
series in memory seven times over.)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from medrl.errors import MedrlError
from medrl.volume._checks import check_grid, check_stored, reject_pixels
from medrl.volume._subprocess_io import ItkImage, images
from medrl.volume.dicom_origin import IDENTITY_TAGS, DicomOrigin
from medrl.volume.space import affine_to_lps

_TAGS = [
    *IDENTITY_TAGS,
    "BitsAllocated",
    "Columns",
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "Modality",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelSpacing",
    "Rows",
    "SOPClassUID",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SliceThickness",
]
_FRAME_TAGS = [*_TAGS, "PerFrameFunctionalGroupsSequence"]
_MOST_FILES = 50_000
_ROWS, _COLUMNS = 0x00280010, 0x00280011
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_LONGEST_META = 1024
#: Slices that are put into the volume together.
_BLOCK = 16
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"

LoadedDicom = tuple[NDArray[np.generic], NDArray[np.float64], list[str], DicomOrigin]


@dataclass(frozen=True)
class Slice:
    """One file of a series: its header without pixels."""

    file: Path
    header: pydicom.Dataset

    @property
    def position(self) -> NDArray[np.float64]:
        """World position of the first pixel (LPS mm)."""
        return np.array(self.header.ImagePositionPatient, dtype=np.float64)

    @property
    def plane(self) -> tuple[Any, ...]:
        """What all slices of a volume share."""
        header = self.header
        cosines = tuple(np.round(np.array(header.ImageOrientationPatient, dtype=float), 4) + 0.0)
        spacing = tuple(np.round(np.array(header.PixelSpacing, dtype=float), 5))
        return int(header.Rows), int(header.Columns), spacing, cosines


def load_dicom(path: Path, files: Iterable[Path], *, series: str | None) -> LoadedDicom:
    """Read one series.

    Args:
        path: What the user named (folder, zip or file), for messages.
        files: Candidate files; what is no DICOM image is passed over.
        series: SeriesInstanceUID to read where there are several.

    Returns:
        Voxels (1, I, J, K) with rescale slope and intercept applied, affine (voxel to RAS mm),
        remarks for the user, and which images these are.
    """
    found = _choose_series(path, read_headers(path, files), series)
    _check_pixels(path, found)
    frames = [s for s in found if int(s.header.get("NumberOfFrames") or 1) > 1]
    if frames:
        if len(found) > 1:
            raise MedrlError(f"{path}: has {len(found)} multi-frame files in one series; name one")
        return _load_frames(path, found[0])
    ordered, remarks = _ordered(path, found)
    rows, columns, *_ = ordered[0].plane
    check_grid(path, (columns, rows, len(ordered)))
    array = _stack(path, ordered)
    origin = DicomOrigin(
        ordered[0].header,
        tuple(str(s.header.get("SOPInstanceUID") or "") for s in ordered),
        np.array([s.position for s in ordered]),
        tuple(float(v) for v in ordered[0].header.ImageOrientationPatient),
        (float(ordered[0].header.PixelSpacing[0]), float(ordered[0].header.PixelSpacing[1])),
    )
    return array[None], affine_to_lps(_affine_lps(ordered)), remarks, origin


def _stack(path: Path, ordered: list[Slice]) -> NDArray[np.float32]:
    """Intensities (I, J, K) of slices in order, some at a time, so that memory holds them once."""
    rows, columns, *_ = ordered[0].plane
    volume = np.empty((columns, rows, len(ordered)), dtype=np.float32)
    # GDCM decodes what pydicom has no decoder for, once for all slices.
    decoded: dict[Path, ItkImage] = {}
    block: list[NDArray[np.generic]] = []
    for number, item in enumerate(ordered, 1):
        pixels = _pixels(item.file, [one.file for one in ordered], decoded)
        if pixels.shape != (rows, columns):
            raise MedrlError(f"{path}: the pixels of a slice do not fit its header; export it anew")
        block.append(pixels)
        if len(block) == _BLOCK or number == len(ordered):
            volume[:, :, number - len(block) : number] = np.stack(block, axis=-1).swapaxes(0, 1)
            block.clear()
    return volume


def _pixels(file: Path, files: list[Path], decoded: dict[Path, ItkImage]) -> NDArray[np.generic]:
    """Intensities (rows, columns) of one slice of a series, rescaled as its header says."""
    dataset = pydicom.dcmread(file)
    try:
        pixels = dataset.pixel_array
    except (RuntimeError, NotImplementedError):
        if file not in decoded:
            decoded.update(zip(files, images(files), strict=True))
        # GDCM applies the rescale slope and intercept itself.
        return decoded.pop(file).array[0]
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None and intercept is None:
        return pixels
    slope, intercept = 1 if slope is None else slope, 0 if intercept is None else intercept
    return np.asarray(pixels.astype(np.float32) * float(slope) + float(intercept))


def _affine_lps(ordered: list[Slice]) -> NDArray[np.float64]:
    """Voxel to LPS of slices in order (DICOM PS3.3 C.7.6.2.1.1), a tilted gantry included."""
    header = ordered[0].header
    cosines = np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    between_rows, between_columns = (float(step) for step in header.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = cosines[0] * between_columns
    affine[:3, 1] = cosines[1] * between_rows
    affine[:3, 2] = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    affine[:3, 3] = ordered[0].position
    return affine


def read_headers(path: Path, files: Iterable[Path], *, strict: bool = True) -> list[Slice]:
    """Headers of the DICOM images among the files.

    Args:
        path: What the user named, for messages.
        files: Candidates; what is no DICOM image is passed over.
        strict: Refuse damaged DICOM files, which may be slices that a series then lacks; else
            they are passed over, too.

    Raises:
        MedrlError: If there are none, too many, or damaged ones.
    """
    found, damaged = [], 0
    for number, file in enumerate(files):
        if number >= _MOST_FILES:
            raise MedrlError(f"{path}: holds more than {_MOST_FILES} files; name one series")
        if not file.is_file():
            continue
        try:
            header = _header(file)
        except (InvalidDicomError, EOFError):
            continue
        except Exception:
            # Parsers of damaged files fail in every way there is.
            damaged += 1
            continue
        if "Rows" in header and "SeriesInstanceUID" in header:
            found.append(Slice(file, header))
    if damaged and (strict or not found):
        raise MedrlError(
            f"{path}: {damaged} of its DICOM files are damaged or deflated; copy or export them "
            "again"
        )
    if not found:
        raise MedrlError(
            f"{path}: holds no DICOM images; name an image file, or a folder or zip with one series"
        )
    # Segmentations of a scan lie beside it.
    return [s for s in found if s.header.get("SOPClassUID") != _SEGMENTATION] or found


def _header(file: Path) -> pydicom.Dataset:
    """A file's header, every value converted, so that damaged ones fail here."""
    with file.open("rb") as stream:
        start = stream.read(_LONGEST_META)
        if start[128:132] != b"DICM":
            raise InvalidDicomError
        if _DEFLATED in start:
            # pydicom inflates it whole, however large that is.
            raise ValueError("deflated")
        stream.seek(0)
        header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS)
    for element in header:
        if element.tag in (_ROWS, _COLUMNS):
            int(element.value)
    return header


def _choose_series(path: Path, found: list[Slice], series: str | None) -> list[Slice]:
    groups: dict[str, list[Slice]] = defaultdict(list)
    for item in found:
        groups[str(item.header.SeriesInstanceUID)].append(item)
    if series is None and len(groups) == 1:
        return found
    if series in groups:
        return groups[series]
    listing = "; ".join(
        # A description is free text, and may name the patient.
        f"{uid} ({items[0].header.get('Modality', '?')}, {len(items)} files)"
        for uid, items in groups.items()
    )
    if series is None:
        raise MedrlError(
            f"{path}: holds {len(groups)} DICOM series; keep one in the folder, or choose one by "
            f"its SeriesInstanceUID: {listing}"
        )
    raise MedrlError(f"{path}: holds no DICOM series {series}; it holds {listing}")


def _check_pixels(path: Path, found: list[Slice]) -> None:
    for item in found:
        header = item.header
        if header.get("SOPClassUID") == _SEGMENTATION:
            raise MedrlError(f"{path}: is a DICOM segmentation, not a scan")
        kind = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
        if int(header.get("SamplesPerPixel") or 1) > 1 or not kind.startswith("MONOCHROME"):
            raise reject_pixels(path, "colour")
        syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
        if syntax is not None:
            count = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
            needed = count * int(header.get("BitsAllocated", 16)) // 8
            stored = item.file.stat().st_size
            check_stored(item.file, needed, stored, compressed=syntax.is_compressed)


def _ordered(path: Path, found: list[Slice]) -> tuple[list[Slice], list[str]]:
    """The slices along their normal, each once, evenly spaced."""
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        lacking = sum(not item.header.get(tag) for item in found)
        if lacking:
            raise MedrlError(
                f"{path}: {lacking} of its {len(found)} slices have no {tag}: their place in "
                "space is unknown"
            )
    planes = Counter(item.plane for item in found)
    if len(planes) > 1:
        raise MedrlError(
            f"{path}: its slices differ in size or orientation ({len(planes)} kinds, "
            f"{', '.join(str(n) for n in planes.values())} slices); keep one kind in the folder"
        )
    # Anonymisers can give every slice the same SOPInstanceUID: a copy has the same place, too.
    once = {
        (str(item.header.get("SOPInstanceUID", item.file)), tuple(item.position)): item
        for item in found
    }
    remarks = []
    if len(once) < len(found):
        remarks.append(f"{len(found) - len(once)} slices are there twice: each was read once")
    cosines = np.array(found[0].header.ImageOrientationPatient, dtype=np.float64)
    normal = np.cross(cosines[:3], cosines[3:])
    ordered = sorted(once.values(), key=lambda item: float(item.position @ normal))
    _check_spacing(path, np.array([item.position for item in ordered]), normal)
    return ordered, remarks


def _check_spacing(path: Path, positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """Refuse doubled, missing and uneven slices at the given positions (N, 3), sorted."""
    if len(positions) < 2:
        raise MedrlError(
            f"{path}: is a 2D image (one DICOM slice); name the folder with the whole series"
        )
    steps = np.diff(positions @ normal)
    step = float(np.median(steps))
    doubled = int((steps < 1e-3).sum())
    if doubled:
        raise MedrlError(
            f"{path}: {doubled} slices lie where another lies (several echoes, times or "
            "reconstructions in one series); keep one of each, or convert the series to NIfTI"
        )
    gaps = np.flatnonzero(steps > 1.5 * step)
    if len(gaps):
        missing = int(np.rint(steps[gaps] / step - 1).sum())
        at = positions[gaps[0]].round(1).tolist()
        raise MedrlError(
            f"{path}: {max(missing, 1)} slices are missing, the first after the slice at "
            f"{at} mm (LPS); copy the whole series"
        )
    even = np.linspace(positions[0], positions[-1], len(positions))
    worst = float(np.linalg.norm(positions - even, axis=1).max())
    if worst > 0.1 * step:
        raise MedrlError(
            f"{path}: its slices are unevenly spaced (off by up to {worst:.2f} mm); "
            "resample the series to even slices first"
        )


def _load_frames(path: Path, item: Slice) -> LoadedDicom:
    """Read an enhanced multi-frame file: pixels by GDCM, geometry checked frame by frame."""
    header = pydicom.dcmread(item.file, stop_before_pixels=True, specific_tags=_FRAME_TAGS)
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames or "PlanePositionSequence" not in frames[0]:
        raise MedrlError(
            f"{path}: is a multi-frame DICOM file that does not place its frames in space; "
            "convert it to NIfTI"
        )
    positions = np.array(
        [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], dtype=np.float64
    )
    check_grid(path, (int(header.Columns), int(header.Rows), len(frames)))
    image = images([item.file])[0]
    direction = image.direction
    along = positions @ direction[:, 2]
    _check_spacing(path, positions[np.argsort(along, kind="stable")], direction[:, 2])
    lps = np.eye(4)
    lps[:3, :3] = direction * np.array(image.spacing)
    lps[:3, 3] = image.origin
    steps = (positions[-1] - positions[0]) / (len(positions) - 1)
    if not np.allclose(positions, positions[0] + np.outer(np.arange(len(frames)), steps), atol=0.1):
        raise MedrlError(f"{path}: its frames are not stored in order; convert it to NIfTI")
    lps[:3, 2], lps[:3, 3] = steps, positions[0]
    array = image.array.transpose(2, 1, 0)
    origin = DicomOrigin(
        item.header,
        (str(item.header.get("SOPInstanceUID") or ""),),
        positions,
        tuple(direction[:, :2].T.ravel().tolist()),
        (image.spacing[1], image.spacing[0]),
    )
    return array[None], affine_to_lps(lps), [], origin
