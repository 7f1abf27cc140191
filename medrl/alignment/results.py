"""What an alignment leaves on disk: files that 3D Slicer, ITK and others open, and a report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.results import SavedFiles
from medrl.results.artifacts import File, picture_file, trajectory_file, write_files
from medrl.results.provenance import file_of

if TYPE_CHECKING:
    from medrl.alignment.align import Alignment

#: What each frame's world is called in files.
SPACES = {"acpc": "AC-PC frame, RAS mm", "mni": "MNI152NLin2009cAsym, RAS mm"}


def point_rows(alignment: Alignment) -> list[dict[str, Any]]:
    """The points as a table.

    Returns:
        One row a landmark: name; x, y, z in the frame (RAS mm; None if it is not in the scan);
        scan_x, scan_y, scan_z in the scan's world; status; confidence (None if unknown); whether
        the frame rests on it; off_mm, how far it is off the plane or the template's point.
    """
    rows = []
    for landmark in alignment.detection.landmarks:
        there = landmark.status != "absent"
        own = alignment.points_world.get(landmark.name)
        unknown = math.isnan(landmark.confidence) or not there
        place = (None,) * 3 if own is None else own.tolist()
        scan = landmark.position_world.tolist() if there else (None,) * 3
        rows.append(
            {
                "name": landmark.name,
                **dict(zip("xyz", place, strict=True)),
                **dict(zip(("scan_x", "scan_y", "scan_z"), scan, strict=True)),
                "status": landmark.status,
                "confidence": None if unknown else float(landmark.confidence),
                "used": landmark.name in alignment.fit.used,
                "off_mm": alignment.fit.residuals_mm.get(landmark.name),
            }
        )
    return rows


def alignment_report(alignment: Alignment) -> dict[str, Any]:
    """What there is to say of an alignment, ready for JSON."""
    matrix = alignment.transform_world
    return {
        "scan": file_of(alignment.scan),
        "to": alignment.to,
        "space": SPACES[alignment.to],
        **({"origin": alignment.origin} if alignment.to == "acpc" else {}),
        "maps": "aligned world (RAS mm) to the scan's world (RAS mm)",
        "transform_world": matrix.tolist(),
        "resampled": not alignment.header,
        "confidence": alignment.confidence,
        **alignment.fit.figures,
        "landmarks": point_rows(alignment),
        "model": alignment.trajectory.provenance["model"],
        "doubts": list(alignment.doubts),
        "warnings": list(alignment.warnings),
        "seconds": round(alignment.seconds, 3),
    }


def save_alignment(alignment: Alignment, folder: Path, stem: str, *, picture: bool) -> SavedFiles:
    """Write what :meth:`medrl.alignment.align.Alignment.save` says."""
    from medrl.volume.points import write_markups, write_points_csv
    from medrl.volume.read import write_nifti
    from medrl.volume.transform_files import write_transform

    to, matrix, aligned = alignment.to, alignment.transform_world, alignment.aligned()
    text = json.dumps(alignment_report(alignment), indent=1, allow_nan=False) + "\n"
    kind: Any = "rigid" if to == "acpc" else "affine"
    name = f"{stem} {to}"
    ending, agents = trajectory_file(alignment.trajectory)
    files: dict[str, File] = {
        "scan": (f"_{to}.nii.gz", lambda path: write_nifti(path, aligned)),
        "transform": (f"_{to}.tfm", lambda path: write_transform(path, matrix, kind=kind)),
        "matrix": (f"_{to}.matrix.txt", lambda path: write_transform(path, matrix, form="matrix")),
        "markups": (
            f"_{to}.mrk.json",
            lambda path: write_markups(path, alignment.points_world, name=name),
        ),
        "table": (f"_{to}.csv", lambda path: write_points_csv(path, point_rows(alignment))),
        "trajectory": (ending, agents),
        "report": (f"_{to}.report.json", lambda path: path.write_text(text, encoding="utf-8")),
    }
    if picture:
        from medrl.alignment.picture import draw_alignment

        files["picture"] = picture_file(
            f"_{to}.png", draw_alignment, alignment, aligned, title=name
        )
    return SavedFiles(write_files(folder, stem, files))
