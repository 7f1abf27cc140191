"""What a detection leaves on disk: files that 3D Slicer, spreadsheets and medrl can open."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.errors import MedrlError

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.landmark.detect import Detection

#: Endings that a scan's name loses.
_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip", ".dcm")


def prepare_folder(folder: Path) -> Path:
    """Make an output folder and find out now whether it can be written to.

    Args:
        folder: Made, with its parents, if missing.

    Returns:
        The same folder.

    Raises:
        MedrlError: If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MedrlError(
            f"cannot write into the output folder {folder}: {error.strerror}; choose another"
        ) from None
    return folder


def stem_of(scan: Path) -> str:
    """A scan's file or folder name without the ending of its format."""
    name = scan.resolve().name
    for ending in _ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def distinct_stems(scans: Sequence[Path]) -> list[str]:
    """Names for the results of several scans, no two alike.

    Scans with the same name are told apart by the folders they lie in, as far up as it takes;
    those that differ in nothing but the format by a number.

    Args:
        scans: Paths.

    Returns:
        One name a scan, in the same order.
    """
    paths = [scan.resolve() for scan in scans]
    stems = [stem_of(path) for path in paths]
    names = list(stems)
    for depth in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        keys = [name.casefold() for name in names]
        alike = [n for n, key in enumerate(keys) if keys.count(key) > 1]
        if not alike:
            return names
        for n in alike:
            above = [part for part in paths[n].parent.parts[-depth:] if part != paths[n].anchor]
            names[n] = "_".join([*above, stems[n]])
    taken: set[str] = set()
    for n, name in enumerate(names):
        number = 1
        while names[n].casefold() in taken:
            number += 1
            names[n] = f"{name}_{number}"
        taken.add(names[n].casefold())
    return names


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


def write_results(
    folder: Path, stem: str, scan: MetaTensor, detection: Detection, *, picture: bool = True
) -> dict[str, Path]:
    """Write everything there is to keep of one scan, all of it or nothing.

    ``<stem>.mrk.json`` is a 3D Slicer point list with the landmarks that are in the scan,
    ``<stem>.csv`` the table of all of them (name, x, y, z in RAS mm, status, confidence, note),
    ``<stem>.trajectory.json`` every agent's path, ``<stem>.png`` a picture.

    Args:
        folder: Existing folder.
        stem: What the files are called.
        scan: MetaTensor (1, I, J, K), as it was searched.
        detection: What was found in it.
        picture: Draw the picture.

    Returns:
        Paths by kind: markups, table, trajectory, picture.

    Raises:
        MedrlError: If they cannot be written.
    """
    from medrl.trajectory import write_trajectory
    from medrl.volume.points import write_markups, write_points_csv

    endings = {"markups": ".mrk.json", "table": ".csv", "trajectory": ".trajectory.json"}
    if picture:
        endings["picture"] = ".png"
    paths = {kind: folder / f"{stem}{ending}" for kind, ending in endings.items()}
    work = None
    try:
        work = Path(tempfile.mkdtemp(prefix=".medrl-", dir=folder))
        drafts = {kind: work / path.name for kind, path in paths.items()}
        there = [lm for lm in detection.landmarks if lm.status != "absent"]
        write_markups(
            drafts["markups"],
            {lm.name: lm.position_world for lm in there},
            descriptions={lm.name: _describe(lm.status, lm.confidence, lm.note) for lm in there},
            name=stem,
        )
        write_points_csv(drafts["table"], landmark_rows(detection))
        write_trajectory(drafts["trajectory"], detection.trajectory)
        if picture:
            from medrl.landmark.picture import write_picture

            write_picture(drafts["picture"], scan, detection, title=stem)
        for kind, path in paths.items():
            drafts[kind].replace(path)
    except OSError as error:
        raise MedrlError(f"cannot write the results to {folder}: {error.strerror}") from None
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return paths


def _describe(status: str, confidence: float, note: str) -> str:
    """What 3D Slicer shows next to a point."""
    sure = "" if math.isnan(confidence) else f", confidence {confidence:.2f}"
    return f"{status}{sure}" + (f"; {note}" if note else "")
