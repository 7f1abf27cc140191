"""What a search has found in a scan, and what a person made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.landmark.corrections import corrected_by_hand
from medrl.landmark.data import add_sample
from medrl.landmark.detect import Detection, Landmark
from medrl.trajectory import AgentPath, Trajectory
from medrl.volume.space import voxel_to_world
from medrl_napari.detect.points import Corrections
from medrl_napari.scans import Shown
from medrl_napari.space import Floats


@dataclass(eq=False)
class Result:
    """One search.

    Attributes:
        shown: The scan.
        name: What its layer was called.
        detection: What was found.
        moved: What a person changed of it.
        unsaved: Whether some of that is in no file.
    """

    shown: Shown
    name: str
    detection: Detection
    moved: Corrections = field(default_factory=dict)
    unsaved: bool = False

    @property
    def now(self) -> Detection:
        """The detection with the corrections."""
        return corrected_by_hand(self.detection, self.moved)

    def landmark(self, name: str) -> Landmark:
        """A landmark as it now stands."""
        return self.now[name]

    def reset(self, name: str) -> bool:
        """Forget a correction; False if there was none."""
        there = name in self.moved
        self.moved.pop(name, None)
        self.unsaved = bool(self.moved)
        return there

    @property
    def stem(self) -> str:
        """What files of this scan are called."""
        return self.shown.stem(self.name)

    def write(self, folder: Path) -> dict[str, Path]:
        """Write what `medrl detect` writes, with the corrections.

        Args:
            folder: Made if missing.

        Returns:
            Paths by kind.

        Raises:
            MedrlError: If they cannot be written.
        """
        paths = replace(self.now, scan=self.shown.scan).save(folder, self.stem)
        self.unsaved = False
        return paths

    def for_training(self, names: Sequence[str]) -> dict[str, Floats]:
        """Landmarks as they now stand, RAS mm, by name.

        Args:
            names: Which; absent ones are left out.

        Raises:
            MedrlError: If there is none, or the scan is in no file that a datalist could name.
        """
        there = [lm for lm in map(self.landmark, names) if lm.status != "absent"]
        if not there:
            raise MedrlError("Tick the landmarks that are right: they go into the datalist.")
        if not self.shown.file:
            raise MedrlError("This scan is not in a file: save it, open that, and search it.")
        return {lm.name: lm.position_world for lm in there}

    def add_to(self, datalist: Path, points_world: Mapping[str, Floats]) -> None:
        """Add the scan with landmarks to a datalist, made if missing.

        Raises:
            MedrlError: If it cannot be written.
        """
        add_sample(datalist, Path(self.shown.file), points_world)
        self.unsaved = False


def at_the_center(
    scan: MetaTensor, names: Sequence[str], *, scale_mm: float, window: int
) -> Trajectory:
    """Landmark agents that have not moved yet: all begin at the scan's centre.

    Args:
        scan: What they search.
        names: Of their landmarks.
        scale_mm: Voxel size that they begin with.
        window: Side of their windows in voxels.
    """
    center = voxel_to_world((np.array(scan.shape[1:]) - 1) / 2, scan.affine)
    one = np.ones(1)
    agents = [
        AgentPath(name, 0, center[None], one * scale_mm, np.array([-1]), one * np.nan)
        for name in names
    ]
    return Trajectory("landmark", tuple(agents), {"window_voxels": window})
