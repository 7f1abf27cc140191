"""What carried outlines leave on disk: masks, a table, the agents' paths, a film of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medrl.files import prepare_folder, stem_of
from medrl.results import SavedFiles
from medrl.results.artifacts import File, picture_file, trajectory_file, write_files
from medrl.results.film import write_overlay
from medrl.results.provenance import file_of
from medrl.volume.film import Film
from medrl.volume.read import write_nifti

if TYPE_CHECKING:
    from medrl.cutting.answer import Carried
    from medrl.dicom import Pseudonyms

#: Columns of the table.
COLUMNS = ("object", "label", "picture", "name", "area", "expected_overlap", "outlined")


def object_rows(carried: Carried) -> list[dict[str, Any]]:
    """The objects as a table: a row each."""
    counts = np.bincount(carried.labels.numpy().ravel())
    voxel_ml = 0.0
    if not (isinstance(carried.data, Film) and carried.data.flat):
        matrix = np.asarray(carried.labels.affine, dtype=np.float64)[:3, :3]
        voxel_ml = abs(float(np.linalg.det(matrix))) / 1000
    rows = []
    for thing in carried.things:
        pictures = thing.pictures
        worst, sure = thing.worst
        rows.append(
            {
                "object": thing.name,
                "label": thing.value,
                "outlined": sum(len(numbers) for numbers in thing.outlined.values()),
                "first": pictures[0] if pictures else None,
                "last": pictures[-1] if pictures else None,
                "pictures": len(pictures),
                "volume_ml": _volume(carried, int(counts[thing.value]), voxel_ml)
                if thing.value < len(counts)
                else 0.0,
                "expected_overlap": round(thing.mean_quality, 4),
                "look_at": worst,
                "expected_there": round(sure, 4),
            }
        )
    return rows


def _volume(carried: Carried, voxels: int, voxel_ml: float) -> float:
    """Millilitres; of a film the mean of its frames; 0 where pixels have no size."""
    times = len(carried.data) if isinstance(carried.data, Film) else 1
    return voxels * voxel_ml / times


def picture_rows(carried: Carried) -> list[dict[str, Any]]:
    """A row for every object in every slice or frame."""
    film = carried.data if isinstance(carried.data, Film) else None
    labels = carried.labels.numpy()
    slices = labels if film is not None else np.moveaxis(labels[0], carried.axis, 0)
    rows = []
    for thing in carried.things:
        drawn = {number for numbers in thing.outlined.values() for number in numbers}
        for number, sure in sorted(thing.quality().items()):
            rows.append(
                {
                    "object": thing.name,
                    "label": thing.value,
                    "picture": number,
                    "name": film.names[number] if film is not None and film.names else number,
                    "area": int((slices[number] == thing.value).sum()),
                    "expected_overlap": round(sure, 4),
                    "outlined": int(number in drawn),
                }
            )
    return rows


def save_carried(
    carried: Carried,
    folder: str | Path,
    stem: str | None,
    *,
    picture: bool,
    pseudonyms: Pseudonyms | None,
) -> SavedFiles:
    """Write everything there is to keep, all of it or nothing.

    ``<stem>.seg.nii.gz`` holds the masks on the grid of the scan, of a film its fourth dimension is
    time; ``<stem>.csv`` areas and expected overlaps of every slice or frame,
    ``<stem>.trajectory.json`` every agent's boxes, ``<stem>.png`` a picture, ``<stem>.webp`` a film
    of the outlines; of a DICOM scan ``<stem>.seg.dcm`` the masks as a DICOM SEG.

    Args:
        carried: What was carried.
        folder: Made if missing.
        stem: What the files are called; after the scan's file if left out.
        picture: Draw the picture and the film.
        pseudonyms: Take the patient's identity out of DICOM; None to carry it over.

    Returns:
        Paths by kind, and what to know of them.

    Raises:
        MedrlError: If they cannot be written.
    """
    first = carried.data.scan(0) if isinstance(carried.data, Film) else carried.data
    stem = stem or stem_of(Path(file_of(first) or "scan"))
    files: dict[str, File] = {
        "mask": (".seg.nii.gz", lambda path: write_nifti(path, carried.labels, dtype=np.uint16)),
        "table": (".csv", lambda path: _write_table(path, carried)),
        "trajectory": trajectory_file(carried.trajectory),
    }
    if picture:
        from medrl.cutting.picture import draw_carried, frames_of

        files["picture"] = picture_file(".png", draw_carried, carried, title=stem)
        files["film"] = (".webp", lambda path: write_overlay(path, *frames_of(carried)))
    remarks: tuple[str, ...] = ()
    if not isinstance(carried.data, Film) and "dicom" in carried.data.meta:
        from medrl.dicom import Maker, Segment, draft_segmentation
        from medrl.results.artifacts import dicom_files

        made_by = carried.trajectory.provenance
        drafted = draft_segmentation(
            carried.labels,
            carried.data,
            [Segment(thing.value, thing.name, thing.name) for thing in carried.things],
            Maker(str(made_by["model"]), str(made_by["version"])),
            pseudonyms=pseudonyms,
        )
        files |= dicom_files("segmentation", ".seg.dcm", drafted)
        remarks = tuple(drafted.remarks)
    return SavedFiles(write_files(prepare_folder(Path(folder)), stem, files), remarks)


def _write_table(path: Path, carried: Carried) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(picture_rows(carried))
