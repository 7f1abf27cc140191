"""Find landmarks in a scan: the public face of the landmark agents."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.landmark.examine import Array, Examination, Examiner, Status
from medrl.landmark.model import LandmarkModel
from medrl.landmark.paths import only, paths_of
from medrl.results.provenance import provenance
from medrl.trajectory import AgentPath, Trajectory
from medrl.trajectory.live import Watch
from medrl.volume.space import depth_inside

#: A detection this unlikely to be right is worth a warning.
_DOUBTFUL = 0.5
#: Of the validation landmarks that the prior placed, two in five were within 4 mm.
_CORRECTED_AT_MOST = 0.4
#: How near to a face of the scan a doubtful answer counts as a landmark beyond it (mm).
_NEAR_FACE_MM = 20.0


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
        confidence: Probability, 0 to 1, that the error is below 4 mm; for an absent landmark,
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
        warnings: What the user should know, one line each.
        seconds: Wall time from preprocessing to answer.
    """

    landmarks: tuple[Landmark, ...]
    trajectory: Trajectory
    warnings: tuple[str, ...]
    seconds: float

    def __getitem__(self, name: str) -> Landmark:
        """The landmark of that name."""
        for landmark in self.landmarks:
            if landmark.name == name:
                return landmark
        raise KeyError(name)


