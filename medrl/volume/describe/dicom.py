"""What the headers of a DICOM series say, without saying whose images they are.

Free text, such as the description of a series, may name the patient: it is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom

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
_OTHERS = (
    *("Modality", "Rows", "Columns", "NumberOfFrames", "BitsStored", "PixelRepresentation"),
    *("PhotometricInterpretation", "SOPClassUID", "RescaleSlope", "RescaleIntercept"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing"),
    *("BurnedInAnnotation", "LossyImageCompression", "SpacingBetweenSlices"),
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
    facts |= {name: _text(header.get(tag)) for tag, name in _TAGS.items() if _text(header.get(tag))}
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope is not None and (float(slope), float(intercept or 0)) != (1.0, 0.0):
        facts["scaling"] = f"times {float(slope):g} plus {float(intercept or 0):g}"
    doubts = []
    if header.get("BurnedInAnnotation") == "YES":
        doubts.append("text is burned into its pixels: names may be seen in them")
    if header.get("LossyImageCompression") == "01":
        doubts.append("its pixels were compressed with loss")
    if "LOCALIZER" in _text(header.get("ImageType")).upper().split("\\"):
        doubts.append("it is a localizer, made to plan others by")
    frames = int(header.get("NumberOfFrames") or 1)
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
    cosines, spacing = header.get("ImageOrientationPatient"), header.get("PixelSpacing")
    if not cosines or not spacing:
        return None
    row, column = np.array(cosines, dtype=np.float64).reshape(2, 3)
    between_rows, between_columns = (float(value) for value in spacing)
    step = header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1.0
    affine = np.eye(4)
    normal = np.cross(row, column) * abs(float(step))
    affine[:3, :3] = np.stack([row * between_columns, column * between_rows, normal], axis=1)
    affine[:3, 3] = np.array(header.get("ImagePositionPatient") or (0, 0, 0), dtype=np.float64)
    return usable(LPS_FROM_RAS @ affine)


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
