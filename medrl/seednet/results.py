"""What a segmentation leaves on disk: files that 3D Slicer, ITK-SNAP and medrl can open."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medrl.files import all_or_nothing
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
    from medrl.trajectory import write_trajectory
    from medrl.volume.read import write_nifti

    labels = session.labels()
    names = session.objects
    endings = {"mask": ".seg.nii.gz"}
    lists = {}
    for name in names:
        several = len(names) > 1
        kind = f"seeds {name}" if several else "seeds"
        number = labels.meta["labels"][name]
        part = f".{number}-{re.sub(r'[^0-9A-Za-z_-]+', '-', name)}" if several else ""
        endings[kind] = f"{part}.seeds.mrk.json"
        lists[kind] = session.seeds_of(name)
    endings["trajectory"] = ".trajectory.json"
    if picture:
        endings["picture"] = ".png"
    if segmentation is not None and segmentation.dataset is not None:
        endings["segmentation"] = ".seg.dcm"
    paths = {kind: folder / f"{stem}{ending}" for kind, ending in endings.items()}
    with all_or_nothing(paths) as drafts:
        write_nifti(drafts["mask"], labels, dtype=np.uint8)
        for kind, seeds in lists.items():
            write_seeds(drafts[kind], seeds, name=stem)
        write_trajectory(drafts["trajectory"], session.trajectory())
        if picture:
            from medrl.seednet.picture import write_picture

            write_picture(drafts["picture"], session, title=stem)
        if segmentation is not None and segmentation.dataset is not None:
            from medrl.dicom.objects import save

            save(drafts["segmentation"], segmentation.dataset)
    return paths