class LandmarkDetector:
    """Finds the landmarks of one trained model in scans.

    >>> from medrl import LandmarkDetector
    >>> detector = LandmarkDetector.load("brain-t1")
    >>> detection = detector.detect(scan)
    >>> detection["Putamen_L_centroid"].position_world
    """

    def __init__(self, model: LandmarkModel, *, manifest: dict[str, Any] | None = None) -> None:
        """Use a model that is in memory already.

        Args:
            model: The trained agents.
            manifest: The bundle's ``model.json``, for provenance.
        """
        self.model = model
        self.manifest = manifest or {"name": "unnamed"}
        self._examiner = Examiner(model, name=str(self.manifest.get("name")))

    @classmethod
    def load(cls, name_or_dir: str, *, device: str = "cpu") -> LandmarkDetector:
        """Load a model that ships with medrl by its name, or any bundle folder.

        Args:
            name_or_dir: For example ``brain-t1``, or a path.
            device: Torch device: ``cpu``, ``cuda``, ``cuda:1``.

        Returns:
            A detector, ready to use; loading takes a fraction of a second.

        Raises:
            MedrlError: If there is no such model, it is damaged, or the device is not there.
        """
        from medrl.bundles import find

        if device.startswith("cuda") and not torch.cuda.is_available():
            raise MedrlError(f"device {device} is not available here: use --device cpu")
        model, manifest = LandmarkModel.load(find(name_or_dir), device=device)
        return cls(model, manifest=manifest)

    @property
    def landmark_names(self) -> tuple[str, ...]:
        """Names of all landmarks the model knows."""
        return self.model.names

    @property
    def card(self) -> dict[str, Any]:
        """The model card: training data, licence, intended use."""
        return dict(self.manifest.get("card", {}))

    def detect(
        self,
        scan: MetaTensor,
        *,
        landmarks: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> Detection:
        """Find landmarks.

        All agents start at the scan's centre. The agents of all landmarks are run even if only
        some are asked for: the shape prior needs them, and together they cost little more.

        Args:
            scan: MetaTensor (1, I, J, K) with a voxel-to-world affine (RAS mm); any orientation,
                spacing and field of view.
            landmarks: Which to report; all if left out.
            progress: Called with the agents that have ended and their number.
            watch: Called at every step with the agents of the landmarks asked for; those that
                search a second time do so as start 1. What it raises ends the search and comes out.

        Returns:
            Positions in RAS mm with status and confidence, and the paths.

        Raises:
            MedrlError: If the scan cannot be what the model was trained for (several channels,
                one slice, constant, wrong modality), or a landmark's name is unknown.
        """
        names = self._wanted(landmarks)
        watch = watch and only(names, watch)
        (found,) = self._together([scan], names, progress=progress, watch=watch)
        if isinstance(found, MedrlError):
            raise found
        return found

    def detect_many(
        self,
        scans: Sequence[MetaTensor],
        *,
        landmarks: Sequence[str] | None = None,
        together: int = 8,
    ) -> list[Detection | MedrlError]:
        """Find landmarks in many scans, the agents of several at a time in shared batches.

        The answers are those of :meth:`detect`, up to the rounding of sums over batches of other
        sizes. On a GPU it takes much less time; on a CPU hardly.

        Args:
            scans: As for :meth:`detect`, of any shapes.
            landmarks: Which to report; all if left out.
            together: How many scans are searched at the same time; what bounds the memory.

        Returns:
            For each scan its detection, or why there is none. The seconds of scans that were
            searched together are shared out equally among them.

        Raises:
            MedrlError: If a landmark's name is unknown, or `together` is less than 1.
        """
        names = self._wanted(landmarks)
        if together < 1:
            raise MedrlError(f"at least one scan must be searched at a time, not {together}")
        return [
            found
            for first in range(0, len(scans), together)
            for found in self._together(scans[first : first + together], names)
        ]

    def examine(
        self,
        scan: MetaTensor,
        *,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> Examination:
        """Run the agents and the shape prior, without judging how sure the answers are.

        Args:
            scan: As for :meth:`detect`.
            progress: As for :meth:`detect`.
            watch: As for :meth:`detect`, with the agents of all landmarks.

        Returns:
            Answers and evidence for all landmarks of the model.

        Raises:
            MedrlError: As :meth:`detect`.
        """
        (found,) = self._examiner.examine([scan], progress=progress, watch=watch)
        if isinstance(found, MedrlError):
            raise found
        return found

    # ---------------------------------------------------------------------------------------------

    def _wanted(self, landmarks: Sequence[str] | None) -> tuple[str, ...]:
        unknown = sorted(set(landmarks or ()) - set(self.model.names))
        if unknown:
            raise MedrlError(
                f"the model does not know {', '.join(unknown)}; "
                f"it knows {', '.join(self.model.names)}"
            )
        return tuple(landmarks or self.model.names)

    def _together(
        self,
        scans: Sequence[MetaTensor],
        names: Sequence[str],
        *,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> list[Detection | MedrlError]:
        """Search scans at the same time, and judge each."""
        began = time.perf_counter()
        exams = self._examiner.examine(scans, progress=progress, watch=watch)
        found = [
            exam if isinstance(exam, MedrlError) else self._judged(scan, exam, names)
            for scan, exam in zip(scans, exams, strict=True)
        ]
        seconds = (time.perf_counter() - began) / len(found)
        return [
            one if isinstance(one, MedrlError) else replace(one, seconds=seconds) for one in found
        ]

    def _judged(self, scan: MetaTensor, exam: Examination, names: Sequence[str]) -> Detection:
        """Say how sure the answers are; how long it took is not known yet."""
        sure = np.full(len(exam.status), np.nan)
        if self.model.confidence is not None:
            sure = self.model.confidence(exam.features)
        corrected = np.array([said == "corrected" for said in exam.status])
        sure = np.where(corrected, np.minimum(sure, _CORRECTED_AT_MOST), sure)
        # A doubtful answer near a face is most often a landmark beyond it.
        depth = depth_inside(exam.answers_world, scan.affine, tuple(scan.shape[1:]))
        beyond = (sure < _DOUBTFUL) & (depth < _NEAR_FACE_MM)
        status: list[Status] = [
            "absent" if far else said for far, said in zip(beyond, exam.status, strict=True)
        ]
        sure[[said == "absent" for said in status]] = 0.0
        found = tuple(
            Landmark(name, exam.answers_world[k], status[k], float(sure[k]), exam.notes[k])
            for name in names
            for k in [self.model.names.index(name)]
        )
        paths = paths_of(exam.result, exam.pyramid, self.model.names)
        made_by = provenance(
            self.manifest,
            scan,
            windows=exam.result.evaluated,
            window_voxels=self.model.settings.window,
        )
        agents = tuple(_with_outcome(paths[landmark.name], landmark) for landmark in found)
        trajectory = Trajectory("landmark", agents, made_by)
        return Detection(found, trajectory, _warnings(found), math.nan)


def _with_outcome(path: AgentPath, landmark: Landmark) -> AgentPath:
    confidence = None if np.isnan(landmark.confidence) else landmark.confidence
    return replace(
        path,
        outcome=f"{landmark.status} ({path.outcome})",
        confidence=confidence,
        answer_world=landmark.position_world,
    )


def _warnings(landmarks: Sequence[Landmark]) -> tuple[str, ...]:
    """Lines about what is not as one would wish."""
    lines = []
    there = [lm for lm in landmarks if lm.status != "absent"]
    absent = [lm.name for lm in landmarks if lm.status == "absent"]
    corrected = [lm.name for lm in landmarks if lm.status == "corrected"]
    doubtful = [lm.name for lm in there if lm.confidence < _DOUBTFUL]
    if not there:
        lines.append("no landmark was found: is this the anatomy the model was trained for?")
    elif absent:
        lines.append(f"not in this scan's field of view: {', '.join(absent)}")
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
