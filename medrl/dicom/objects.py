"""What DICOM objects made from a scan share: whose they are, which images, who made them.

Whatever highdicom is given here holds no identity: what it says of bad values it says without a
name in it. Patient and study are copied from the images afterwards, as they are stored.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.valuerep import format_number_as_ds

import medrl
from medrl.dicom.deidentify import Pseudonyms
from medrl.errors import MedrlError
from medrl.volume.dicom_origin import IDENTITY_TAGS, DicomOrigin
from medrl.volume.log_filter import libraries_muted

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

#: Of the patient and the study modules, what must be there, and may be empty (type 2).
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"),
)
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
#: What stands for any kind of image of one frame.
_SINGLE_FRAME = "1.2.840.10008.5.1.4.1.1.2"
_SERIES_NUMBERS = {"SEG": 9001, "SR": 9002}


@dataclass(frozen=True)
class Maker:
    """Who made a result.

    Attributes:
        model: Name of the trained model.
        version: Of medrl.
    """

    model: str
    version: str = medrl.__version__


@dataclass(frozen=True, eq=False)
class Drafted:
    """A DICOM object, or why there is none.

    Attributes:
        dataset: To be written by :func:`save`; None where the scan was no DICOM, or cannot be
            referred to.
        remarks: What the user should know, one line each.
    """

    dataset: pydicom.Dataset | None = None
    remarks: tuple[str, ...] = ()


def draft(
    scan: MetaTensor,
    ending: str,
    make: Callable[[DicomOrigin, list[pydicom.Dataset]], pydicom.Dataset],
    pseudonyms: Pseudonyms | None,
) -> Drafted:
    """Make an object of a scan that came from DICOM; what prevents it becomes a remark.

    Args:
        scan: As read.
        ending: Of the file that it is for, for remarks.
        make: Makes it, of the images and headers that stand for them (:func:`references`).
        pseudonyms: Take the patient's identity out; None to carry it over.

    Returns:
        The object, with patient and study.
    """
    origin = scan.meta.get("dicom")
    if not isinstance(origin, DicomOrigin):
        return Drafted()
    if find_spec("highdicom") is None:
        said = "the package highdicom is not installed: pip install 'medrl[dicom]'"
        return Drafted(remarks=(f"no {ending}: {said}",))
    lacking = [tag for tag in _NEEDED if not origin.header.get(tag)]
    slices = set(zip(origin.instances, origin.frames, strict=True))
    if "" in origin.instances or len(slices) < len(origin.instances):
        lacking.append("SOPInstanceUID")
    if lacking:
        said = f"its images cannot be referred to: they have no {' and no '.join(lacking)}"
        return Drafted(remarks=(f"no {ending}: {said}",))
    try:
        with libraries_muted():
            made = make(origin, references(origin, pseudonyms))
            _name_kind(origin, made)
            _carry_identity(origin, made, pseudonyms)
            if pseudonyms is not None:
                pseudonyms.clean(made)
    except MedrlError as error:
        return Drafted(remarks=(f"no {ending}: {error}",))
    except Exception as error:
        # What libraries say of an odd header may quote it.
        said = f"its DICOM headers are not as they should be ({type(error).__name__})"
        return Drafted(remarks=(f"no {ending}: {said}",))
    return Drafted(made)


def references(origin: DicomOrigin, pseudonyms: Pseudonyms | None) -> list[pydicom.Dataset]:
    """Headers that stand for the images: identifiers, and geometry; nothing of the patient.

    Args:
        origin: The images.
        pseudonyms: Replaces identifiers; None to leave them.

    Returns:
        One for each image, in the order of the scan's slices; the frames of one in its own order.
    """
    known = origin.header
    found = []
    firsts = {uid: number for number, uid in reversed(list(enumerate(origin.instances)))}
    for instance, number in sorted(firsts.items(), key=lambda item: item[1]):
        image = pydicom.Dataset()
        for tag in (*_NEEDED, "Modality"):
            value = str(known.get(tag, ""))
            if pseudonyms is not None and tag.endswith("InstanceUID") | tag.startswith("Frame"):
                value = pseudonyms.uid(value)
            setattr(image, tag, value)
        image.SOPInstanceUID = instance if pseudonyms is None else pseudonyms.uid(instance)
        for tag in _EMPTY:
            setattr(image, tag, "")
        image.Rows, image.Columns = int(known.Rows), int(known.Columns)
        if origin.is_multi_frame:
            _place_frames(origin, image)
        else:
            # Enhanced images of one frame, too, are told apart by no more than their UIDs.
            image.SOPClassUID = _SINGLE_FRAME
            _add(image, PixelSpacing=origin.spacing, SliceThickness=_thickness(origin))
            _add(image, ImageOrientationPatient=origin.orientation)
            _add(image, ImagePositionPatient=origin.positions_lps[number])
        found.append(image)
    return found


def stamp(kind: str, maker: Maker, description: str) -> dict[str, Any]:
    """Arguments of highdicom's objects that say which series it begins, and who made it.

    Args:
        kind: Modality of the object.
        maker: Who made it.
        description: Of the series.
    """
    return {
        "series_instance_uid": new_uid(),
        "series_number": _SERIES_NUMBERS[kind],
        "sop_instance_uid": new_uid(),
        "instance_number": 1,
        "manufacturer": "medrl",
        "manufacturer_model_name": plain(maker.model, 64),
        "software_versions": plain(maker.version, 64),
        "device_serial_number": "none",
        "series_description": plain(description, 64),
    }


def save(path: Path, made: pydicom.Dataset) -> None:
    """Write an object.

    Raises:
        MedrlError: If it cannot be encoded; no value is quoted.
        OSError: If it cannot be written.
    """
    try:
        with libraries_muted():
            made.save_as(path, enforce_file_format=True)
    except OSError:
        raise
    except Exception as error:
        raise MedrlError(
            f"{path.name}: cannot be encoded as DICOM ({type(error).__name__})"
        ) from None


def new_uid() -> str:
    """A UID that nothing else has (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def plain(text: str, most: int) -> str:
    """Text that a DICOM value of any character set can hold."""
    ascii_only = text.encode("ascii", "replace").decode()
    return "".join("?" if c == "\\" or ord(c) < 32 else c for c in ascii_only)[:most].strip()


# -------------------------------------------------------------------------------------------------


def _name_kind(origin: DicomOrigin, made: pydicom.Dataset) -> None:
    """Say of which kind the images are that :func:`references` gave another."""
    for element in made.iterall():
        if element.keyword == "ReferencedSOPClassUID" and element.value == _SINGLE_FRAME:
            element.value = str(origin.header.SOPClassUID)


def _carry_identity(
    origin: DicomOrigin, made: pydicom.Dataset, pseudonyms: Pseudonyms | None
) -> None:
    """Say whose the object is: patient and study, as the images say it or by pseudonyms."""
    if pseudonyms is not None:
        patient = pseudonyms.patient(origin.header)
        made.PatientID = made.PatientName = patient
        return
    # Values are copied in their own character set, which is that of the images.
    for tag in ("SpecificCharacterSet", *IDENTITY_TAGS):
        if tag in origin.header:
            made[tag] = origin.header[tag]


def _place_frames(origin: DicomOrigin, image: pydicom.Dataset) -> None:
    """Geometry of a multi-frame image, whose frames are the slices (PS3.3 C.7.6.16)."""
    if len(set(origin.instances)) > 1:
        return
    image.NumberOfFrames = len(origin.positions_lps)
    measures, plane, shared = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    _add(measures, PixelSpacing=origin.spacing, SliceThickness=_thickness(origin))
    _add(plane, ImageOrientationPatient=origin.orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    image.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for position in origin.positions_lps[np.argsort(origin.frames)]:
        place, frame = pydicom.Dataset(), pydicom.Dataset()
        _add(place, ImagePositionPatient=position)
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    image.PerFrameFunctionalGroupsSequence = frames


def _thickness(origin: DicomOrigin) -> list[float]:
    """Of a slice, as the images say it, or else the way from one to the next."""
    said = origin.header.get("SliceThickness")
    if said:
        return [float(said)]
    steps = np.linalg.norm(np.diff(origin.positions_lps, axis=0), axis=1)
    return [float(np.median(steps))]


def _add(dataset: pydicom.Dataset, **values: Sequence[float] | Iterable[float]) -> None:
    """Set decimal strings, which hold at most 16 letters."""
    for tag, numbers in values.items():
        texts = [format_number_as_ds(float(number)) for number in numbers]
        setattr(dataset, tag, texts if len(texts) > 1 else texts[0])
