"""What comes out of a scan: landmarks, how sure they are, and what the user should know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.files import prepare_folder, stem_of
from medrl.landmark.candidates import Array, Status
from medrl.results.provenance import file_of
from medrl.trajectory import Trajectory

if TYPE_CHECKING:
    from medrl.dicom import Pseudonyms
    from medrl.results import SavedFiles

#: A detection this unlikely to be right is worth a warning.
DOUBTFUL = 0.5


@dataclass(frozen=True, eq=False)
class Landmark:
    """One landmark of one scan.

    Attributes:
        name: Its name.
        position_world: (3,) RAS mm. For an absent landmark the place, usually outside the scan,
            where its agent ended.
        status: ``found``; ``absent`` (not in this scan's field of view); ``corrected`` (the shape
            prior rejected what the agent found, the position is what the other landmarks expect);
            ``by hand`` (a person put it there).
        confidence: Probability, 0 to 1, that the error is below two voxels of the model's finest
            scale (of ``brain-t1`` 4 mm); for an absent landmark,
            that it is truly absent is not judged and this is 0; NaN where nobody judged.
        note: What is unusual, in words; empty if nothing is.
    """

    name: str
    position_world: Array
    status: Status
    confidence: float
    note: str


@dataclass(frozen=True, eq=False)
class Detection:
    """Everything that came out of one scan.

    Attributes:
        landmarks: In the order asked for.
        trajectory: Every agent's path.
        warnings: What the user should know of the scan and the landmarks, one line each; the first
            says so if the model was not made for the scan.
        seconds: Wall time from preprocessing to answer.
        scan: What was searched; without it, nothing can be saved.
        unfit: Why the model was not made for the scan, one line each; nothing that it finds there
            is trusted.
        instead: Why another model searched the scan than the one that was asked; empty if none did.
    """

    landmarks: tuple[Landmark, ...]
    trajectory: Trajectory
    warnings: tuple[str, ...]
    seconds: float
    scan: MetaTensor | None = None
    unfit: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()

    @property
    def confidence(self) -> float | None:
        """Expected share of the landmarks in the scan whose error is below 4 mm.

        None if there is none, or nobody judged.
        """
        sure = [lm.confidence for lm in self.landmarks if lm.status != "absent"]
        known = [one for one in sure if not math.isnan(one)]
        return sum(known) / len(known) if known else None

    @property
    def doubtful(self) -> tuple[str, ...]:
        """Landmarks in the scan that are more likely wrong than right."""
        there = (landmark for landmark in self.landmarks if landmark.status != "absent")
        return tuple(landmark.name for landmark in there if landmark.confidence < DOUBTFUL)

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        *,
        picture: bool = True,
        pseudonyms: Pseudonyms | None = None,
    ) -> SavedFiles:
        """Write everything there is to keep, all of it or nothing.

        ``<stem>.mrk.json`` is a 3D Slicer point list with the landmarks that are in the scan,
        ``<stem>.csv`` the table of all of them (name, x, y, z in RAS mm, status, confidence,
        note), ``<stem>.trajectory.json`` every agent's path, ``<stem>.png`` a picture, and of a
        DICOM scan ``<stem>.sr.dcm`` the landmarks as a Structured Report.

        Args:
            folder: Made if missing.
            stem: What the files are called; after the scan's file if left out.
            picture: Draw the picture.
            pseudonyms: Take the patient's identity out of DICOM; None to carry it over.

        Returns:
            Paths by kind: markups, table, trajectory, picture, report; and what to know of them.

        Raises:
            MedrlError: If they cannot be written.
        """
        from medrl.landmark.results import save_detection

        if self.scan is None:
            raise MedrlError("a detection without its scan cannot be saved")
        return save_detection(
            self,
            self.scan,
            prepare_folder(Path(folder)),
            stem or stem_of(Path(file_of(self.scan) or "scan")),
            picture=picture,
            pseudonyms=pseudonyms,
        )

    def __getitem__(self, name: str) -> Landmark:
        """The landmark of that name."""
        for landmark in self.landmarks:
            if landmark.name == name:
                return landmark
        raise KeyError(name)


def warnings_of(landmarks: Sequence[Landmark], where: str) -> tuple[str, ...]:
    """Lines about what is not as one would wish; `where` it was looked for."""
    lines = []
    there = [lm for lm in landmarks if lm.status != "absent"]
    absent = [lm.name for lm in landmarks if lm.status == "absent"]
    corrected = [lm.name for lm in landmarks if lm.status == "corrected"]
    doubtful = [lm.name for lm in there if lm.confidence < DOUBTFUL]
    if not there:
        lines.append("no landmark was found: is this the anatomy the model was trained for?")
    elif absent:
        lines.append(f"not in {where}: {', '.join(absent)}")
    if corrected:
        lines.append(f"placed by the shape prior, not by an agent: {', '.join(corrected)}")
    if there and len(doubtful) > len(there) / 2:
        lines.append(
            "most landmarks are doubtful: check that the scan shows the anatomy and contrast "
            "that the model was trained for"
        )
    elif doubtful:
        lines.append(f"doubtful, look at them: {', '.join(doubtful)}")
    return tuple(lines)
