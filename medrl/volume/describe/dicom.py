"""What the headers of a DICOM series say, without saying whose images they are.

Free text, such as the description of a series, may name the patient: it is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from medrl.volume._dicom_frames import said, values_of
from medrl.volume.describe.header import Header, usable
from medrl.volume.space import LPS_FROM_RAS

_TAGS = {
    "BodyPartExamined": "body part",
    "ImageType": "image type",
    "Manufacturer": "scanner",
    "PatientPosition": "patient position",
    "RescaleType": "rescaled to",
    "Units": "unit",
    "ConvolutionKernel": "kernel",
    "MagneticFieldStrength": "field (T)",
    "RepetitionTime": "repetition time (ms)",
    "EchoTime": "echo time (ms)",
    "InversionTime": "inversion time (ms)",
    "SliceThickness": "slice thickness (mm)",
    "SpacingBetweenSlices": "stated slice spacing (mm)",
    "GantryDetectorTilt": "gantry tilt (degrees)",
}
#: Frames that are looked at.
_MOST_FRAMES = 10_000
_OTHERS = (
    *("Modality", "Rows", "Columns", "NumberOfFrames", "BitsStored", "PixelRepresentation"),
    *("PhotometricInterpretation", "SOPClassUID", "RescaleSlope", "RescaleIntercept"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing"),
    *("BurnedInAnnotation", "LossyImageCompression", "SpacingBetweenSlices"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("DetectorInformationSequence", "ModalityLUTSequence", "DoseGridScaling"),
)


def describe_dicom(files: list[Path]) -> Header:
    """What the headers of one series say; nothing at all if the first cannot be read.

    Args:
        files: Its images, in any order.
    """
    try:
        header = pydicom.dcmread(
            files[0], force=True, stop_before_pixels=True, specific_tags=[*_TAGS, *_OTHERS]
        )
        return _describe(header, files)
    except Exception:
        # Parsers of damaged files fail in every way there is.
        return Header()


def _describe(header: pydicom.Dataset, files: list[Path]) -> Header:
    facts = {}
    if kind := header.get("SOPClassUID"):
        facts["kind"] = str(kind.name).removesuffix(" Storage")
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    facts["transfer syntax"] = str(syntax.name) if syntax is not None else "not stated"
    facts |= {name: text for tag, name in _TAGS.items() if (text := _text(_first(header, tag)))}
    frames = int(header.get("NumberOfFrames") or 1)
    if scaling := _scaling(header, frames):
        facts["scaling"] = scaling
    doubts = []
    if header.get("BurnedInAnnotation") == "YES":
        doubts.append("text is burned into its pixels: names may be seen in them")
    if header.get("LossyImageCompression") == "01":
        doubts.append("its pixels were compressed with loss")
    if "LOCALIZER" in _text(header.get("ImageType")).upper().split("\\"):
        doubts.append("it is a localizer, made to plan others by")
    count = frames if frames > 1 else len(files)
    sign = "int" if int(header.get("PixelRepresentation") or 0) else "uint"
    return Header(
        shape=(int(header.get("Columns") or 0), int(header.get("Rows") or 0), count),
        affine=_affine(header),
        stored=f"{header.get('BitsStored', '?')} bits, {sign}",
        modality=_text(header.get("Modality")),
        facts=facts,
        doubts=tuple(doubts),
    )


def spacing_doubts(header: Header, between_slices: float) -> list[str]:
    """What the stated thickness and spacing of slices contradict.

    Args:
        header: From :func:`describe_dicom`.
        between_slices: As the positions of the slices have it, mm.
    """
    found = []
    thick = _number(header.facts.get("slice thickness (mm)"))
    stated = _number(header.facts.get("stated slice spacing (mm)"))
    if thick and between_slices > 1.2 * thick:
        found.append(
            f"its slices are {thick:g} mm thick and {between_slices:.4g} mm apart: nothing was "
            "seen between them"
        )
    if stated and abs(abs(stated) - between_slices) > 0.05 * between_slices:
        found.append(
            f"its header states a slice spacing of {abs(stated):g} mm, and its slices are "
            f"{between_slices:.4g} mm apart"
        )
    return found


def _affine(header: pydicom.Dataset) -> Any:
    """The affine of the first slice, its thickness for the spacing; None if it says too little."""
    cosines, spacing = said(header, 0, "ImageOrientationPatient"), said(header, 0, "PixelSpacing")
    if not cosines or not spacing:
        return None
    row, column = np.array(cosines, dtype=np.float64).reshape(2, 3)
    between_rows, between_columns = (float(value) for value in spacing)
    step = said(header, 0, "SpacingBetweenSlices") or said(header, 0, "SliceThickness") or 1.0
    affine = np.eye(4)
    normal = np.cross(row, column) * abs(float(step))
    affine[:3, :3] = np.stack([row * between_columns, column * between_rows, normal], axis=1)
    affine[:3, 3] = np.array(said(header, 0, "ImagePositionPatient") or (0, 0, 0))
    return usable(LPS_FROM_RAS @ affine)


def _first(header: pydicom.Dataset, tag: str) -> Any:
    """What is said of the first frame, or plainly."""
    return (
        said(header, 0, tag)
        if tag in ("SliceThickness", "SpacingBetweenSlices")
        else header.get(tag)
    )


def _scaling(header: pydicom.Dataset, frames: int) -> str:
    """What stored values are multiplied with, in words; empty if with nothing."""
    lines = [values_of(header, number) for number in range(min(frames, _MOST_FRAMES))]
    if any(line.table is not None for line in lines):
        return "by a table (Modality LUT)"
    said_of = {(line.slope, line.intercept) for line in lines}
    if len(said_of) > 1:
        return "of its own for each frame"
    slope, intercept = said_of.pop()
    return "" if (slope, intercept) == (1, 0) else f"times {slope:g} plus {intercept:g}"


def _text(value: Any) -> str:
    if value is None:
        return ""
    several = isinstance(value, list | tuple | pydicom.multival.MultiValue)
    return "\\".join(str(one) for one in value) if several else str(value).strip()


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
