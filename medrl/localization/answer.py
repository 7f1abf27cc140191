"""What came out of a scan: boxes, how sure they are, and how the agents got there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.files import prepare_folder, stem_of
from medrl.results.provenance import file_of
from medrl.trajectory import Trajectory

if TYPE_CHECKING:
    from medrl.dicom import Pseudonyms
    from medrl.results import SavedFiles

Array = NDArray[np.float64]
Status = Literal["found", "absent", "by hand"]

#: A box is good when it overlaps the true one by this much (intersection over union).
GOOD_IOU = 0.7
#: A box this unlikely to be good is worth a warning.
DOUBTFUL = 0.5


@dataclass(frozen=True, eq=False)
class Box:
    """One box of one scan.

    Attributes:
        name: Of what is in it; of several of a kind with a number.
        corners_world: (2, 3) RAS mm, smallest and largest coordinates of its outer faces, which lie
            along the world's axes. Of something absent: where its agent looked last.
        status: ``found``; ``absent`` (its middle is not in the scan); ``by hand``.
        confidence: Probability, 0 to 1, that it overlaps the true box by at least 0.7 (intersection
            over union); 0 if absent; NaN if nobody judged.
        note: What is unusual, in words; empty if nothing is.
    """

    name: str
    corners_world: Array
    status: Status
    confidence: float
    note: str = ""

    @property
    def center_world(self) -> Array:
        """Its middle, (3,) RAS mm."""
        return np.asarray(self.corners_world.mean(axis=0), dtype=np.float64)

    @property
    def size_mm(self) -> Array:
        """Lengths of its edges along the world's axes, (3,) mm."""
        return np.asarray(self.corners_world[1] - self.corners_world[0], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Localization:
    """Everything that came out of one scan.

    Attributes:
        boxes: In the order asked for.
        trajectory: Every agent's path.
        warnings: What the user should know, one line each; the first says so if the model was not
            made for the scan.
        seconds: Wall time from preprocessing to answer.
        scan: What was searched; without it, nothing can be saved.
        unfit: Why the model was not made for the scan; nothing that it finds there is trusted.
    """

    boxes: tuple[Box, ...]
    trajectory: Trajectory
    warnings: tuple[str, ...]
    seconds: float
    scan: MetaTensor | None = None
    unfit: tuple[str, ...] = ()

    @property
    def confidence(self) -> float | None:
        """Expected share of the boxes in the scan that are good; None if nobody judged."""
        sure = [box.confidence for box in self.boxes if box.status != "absent"]
        known = [one for one in sure if not math.isnan(one)]
        return sum(known) / len(known) if known else None

    @property
    def doubtful(self) -> tuple[str, ...]:
        """Boxes in the scan that are more likely bad than good."""
        there = (box for box in self.boxes if box.status != "absent")
        return tuple(box.name for box in there if box.confidence < DOUBTFUL)

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        *,
        picture: bool = True,
        pseudonyms: Pseudonyms | None = None,
        crop: Sequence[str] = (),
        margin_mm: float = 0.0,
    ) -> SavedFiles:
        """Write everything there is to keep, all of it or nothing.

        ``<stem>.mrk.json`` holds a 3D Slicer ROI for each box in the scan, ``<stem>.csv`` the table
        of all of them, ``<stem>.trajectory.json`` every agent's path, ``<stem>.png`` a picture, and
        of a DICOM scan ``<stem>.sr.dcm`` the boxes as a Structured Report. ``crop`` adds
        ``<stem>_<box>.nii.gz``, the scan cut to a box, with its affine.

        Args:
            folder: Made if missing.
            stem: What the files are called; after the scan's file if left out.
            picture: Draw the picture.
            pseudonyms: Take the patient's identity out of DICOM; None to carry it over.
            crop: Names of boxes that the scan is cut to; ``all`` for every one that is there.
            margin_mm: Room around them.

        Returns:
            Paths by kind, and what to know of them.

        Raises:
            MedrlError: If they cannot be written, or there is no such box in the scan.
        """
        from medrl.localization.results import save_localization

        if self.scan is None:
            raise MedrlError("a localization without its scan cannot be saved")
        return save_localization(
            self,
            self.scan,
            prepare_folder(Path(folder)),
            stem or stem_of(Path(file_of(self.scan) or "scan")),
            picture=picture,
            pseudonyms=pseudonyms,
            crop=crop,
            margin_mm=margin_mm,
        )

    def __getitem__(self, name: str) -> Box:
        """The box of that name."""
        for box in self.boxes:
            if box.name == name:
                return box
        raise KeyError(name)
