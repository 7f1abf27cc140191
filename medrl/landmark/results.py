"""What a detection leaves on disk: files that 3D Slicer, spreadsheets and medrl can open."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.results import SavedFiles
from medrl.results.artifacts import (
    File,
    dicom_files,
    picture_file,
    trajectory_file,
    write_files,
)

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.dicom import Pseudonyms
    from medrl.landmark.detection import Detection


def landmark_rows(detection: Detection) -> list[dict[str, Any]]:
    """A detection as a table.

    Returns:
        One row a landmark: name, x, y, z (RAS mm; None if it is not in the scan), status,
        confidence (None if unknown) and note.
    """
    rows = []
    for landmark in detection.landmarks:
        x, y, z = (float(v) for v in landmark.position_world)
        if landmark.status == "absent":
            place: dict[str, float | None] = {"x": None, "y": None, "z": None}
        else:
            place = {"x": x, "y": y, "z": z}
        unknown = math.isnan(landmark.confidence) or landmark.status == "absent"
        rows.append(
            {
                "name": landmark.name,
                **place,
                "status": landmark.status,
                "confidence": None if unknown else float(landmark.confidence),
                "note": landmark.note,
            }
        )
    return rows


def save_detection(
    detection: Detection,
    scan: MetaTensor,
    folder: Path,
    stem: str,
    *,
    picture: bool,
    pseudonyms: Pseudonyms | None,
) -> SavedFiles:
    """Write what :meth:`medrl.landmark.detection.Detection.save` says."""
    from medrl.dicom import Maker, ReportedPoint, draft_report
    from medrl.volume.points import write_markups, write_points_csv

    there = [lm for lm in detection.landmarks if lm.status != "absent"]
    places = {lm.name: lm.position_world for lm in there}
    words = {lm.name: _describe(lm.status, lm.confidence, lm.note) for lm in there}
    points = [ReportedPoint(lm.name, lm.position_world, lm.confidence, lm.status) for lm in there]
    made_by = detection.trajectory.provenance
    maker = Maker(str(made_by["model"]), str(made_by["version"]))
    report = draft_report(scan, points, maker, pseudonyms=pseudonyms)
    files: dict[str, File] = {
        "markups": (
            ".mrk.json",
            lambda path: write_markups(path, places, descriptions=words, name=stem),
        ),
        "table": (".csv", lambda path: write_points_csv(path, landmark_rows(detection))),
        "trajectory": trajectory_file(detection.trajectory),
    }
    if picture:
        from medrl.landmark.picture import draw_detection

        files["picture"] = picture_file(".png", draw_detection, scan, detection, title=stem)
    files |= dicom_files("report", ".sr.dcm", report)
    return SavedFiles(write_files(folder, stem, files), report.remarks)


def _describe(status: str, confidence: float, note: str) -> str:
    """What 3D Slicer shows next to a point."""
    sure = "" if math.isnan(confidence) else f", confidence {confidence:.2f}"
    said = "corrected by hand" if status == "by hand" else status
    return f"{said}{sure}" + (f"; {note}" if note else "")
