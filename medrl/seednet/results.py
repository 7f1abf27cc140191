"""What a segmentation leaves on disk: files that 3D Slicer, ITK-SNAP and medrl can open."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medrl.results.artifacts import (
    File,
    dicom_files,
    picture_file,
    trajectory_file,
    write_files,
)
from medrl.seednet.session import SeedSession

if TYPE_CHECKING:
    from medrl.dicom import Drafted, Pseudonyms


def object_rows(session: SeedSession) -> list[dict[str, Any]]:
    """The objects of a session as a table.

    Returns:
        One row for each that has a foreground seed: object, target, its number in the label map,
        volume_ml, user_seeds, agent_seeds, expected_gain (Dice that the agent hoped to add, in
        sum), outcome.
    """
    labels = session.labels()
    voxel_ml = abs(float(np.linalg.det(np.asarray(labels.affine)[:3, :3]))) / 1000
    rows = []
    for name, number in labels.meta["labels"].items():
        seeds = session.seeds_of(name)
        agents = [seed for seed in seeds if seed.who == "agent"]
        if not any(seed.label for seed in seeds):
            continue
        rows.append(
            {
                "object": name,
                "target": session.target_of(name),
                "label": number,
                "volume_ml": int((labels.as_tensor() == number).sum()) * voxel_ml,
                "user_seeds": len(seeds) - len(agents),
                "agent_seeds": len(agents),
                "expected_gain": float(sum(seed.expected_gain for seed in agents)),
                "outcome": session.outcome(name),
            }
        )
    return rows


def dicom_segmentation(session: SeedSession, *, pseudonyms: Pseudonyms | None = None) -> Drafted:
    """The objects of a DICOM scan as a DICOM SEG, numbered as in the label map.

    Args:
        session: What was done.
        pseudonyms: Take the patient's identity out; None to carry it over.

    Returns:
        The object; none, and perhaps a remark, if the scan was no DICOM or there can be none.

    Raises:
        MedrlError: If no object has a foreground seed.
    """
    from medrl.dicom import Drafted, Maker, Segment, draft_segmentation

    scan = next(iter(session.images.values()))
    if "dicom" not in scan.meta:
        return Drafted()
    labels = session.labels()
    segments = [
        Segment(number, name, session.target_of(name))
        for name, number in labels.meta["labels"].items()
    ]
    maker = Maker(str(session.manifest.get("name")))
    return draft_segmentation(labels, scan, segments, maker, pseudonyms=pseudonyms)


def write_results(
    folder: Path,
    stem: str,
    session: SeedSession,
    *,
    picture: bool = True,
    segmentation: Drafted | None = None,
) -> dict[str, Path]:
    """Write everything there is to keep of one scan, all of it or nothing.

    ``<stem>.seg.nii.gz`` is the label map in the scan's own grid, ``<stem>.seeds.mrk.json`` the
    seeds as 3D Slicer points (of several objects each has a file of its own),
    ``<stem>.trajectory.json`` what the agent did, ``<stem>.png`` a picture, ``<stem>.seg.dcm`` the
    masks as a DICOM SEG.

    Args:
        folder: Existing folder.
        stem: What the files are called.
        session: What was done.
        picture: Draw the picture.
        segmentation: From :func:`dicom_segmentation`; written if it holds one.

    Returns:
        Paths by kind: mask, seeds (``seeds NAME`` of several objects), trajectory, picture,
        segmentation.

    Raises:
        MedrlError: If no object has a foreground seed, or the files cannot be written.
    """
    from medrl.seednet.seeds import write_seeds
    from medrl.volume.read import write_nifti

    labels = session.labels()
    numbers = labels.meta["labels"]
    files: dict[str, File] = {
        "mask": (".seg.nii.gz", lambda path: write_nifti(path, labels, dtype=np.uint8))
    }
    for name in session.objects:
        seeds = session.seeds_of(name)
        kind, part = "seeds", ""
        if len(session.objects) > 1:
            kind = f"seeds {name}"
            part = f".{numbers[name]}-{re.sub(r'[^0-9A-Za-z_-]+', '-', name)}"
        write = partial(write_seeds, seeds=seeds, name=stem)
        files[kind] = (f"{part}.seeds.mrk.json", write)
    files["trajectory"] = trajectory_file(session.trajectory())
    if picture:
        from medrl.seednet.picture import draw_segmentation

        files["picture"] = picture_file(".png", draw_segmentation, session, title=stem)
    files |= dicom_files("segmentation", ".seg.dcm", segmentation)
    return write_files(folder, stem, files)
