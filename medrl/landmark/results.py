"""What a detection leaves on disk: files that 3D Slicer, spreadsheets and medrl can open."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.results.artifacts import (
    File,
    dicom_files,
    picture_file,
    trajectory_file,
    write_files,
)

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.dicom import Drafted, Pseudonyms
    from medrl.landmark.detect import Detection


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


def dicom_report(
    scan: MetaTensor, detection: Detection, *, pseudonyms: Pseudonyms | None = None
) -> Drafted:
    """The landmarks that are in a DICOM scan as a Structured Report.

    Args:
        scan: As read.
        detection: What was found in it.
        pseudonyms: Take the patient's identity out; None to carry it over.

    Returns:
        The report; none, and perhaps a remark, if the scan was no DICOM or there can be none.
    """
    from medrl.dicom import Maker, ReportedPoint, draft_report

    known = detection.trajectory.provenance
    there = [lm for lm in detection.landmarks if lm.status != "absent"]
    points = [ReportedPoint(lm.name, lm.position_world, lm.confidence, lm.status) for lm in there]
    maker = Maker(str(known.get("model")), str(known.get("version")))
    return draft_report(scan, points, maker, pseudonyms=pseudonyms)


def write_results(
    folder: Path,
    stem: str,
    scan: MetaTensor,
    detection: Detection,
    *,
    picture: bool = True,
    report: Drafted | None = None,
) -> dict[str, Path]:
    """Write everything there is to keep of one scan, all of it or nothing.

    ``<stem>.mrk.json`` is a 3D Slicer point list with the landmarks that are in the scan,
    ``<stem>.csv`` the table of all of them (name, x, y, z in RAS mm, status, confidence, note),
    ``<stem>.trajectory.json`` every agent's path, ``<stem>.png`` a picture, ``<stem>.sr.dcm`` the
    landmarks as a DICOM SR.

    Args:
        folder: Existing folder.
        stem: What the files are called.
        scan: MetaTensor (1, I, J, K), as it was searched.
        detection: What was found in it.
        picture: Draw the picture.
        report: From :func:`dicom_report`; written if it holds one.

    Returns:
        Paths by kind: markups, table, trajectory, picture, report.

    Raises:
        MedrlError: If they cannot be written.
    """
    from medrl.volume.points import write_markups, write_points_csv

    there = {lm.name: lm for lm in detection.landmarks if lm.status != "absent"}
    places = {name: lm.position_world for name, lm in there.items()}
    words = {name: _describe(lm.status, lm.confidence, lm.note) for name, lm in there.items()}
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
    return write_files(folder, stem, files)


def _describe(status: str, confidence: float, note: str) -> str:
    """What 3D Slicer shows next to a point."""
    sure = "" if math.isnan(confidence) else f", confidence {confidence:.2f}"
    said = "corrected by hand" if status == "by hand" else status
    return f"{said}{sure}" + (f"; {note}" if note else "")
