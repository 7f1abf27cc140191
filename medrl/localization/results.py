"""What a localization leaves on disk: files that 3D Slicer, spreadsheets and medrl can open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.errors import MedrlError
from medrl.files import result_name
from medrl.results import SavedFiles
from medrl.results.artifacts import (
    File,
    dicom_files,
    picture_file,
    trajectory_file,
    write_files,
)
from medrl.volume.box_files import box_row, write_boxes, write_boxes_csv
from medrl.volume.boxes import crop_to_box
from medrl.volume.read import write_nifti

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.dicom import Pseudonyms
    from medrl.localization.answer import Box, Localization


def box_rows(localization: Localization) -> list[dict[str, Any]]:
    """A localization as a table.

    Returns:
        One row a box: name, faces (RAS mm; None if it is not in the scan), status, confidence (None
        if unknown) and note.
    """
    rows = []
    for box in localization.boxes:
        absent = box.status == "absent"
        sure = None if absent or math.isnan(box.confidence) else float(box.confidence)
        corners = None if absent else box.corners_world
        more = {"status": box.status, "confidence": sure, "note": box.note}
        rows.append(box_row(box.name, corners, **more))
    return rows


def save_localization(
    localization: Localization,
    scan: MetaTensor,
    folder: Path,
    stem: str,
    *,
    picture: bool,
    pseudonyms: Pseudonyms | None,
    crop: Sequence[str] = (),
    margin_mm: float = 0.0,
) -> SavedFiles:
    """Write what :meth:`medrl.localization.answer.Localization.save` says."""
    from medrl.dicom import Maker, ReportedPoint, draft_report

    there = [box for box in localization.boxes if box.status != "absent"]
    # A report holds places; of a box its middle and its two corners.
    places = [
        (f"{box.name}{part}", place, box)
        for box in there
        for part, place in (
            ("", box.center_world),
            (" smallest corner", box.corners_world[0]),
            (" largest corner", box.corners_world[1]),
        )
    ]
    points = [ReportedPoint(name, place, box.confidence, box.status) for name, place, box in places]
    made_by = localization.trajectory.provenance
    maker = Maker(str(made_by["model"]), str(made_by["version"]))
    report = draft_report(scan, points, maker, pseudonyms=pseudonyms)
    corners = {box.name: box.corners_world for box in there}
    words = {box.name: _describe(box) for box in there}
    files: dict[str, File] = {
        "markups": (".mrk.json", lambda path: write_boxes(path, corners, descriptions=words)),
        "table": (".csv", lambda path: write_boxes_csv(path, box_rows(localization))),
        "trajectory": trajectory_file(localization.trajectory),
    }
    if picture:
        from medrl.localization.picture import draw_localization

        files["picture"] = picture_file(".png", draw_localization, scan, localization, title=stem)
    for name in _wanted(crop, localization):
        files[f"crop of {name}"] = _crop_file(scan, localization[name], margin_mm)
    files |= dicom_files("report", ".sr.dcm", report)
    return SavedFiles(write_files(folder, stem, files), report.remarks)


def _wanted(crop: Sequence[str], localization: Localization) -> list[str]:
    """Names of the boxes that the scan is cut to."""
    there = [box.name for box in localization.boxes if box.status != "absent"]
    if "all" in crop:
        return there
    for name in crop:
        if name not in there:
            raise MedrlError(
                f"there is no {name} in the scan to cut it to; there are {', '.join(there) or '-'}"
            )
    return list(dict.fromkeys(crop))


def _crop_file(scan: MetaTensor, box: Box, margin_mm: float) -> File:
    """The scan cut to a box."""
    part = crop_to_box(scan, box.corners_world, margin_mm)
    return f"_{result_name(box.name)}.nii.gz", lambda path: write_nifti(path, part)


def _describe(box: Box) -> str:
    """What 3D Slicer shows next to a box."""
    sure = "" if math.isnan(box.confidence) else f", confidence {box.confidence:.2f}"
    return f"{box.status}{sure}" + (f"; {box.note}" if box.note else "")
