"""DICOM series from a folder, a zip or one multi-frame file, put together slice by slice.

The geometry is taken from the positions of the first and last slice, so a tilted gantry (a sheared
volume) comes out right; ITK's series reader would straighten it. (MONAI's PydicomReader holds a
series in memory seven times over.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume._checks import check_grid, check_stored, reject_pixels
from medrl.volume._dicom_frames import Frame, differences, frames_of, real_world, values_of
from medrl.volume._dicom_headers import NO_SCANS, Image, by_series, find_images, with_frames
from medrl.volume._dicom_pixels import PixelReader
from medrl.volume.dicom_origin import DicomOrigin
from medrl.volume.space import affine_to_lps, same_grid

#: Slices that are put into the volume together.
_BLOCK = 16
#: Slices are of one kind if their pixels lie where the others' do, to so much of a pixel: headers
#: have been rounded in many ways.
_SAME_PLANE = 0.1
#: Slices that are closer than so much of a pixel lie at one place.
_SAME_PLACE = 0.01

LoadedDicom = tuple[NDArray[np.generic], NDArray[np.float64], list[str], DicomOrigin]


def load_dicom(path: Path, files: Iterable[Path], *, series: str | None) -> LoadedDicom:
    """Read one series.

    Args:
        path: What the user named (folder, zip or file), for messages.
        files: Candidate files; what is no DICOM image is passed over.
        series: Which one to read where there are several, as :func:`by_series` calls it.

    Returns:
        Voxels (1, I, J, K), stored values made into what they stand for; affine (voxel to RAS mm);
        remarks for the user; and which images these are.

    Raises:
        MedrlError: If there is no such series, it is no one volume, or a file is damaged.
    """
    found = find_images(files)
    # A file that cannot be read may be a slice of the series.
    if found.unreadable:
        raise MedrlError(f"{path}: {found.complaint()}")
    misnamed = [file.name for file in found.misnamed]
    if not found.images:
        said = f" ({misnamed[0]} is none)" if misnamed else ""
        raise MedrlError(
            f"{path}: holds no DICOM images{said}; name an image file, or a folder or zip with one "
            "series"
        )
    images = [with_frames(path, image) for image in _choose_series(path, found.images, series)]
    for image in images:
        _check_pixels(path, image)
    ordered, remarks = _ordered(path, frames_of(path, images))
    if misnamed:
        remarks.append(
            f"{len(misnamed)} files that are called DICOM are none and were left out, the first is "
            f"{misnamed[0]}"
        )
    rows, columns = ordered[0].shape
    check_grid(path, (columns, rows, len(ordered)))
    array, heard = _stack(path, ordered)
    first = ordered[0]
    origin = DicomOrigin(
        first.image.header,
        tuple(str(one.image.header.get("SOPInstanceUID") or "") for one in ordered),
        tuple(one.number + 1 for one in ordered),
        np.array([one.position for one in ordered]),
        tuple(first.cosines.tolist()),
        (float(first.spacing[0]), float(first.spacing[1])),
    )
    return array[None], affine_to_lps(_affine_lps(ordered)), remarks + heard, origin


def _choose_series(path: Path, found: list[Image], series: str | None) -> list[Image]:
    groups = by_series(found)
    if series is None and len(groups) == 1:
        return found
    if series in groups:
        return groups[series]
    listing = "; ".join(
        # A description is free text, and may name the patient.
        f"{uid} ({images[0].header.get('Modality', '?')}, {len(images)} files)"
        for uid, images in groups.items()
    )
    if series is None:
        raise MedrlError(
            f"{path}: holds {len(groups)} DICOM series; keep one in the folder, or choose one by "
            f"its SeriesInstanceUID: {listing}"
        )
    raise MedrlError(f"{path}: holds no DICOM series {series}; it holds {listing}")


def _check_pixels(path: Path, image: Image) -> None:
    header = image.header
    kind = NO_SCANS.get(str(header.get("SOPClassUID")))
    if kind in ("segmentation", "spectrum"):
        raise MedrlError(f"{path}: is a DICOM {kind}, not a scan")
    colours = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(header.get("SamplesPerPixel") or 1) > 1 or not colours.startswith("MONOCHROME"):
        raise reject_pixels(path, "colour")
    bits, high = header.get("BitsStored"), header.get("HighBit")
    if bits and high is not None and int(high) != int(bits) - 1:
        raise MedrlError(
            f"{path}: the pixels of {image.file.name} are not in the lowest bits (BitsStored "
            f"{bits}, HighBit {high}), which readers take in different ways; export it anew"
        )
    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is not None and not syntax.is_private:
        count = int(header.Rows) * int(header.Columns) * image.frame_count
        needed = count * int(header.get("BitsAllocated", 16)) // 8
        packed = syntax.is_compressed or syntax.is_deflated
        check_stored(image.file, needed, image.file.stat().st_size, compressed=packed)


def _ordered(path: Path, frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    """The slices, each once, in even steps along their normal or against it; and remarks."""
    kinds = _count_kinds(frames)
    if len(kinds) > 1:
        raise MedrlError(
            f"{path}: its slices differ in size or orientation ({len(kinds)} kinds, "
            f"{', '.join(map(str, kinds))} slices); keep one kind in the folder"
        )
    normal = frames[0].normal
    ordered = _once(sorted(frames, key=lambda frame: float(frame.position @ normal)))
    remarks = []
    if len(ordered) < len(frames):
        remarks.append(f"{len(frames) - len(ordered)} slices are there twice: each was read once")
    remarks += _check_spacing(path, ordered, normal)
    if len({frame.image.file for frame in ordered}) == 1 and ordered[0].number > ordered[-1].number:
        ordered.reverse()  # as they are stored
    return ordered, remarks


def _count_kinds(frames: Sequence[Frame]) -> list[int]:
    """How many slices there are of each size and orientation."""
    kinds: list[tuple[Frame, int]] = []
    for frame in frames:
        rows, columns = frame.shape
        for number, (known, count) in enumerate(kinds):
            if known.shape == frame.shape and same_grid(
                known.plane, frame.plane, (columns, rows, 1), within=_SAME_PLANE
            ):
                kinds[number] = known, count + 1
                break
        else:
            kinds.append((frame, 1))
    return [count for _, count in kinds]


def _once(ordered: Sequence[Frame]) -> list[Frame]:
    """Slices in order without copies, which have the same name, and the same place to rounding.

    Anonymisers can give every slice the same SOPInstanceUID.
    """
    kept: list[Frame] = []
    for frame in ordered:
        last = kept[-1] if kept else frame
        apart = float(np.linalg.norm(frame.position - last.position))
        if not kept or frame.name != last.name or apart > _SAME_PLANE * frame.spacing.min():
            kept.append(frame)
    return kept


def _check_spacing(path: Path, ordered: Sequence[Frame], normal: NDArray[np.float64]) -> list[str]:
    """Refuse doubled, missing and uneven slices; say if the headers have them elsewhere."""
    if len(ordered) < 2:
        raise MedrlError(
            f"{path}: is a 2D image (one DICOM slice); name the folder with the whole series"
        )
    positions = np.array([frame.position for frame in ordered])
    steps = np.diff(positions @ normal)
    step = float(np.median(steps))
    kinds = differences(ordered) or "several echoes, times or reconstructions"
    doubled = int((steps < _SAME_PLACE * ordered[0].spacing.min()).sum())
    if doubled:
        raise MedrlError(
            f"{path}: {doubled} slices lie where another lies ({kinds} in one series); keep one of "
            "each, or convert the series to NIfTI"
        )
    gaps = np.flatnonzero(steps > 1.5 * step)
    if len(gaps) and len({frame.aspects[0] for frame in ordered}) > 1:
        raise MedrlError(
            f"{path}: its slices are no one volume ({kinds} in one series); convert it to NIfTI"
        )
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
    said = ordered[0].between_slices
    if said is not None and abs(said - step) > 0.01 * step:
        return [
            f"its slices lie {step:.4g} mm apart by their positions and {said:.4g} mm by "
            "SpacingBetweenSlices: the positions were taken"
        ]
    return []


def _affine_lps(ordered: Sequence[Frame]) -> NDArray[np.float64]:
    """Voxel to LPS of slices in order (DICOM PS3.3 C.7.6.2.1.1), a tilted gantry included."""
    affine = ordered[0].plane
    affine[:3, 2] = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    affine[:3, 3] = ordered[0].position
    return affine


def _stack(path: Path, ordered: Sequence[Frame]) -> tuple[NDArray[np.float32], list[str]]:
    """Values (I, J, K) of slices in order, some at a time, so that memory holds them once."""
    rows, columns = ordered[0].shape
    volume = np.empty((columns, rows, len(ordered)), dtype=np.float32)
    pixels = PixelReader(path, list({frame.image.file: None for frame in ordered}))
    opened: dict[Path, tuple[pydicom.Dataset, NDArray[np.generic]]] = {}
    block: list[NDArray[np.generic]] = []
    remarks: dict[str, None] = {}
    for number, frame in enumerate(ordered, 1):
        file = frame.image.file
        if file not in opened:
            opened[file] = pixels.read(file)
        dataset, stored = opened[file]
        if frame.number >= len(stored):
            raise MedrlError(f"{path}: has fewer frames than it says; export it anew")
        try:
            values = values_of(dataset, frame.number)
            heard = _remarks(dataset, frame.number, (values.slope, values.intercept))
        except Exception as error:
            reason = str(error) if isinstance(error, MedrlError) else type(error).__name__
            raise MedrlError(
                f"{path}: what the pixels of {file.name} stand for is damaged ({reason}); export "
                "it anew"
            ) from error
        block.append(values.of(stored[frame.number]))
        remarks |= dict.fromkeys(heard)
        if frame.image.frame_count == 1:
            del opened[file]
        if len(block) == _BLOCK or number == len(ordered):
            volume[:, :, number - len(block) : number] = np.stack(block, axis=-1).swapaxes(0, 1)
            block.clear()
    return volume, list(remarks)


def _remarks(dataset: pydicom.Dataset, number: int, scaling: tuple[float, float]) -> list[str]:
    """What a frame's header says of its values that is not used."""
    said = []
    if str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1":
        said.append(
            "is meant to be shown with low values bright (MONOCHROME1): its values are not inverted"
        )
    mapping = real_world(dataset, number)
    if mapping is not None and not np.allclose(mapping, scaling, rtol=1e-4):
        said.append("its mapping to real-world values is not applied")
    return said
