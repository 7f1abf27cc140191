"""What the JSON beside a NIfTI file says of it (BIDS), and where the two disagree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrl.files import stem_of
from medrl.volume.describe.modality import stated_by_name

_LONGEST = 2**22
#: What is worth telling; none of it says who the patient is.
_KEYS = {
    "Modality": "modality",
    "Manufacturer": "scanner",
    "MagneticFieldStrength": "field (T)",
    "RepetitionTime": "repetition time (s)",
    "EchoTime": "echo time (s)",
    "InversionTime": "inversion time (s)",
    "Units": "unit",
    "BodyPartExamined": "body part",
    "BodyPart": "body part",
}
_APART_DEG = 5.0


def read_sidecar(path: Path) -> dict[str, Any]:
    """The object in the JSON file beside a scan; empty if there is none, or it cannot be read."""
    file = path.parent / f"{stem_of(path)}.json"
    try:
        if file.stat().st_size > _LONGEST:
            return {}
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def sidecar_facts(content: Mapping[str, Any]) -> dict[str, str]:
    """What is worth telling of it."""
    return {
        name: str(content[key])
        for key, name in _KEYS.items()
        if isinstance(content.get(key), str | int | float)
    }


def contradictions(
    content: Mapping[str, Any],
    path: Path,
    shape: tuple[int, ...],
    channels: int,
    affine: NDArray[np.float64],
    frame_step_s: float | None = None,
) -> list[str]:
    """Where the sidecar and the scan disagree, in words.

    Args:
        content: From :func:`read_sidecar`.
        path: The scan.
        shape: (I, J, K).
        channels: Or frames.
        affine: Voxel to world (RAS mm).
        frame_step_s: As the scan's header has it, if it does.
    """
    found = []
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    modality, by_name = str(content.get("Modality", "")), stated_by_name(path)
    if modality and by_name and modality.replace("PT", "PET") != by_name:
        found.append(f"its name says {by_name}, its sidecar {modality}")
    apart = _number(content.get("SpacingBetweenSlices"))
    thick = apart or _number(content.get("SliceThickness"))
    # Thickness alone: slices may overlap, or leave gaps of their own size.
    low, high = (0.9, 1.1) if apart else (0.3, 3.0)
    if thick and not any(low < x / thick < high for x in spacing):
        what = "slices that are" if apart else "slices of"
        sizes = " x ".join(f"{x:.4g}" for x in spacing)
        found.append(
            f"its sidecar tells of {what} {thick:g} mm{' apart' if apart else ''}, its "
            f"voxels are {sizes} mm"
        )
    timing = content.get("SliceTiming")
    if isinstance(timing, list) and timing and len(timing) not in shape[:3]:
        found.append(f"its sidecar times {len(timing)} slices, its grid has none of that many")
    repetition = _number(content.get("RepetitionTime"))
    step = frame_step_s if channels > 1 else None
    if repetition and step and abs(repetition - step) > 0.01 * repetition:
        found.append(
            f"its frames are {step:g} s apart by its header, {repetition:g} s by its sidecar"
        )
    if (off := _turned(content.get("ImageOrientationPatientDICOM"), affine)) > _APART_DEG:
        found.append(
            f"its sidecar turns the image by {off:.0f} degrees against its header (orientation)"
        )
    return found


def _turned(cosines: Any, affine: NDArray[np.float64]) -> float:
    """The angle between the slices of the sidecar and the nearest axis of the scan, degrees."""
    try:
        row, column = np.array(cosines, dtype=np.float64).reshape(2, 3)
    except (TypeError, ValueError):
        return 0.0
    normal = np.cross(row, column) * (-1, -1, 1)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.abs(normal @ axes).max().clip(0, 1))))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
